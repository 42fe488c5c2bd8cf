import Glibc
import JSON
import Synchronization

/// Carries log lines to a descriptor on a thread of its own, so that a reader who stops (a full pipe, a stuck terminal) never
/// stops a loop. The queue is bounded in bytes; lines that find it full are counted, and the count is written as soon as
/// there is room.
public final class LogWriter: Sendable {
    private struct Queue {
        var bytes: [UInt8] = []
        var dropped = 0
        var isWriting = false
        var isClosed = false
    }

    private let descriptor: Int32
    private let limit: Int
    private let queue = Mutex(Queue())
    private let wake = Semaphore()
    private let thread: JoinableThread

    /// - Parameters:
    ///   - descriptor: stays open as long as this writer; not closed by it.
    ///   - limit: bytes that may wait.
    public init(descriptor: Int32 = STDERR_FILENO, limit: Int = 1 << 20) {
        self.descriptor = descriptor
        self.limit = limit
        thread = JoinableThread()
        thread.start { [self] in drain() }
    }

    /// Any thread; never blocks.
    public func write(_ line: [UInt8]) {
        let accepted = queue.withLock { queue in
            guard !queue.isClosed, queue.bytes.count + line.count <= limit else {
                queue.dropped += 1
                return false
            }
            queue.bytes += line
            return true
        }
        if accepted { wake.signal() }
    }

    /// Writes what is left and ends the thread; blocks while the descriptor does. Later lines are dropped.
    public func close() {
        let wasOpen = queue.withLock { queue in
            defer { queue.isClosed = true }
            return !queue.isClosed
        }
        guard wasOpen else { return }
        wake.signal()
        thread.join()
    }

    private func drain() {
        while true {
            wake.wait()
            let (batch, isLast) = queue.withLock { queue in
                var batch: [UInt8] = []
                swap(&batch, &queue.bytes)
                if queue.dropped > 0 {
                    batch += Log.compose(
                        Timestamp.now(), .warning, "log.dropped", [["lines": .integer(Int64(queue.dropped))]])
                    queue.dropped = 0
                }
                return (batch, queue.isClosed)
            }
            writeAll(batch)
            if isLast { return }
        }
    }

    private func writeAll(_ bytes: [UInt8]) {
        var offset = 0
        while offset < bytes.count {
            let count = bytes.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress?.advanced(by: offset), $0.count - offset) }
            if count > 0 {
                offset += count
            } else if count < 0, errno == EAGAIN {
                var poller = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
                poll(&poller, 1, 1000)
            } else if count < 0, errno == EINTR {
                continue
            } else {
                return  // The reader has gone; there is nobody to tell.
            }
        }
    }
}

/// POSIX semaphore at a fixed address.
/// Unchecked: `sem_post` and `sem_wait` may be called from any thread; freed with the last reference.
private final class Semaphore: @unchecked Sendable {
    private let handle = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)

    init() { sem_init(handle, 0, 0) }
    deinit {
        sem_destroy(handle)
        handle.deallocate()
    }
    func signal() { sem_post(handle) }
    func wait() {
        while sem_wait(handle) != 0, errno == EINTR {}
    }
}

/// A pthread that runs one closure. Signals stay with the other threads.
private final class JoinableThread: Sendable {
    private final class Body {
        let run: @Sendable () -> Void
        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }
    private let identifier = Mutex<pthread_t?>(nil)

    func start(_ run: @escaping @Sendable () -> Void) {
        let body = Unmanaged.passRetained(Body(run))
        var signals = sigset_t()
        var previous = sigset_t()
        sigfillset(&signals)
        pthread_sigmask(SIG_SETMASK, &signals, &previous)
        defer { pthread_sigmask(SIG_SETMASK, &previous, nil) }
        var created = pthread_t()
        let failure = pthread_create(&created, nil, { pointer in
            guard let pointer else { return nil }
            Unmanaged<Body>.fromOpaque(pointer).takeRetainedValue().run()
            return nil
        }, body.toOpaque())
        if failure == 0 { identifier.withLock { $0 = created } } else { body.release() }
    }

    func join() {
        if let identifier = identifier.withLock({ $0 }) { pthread_join(identifier, nil) }
    }
}

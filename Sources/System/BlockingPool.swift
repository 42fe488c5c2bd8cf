import Glibc

/// A few threads for calls that block: file I/O, password hashing. Threads start with the first work.
///
/// Bounded on both sides: at most `threads` run, at most `queue` wait, more is refused at once so that the caller can
/// push back. May be used from any thread or loop.
public final class BlockingPool: Sendable {
    public enum Failure<E: Error>: Error {
        /// The queue is full (or no thread could be started): try later.
        case full
        case failed(E)
    }

    private let shared: PoolState

    public init(name: String, threads: Int = 2, queue: Int = 256) {
        shared = PoolState(name: name, threads: max(1, threads), capacity: max(1, queue))
    }

    deinit { shared.close() }

    /// Runs `body` on a thread of the pool; the caller goes on where it was (on its loop). Work that was accepted runs
    /// even when the waiting task is cancelled.
    public func run<R: Sendable, E: Error>(
        _ body: @escaping @Sendable () throws(E) -> R
    ) async throws(Failure<E>) -> R {
        let result: Result<R, Failure<E>> = await withUnsafeContinuation { continuation in
            let accepted = shared.enqueue {
                do throws(E) {
                    continuation.resume(returning: .success(try body()))
                } catch {
                    continuation.resume(returning: .failure(.failed(error)))
                }
            }
            if !accepted { continuation.resume(returning: .failure(.full)) }
        }
        return try result.get()
    }

    /// The same without waiting for an end. False: the queue is full and `body` will not run.
    public func submit(_ body: @escaping @Sendable () -> Void) -> Bool { shared.enqueue(body) }
}

extension BlockingPool.Failure: Sendable where E: Sendable {}

/// Invariant of `@unchecked`: every stored `var` is read and written only between `lock` and `unlock`.
private final class PoolState: @unchecked Sendable {
    private let name: String
    private let threads: Int
    private let capacity: Int
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private var waiting: [@Sendable () -> Void] = []
    /// Index of the next work in `waiting`; what lies before has been taken.
    private var next = 0
    private var running = 0
    private var idle = 0
    private var closed = false

    init(name: String, threads: Int, capacity: Int) {
        self.name = name
        self.threads = threads
        self.capacity = capacity
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(condition, nil)
    }

    deinit {
        pthread_cond_destroy(condition)
        pthread_mutex_destroy(mutex)
        condition.deallocate()
        mutex.deallocate()
    }

    func enqueue(_ work: @escaping @Sendable () -> Void) -> Bool {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        guard !closed, waiting.count - next < capacity else { return false }
        // One new thread only if nobody is free for what already waits.
        if waiting.count - next >= idle, running < threads {
            if (try? NativeThread.start(name: name, { [self] in workUntilClosed() })) != nil {
                running += 1
            } else if running == 0 {
                return false
            }
        }
        waiting.append(work)
        pthread_cond_signal(condition)
        return true
    }

    /// Threads finish what was accepted, then end.
    func close() {
        pthread_mutex_lock(mutex)
        closed = true
        pthread_cond_broadcast(condition)
        pthread_mutex_unlock(mutex)
    }

    private func workUntilClosed() {
        while let work = take() { work() }
    }

    private func take() -> (@Sendable () -> Void)? {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        while next == waiting.count {
            if closed { return nil }
            idle += 1
            pthread_cond_wait(condition, mutex)
            idle -= 1
        }
        let work = waiting[next]
        next += 1
        if next == waiting.count {
            waiting.removeAll(keepingCapacity: true)
            next = 0
        } else if next >= 64, next * 2 >= waiting.count {
            waiting.removeFirst(next)
            next = 0
        }
        return work
    }
}

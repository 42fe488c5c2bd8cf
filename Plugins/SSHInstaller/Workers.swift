import Glibc
import Synchronization

/// The plugin's own threads: one for each installation that runs, up to a bound. They are all over when `join` returns, so that
/// nothing calls into the core after `stop`.
final class Workers: Sendable {
    private struct Threads: Sendable {
        var running: Set<UInt> = []
        /// Ended, and not yet joined.
        var over: [UInt] = []
        var isClosed = false
    }

    static let stackBytes = 1 << 20
    private let limit: Int
    private let threads = Mutex(Threads())

    init(limit: Int) { self.limit = limit }

    /// False when the bound is reached or the plugin stops.
    func start(_ work: @escaping @Sendable () -> Void) -> Bool {
        reap()
        return threads.withLock { threads in
            guard !threads.isClosed, threads.running.count < limit else { return false }
            var attributes = pthread_attr_t()
            pthread_attr_init(&attributes)
            defer { pthread_attr_destroy(&attributes) }
            pthread_attr_setstacksize(&attributes, Self.stackBytes)
            let context = Unmanaged.passRetained(WorkerContext(self, work))
            var thread = pthread_t()
            // The new thread waits for this lock before it takes itself out, so it is in the set by then.
            guard pthread_create(&thread, &attributes, workerBody, context.toOpaque()) == 0 else {
                context.release()
                return false
            }
            threads.running.insert(UInt(thread))
            return true
        }
    }

    fileprivate func ended() {
        let me = UInt(pthread_self())
        threads.withLock { threads in
            threads.running.remove(me)
            threads.over.append(me)
        }
    }

    private func reap() {
        let over = threads.withLock { threads in
            defer { threads.over = [] }
            return threads.over
        }
        for thread in over { pthread_join(pthread_t(thread), nil) }
    }

    var isIdle: Bool { threads.withLock { $0.running.isEmpty } }

    /// Nothing starts any more; returns when all have ended.
    func join() {
        let running = threads.withLock { threads in
            threads.isClosed = true
            return threads.running.union(threads.over)
        }
        for thread in running { pthread_join(pthread_t(thread), nil) }
        threads.withLock { $0.over = [] }
    }

    func close() { threads.withLock { $0.isClosed = true } }
}

private final class WorkerContext: Sendable {
    let workers: Workers
    let work: @Sendable () -> Void

    init(_ workers: Workers, _ work: @escaping @Sendable () -> Void) {
        self.workers = workers
        self.work = work
    }
}

private func workerBody(_ context: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    guard let context else { return nil }
    let box = Unmanaged<WorkerContext>.fromOpaque(context).takeRetainedValue()
    box.work()
    box.workers.ended()
    return nil
}

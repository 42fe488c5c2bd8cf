import Glibc

/// A value behind a lock, with the means to wait for a change of it. For threads of the plugin's own.
///
/// Unchecked: `state` is touched only with `mutex` held.
final class Monitor<State>: @unchecked Sendable {
    private var state: State
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private let condition: UnsafeMutablePointer<pthread_cond_t>

    init(_ state: sending State) {
        self.state = state
        mutex = .allocate(capacity: 1)
        condition = .allocate(capacity: 1)
        pthread_mutex_init(mutex, nil)
        var attributes = pthread_condattr_t()
        pthread_condattr_init(&attributes)
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        pthread_cond_init(condition, &attributes)
        pthread_condattr_destroy(&attributes)
    }

    deinit {
        pthread_cond_destroy(condition)
        pthread_mutex_destroy(mutex)
        condition.deallocate()
        mutex.deallocate()
    }

    /// Changes the value and wakes whoever waits.
    func update<Result>(_ body: (inout State) -> Result) -> Result {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        let result = body(&state)
        pthread_cond_broadcast(condition)
        return result
    }

    /// Looks at the value until `body` has a result; `nil` when so many milliseconds have passed without one.
    func wait<Result>(milliseconds: UInt64, _ body: (inout State) -> Result?) -> Result? {
        var end = timespec()
        clock_gettime(CLOCK_MONOTONIC, &end)
        end.tv_sec += Int(milliseconds / 1_000)
        end.tv_nsec += Int(milliseconds % 1_000) * 1_000_000
        if end.tv_nsec >= 1_000_000_000 {
            end.tv_sec += 1
            end.tv_nsec -= 1_000_000_000
        }
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        while true {
            if let result = body(&state) {
                pthread_cond_broadcast(condition)
                return result
            }
            guard pthread_cond_timedwait(condition, mutex, &end) == 0 else { return body(&state) }
        }
    }
}

func monotonicMilliseconds() -> UInt64 {
    var now = timespec()
    clock_gettime(CLOCK_MONOTONIC, &now)
    return UInt64(now.tv_sec) * 1_000 + UInt64(now.tv_nsec) / 1_000_000
}

/// Threads of the plugin's own for what blocks on the network: made as work comes, never more than `threads`, with a bounded
/// queue. `stop` waits for them.
final class Pool: Sendable {
    private struct Work {
        var waiting: [@Sendable () -> Void] = []
        var threads: [pthread_t] = []
        var idle = 0
        var isStopped = false
    }
    private let work = Monitor(Work())
    private let threads: Int
    private let queue: Int

    init(threads: Int, queue: Int) {
        self.threads = threads
        self.queue = queue
    }

    /// False: too much waits already, or the pool has stopped.
    func submit(_ job: @escaping @Sendable () -> Void) -> Bool {
        work.update { work in
            guard !work.isStopped, work.waiting.count < queue + work.idle else { return false }
            if work.idle <= work.waiting.count, work.threads.count < threads {
                var thread = pthread_t()
                var attributes = pthread_attr_t()
                pthread_attr_init(&attributes)
                pthread_attr_setstacksize(&attributes, 512 << 10)
                defer { pthread_attr_destroy(&attributes) }
                let context = Unmanaged.passRetained(self)
                if pthread_create(&thread, &attributes, poolThread, context.toOpaque()) == 0 {
                    work.threads.append(thread)
                } else {
                    context.release()
                    guard !work.threads.isEmpty else { return false }
                }
            }
            work.waiting.append(job)
            return true
        }
    }

    /// What waits does not run any more; what runs is waited for, so it must have been told to end.
    func stop() {
        let threads = work.update { work in
            work.isStopped = true
            work.waiting.removeAll()
            defer { work.threads = [] }
            return work.threads
        }
        for thread in threads { pthread_join(thread, nil) }
    }

    fileprivate func run() {
        while let job = take() { job() }
    }

    private func take() -> (@Sendable () -> Void)? {
        work.update { $0.idle += 1 }
        while true {
            let taken = work.wait(milliseconds: 3_600_000) { work -> (@Sendable () -> Void)?? in
                guard work.isStopped || !work.waiting.isEmpty else { return nil }
                // Together with the job: who submits the next one must not count on this thread.
                work.idle -= 1
                return .some(work.waiting.isEmpty ? nil : work.waiting.removeFirst())
            }
            if let taken { return taken }
        }
    }
}

private func poolThread(_ context: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    if let context { Unmanaged<Pool>.fromOpaque(context).takeRetainedValue().run() }
    return nil
}

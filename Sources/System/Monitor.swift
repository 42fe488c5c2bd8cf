import CLinux
import Glibc

/// A lock with one condition: for threads that wait for each other, some of them only for a while. Never on a loop.
///
/// `@unchecked Sendable`: the pthread objects stay at one address; `value` is touched only with the mutex held.
public final class Monitor<Value>: @unchecked Sendable {
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private var value: Value

    public init(_ value: sending Value) {
        self.value = value
        pthread_mutex_init(mutex, nil)
        cm_condition_init(condition)
    }

    deinit {
        pthread_cond_destroy(condition)
        pthread_mutex_destroy(mutex)
        condition.deallocate()
        mutex.deallocate()
    }

    /// Changes the value and wakes whoever waits.
    public func update<Result>(_ body: (inout Value) -> sending Result) -> sending Result {
        pthread_mutex_lock(mutex)
        defer {
            pthread_cond_broadcast(condition)
            pthread_mutex_unlock(mutex)
        }
        return body(&value)
    }

    /// Calls `body` at once and after each change until it gives something, or until `deadline` (monotonic nanoseconds;
    /// `nil`: without end).
    public func wait<Result>(until deadline: UInt64? = nil, _ body: (inout Value) -> sending Result?) -> sending Result? {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        while true {
            if let result = body(&value) { return result }
            if let deadline {
                if cm_condition_wait_until(condition, mutex, deadline) == ETIMEDOUT { return body(&value) }
            } else {
                pthread_cond_wait(condition, mutex)
            }
        }
    }
}

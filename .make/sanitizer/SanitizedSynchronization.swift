@_exported import Synchronization

/// `Synchronization.Mutex` for the thread sanitizer, which cannot see into it: the library is not built with it, so a lock
/// that somebody had to wait for looks to it like none. `.make/sanitize thread` puts this module in place of that one.
///
/// `@unchecked Sendable`: `mark` is an address for the sanitizer's books; nothing is read or written there.
public struct Mutex<Value: ~Copyable>: ~Copyable, @unchecked Sendable {
    private let inner: Synchronization.Mutex<Value>
    private let mark: UnsafeMutableRawPointer

    public init(_ value: consuming sending Value) {
        inner = Synchronization.Mutex(value)
        mark = .allocate(byteCount: 8, alignment: 8)
    }

    deinit { mark.deallocate() }

    public borrowing func withLock<Result: ~Copyable, Failure: Error>(
        _ body: (inout sending Value) throws(Failure) -> sending Result
    ) throws(Failure) -> sending Result {
        try inner.withLock { (value) throws(Failure) -> sending Result in
            acquire(mark)
            defer { release(mark) }
            return try body(&value)
        }
    }
}

@_silgen_name("__tsan_acquire") private func acquire(_ address: UnsafeMutableRawPointer)
@_silgen_name("__tsan_release") private func release(_ address: UnsafeMutableRawPointer)

/// A reference to loop-confined state that may travel between threads but opens only on its loop.
///
/// `@unchecked Sendable`: the value is reached only through `post` and `assumeOnLoop`, both on the loop. The last copy
/// may be dropped on another thread, so a value's `deinit` must not touch loop state.
public struct Confined<Value>: @unchecked Sendable {
    public let loop: EventLoop
    private let value: Value

    /// Call it on the loop that owns the value.
    public init(_ value: Value, on loop: EventLoop) {
        self.loop = loop
        self.value = value
    }

    /// Runs `body` with the value on its loop, by mail.
    public func post(_ body: @escaping @Sendable (Value) -> Void) {
        loop.post { body(value) }
    }

    /// Opens the box here; traps when this is not the value's loop.
    public func assumeOnLoop<Result, Failure: Error>(
        _ body: (Value) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        loop.preconditionCurrent()
        return try body(value)
    }
}

import Reactor

/// A write on its way to the writer and back. No generic class: its functions would look up their types at run time, for
/// each write.
///
/// `@unchecked Sendable` (from `Letter`): the sender fills it before the push; then it belongs to the writer thread
/// until `complete`, which hands it to the loop of the waiting task.
final class WriteRequest: Letter, @unchecked Sendable {
    typealias Body = @Sendable (borrowing Transaction) throws(StoreError) -> Void

    /// What it counts against the queue's limit.
    let bytes: Int
    /// Where the waiting task runs; `nil` off the loops.
    let loop: EventLoop?
    /// Keeps the value itself. May be called more than once.
    private let body: Body
    /// The waiting task; resumed exactly once.
    @exclusivity(unchecked) var continuation: UnsafeContinuation<Void, Never>?
    /// Set by the writer when the body threw or its commit failed.
    @exclusivity(unchecked) var failure: StoreError?

    init(bytes: Int, loop: EventLoop?, body: @escaping Body) {
        self.bytes = bytes
        self.loop = loop
        self.body = body
    }

    func run(in transaction: borrowing Transaction) throws(StoreError) { try body(transaction) }

    /// Wakes the waiting task. Called exactly once.
    func complete() { continuation?.resume() }

    /// Wakes it with a refusal that never reached the writer's transaction. Instead of `complete`.
    func refuse(_ problem: Problem) {
        failure = .refused(problem)
        complete()
    }
}

/// What a write gives back.
///
/// `@unchecked Sendable`: only the writer thread touches it until the request completes, and then only the waiting task.
final class WrittenValue<Value: Sendable>: @unchecked Sendable {
    @exclusivity(unchecked) var value: Value?
}

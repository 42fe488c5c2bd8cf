import Reactor

/// A write on its way to the writer and back.
///
/// `@unchecked Sendable` (from `Letter`): the sender fills it before the push; then it belongs to the writer thread
/// until `complete`, which hands it to the loop of the waiting task.
class WriteRequest: Letter, @unchecked Sendable {
    /// What it counts against the queue's limit.
    let bytes: Int
    /// Where the waiting task runs; `nil` off the loops.
    let loop: EventLoop?
    /// Set by the writer when the body threw or its commit failed.
    final var failure: StoreError?

    init(bytes: Int, loop: EventLoop?) {
        self.bytes = bytes
        self.loop = loop
    }

    /// Runs the body and keeps its value. May be called more than once.
    func run(in transaction: borrowing Transaction) throws(StoreError) {}
    /// Wakes the waiting task. Called exactly once.
    func complete() {}
    /// Wakes it with a refusal that never reached the writer's transaction. Instead of `complete`.
    func refuse(_ problem: Problem) {
        failure = .refused(problem)
        complete()
    }
}

final class TypedWriteRequest<Value: Sendable>: WriteRequest, @unchecked Sendable {
    typealias Body = @Sendable (borrowing Transaction) throws(StoreError) -> Value
    private let body: Body
    private let continuation: UnsafeContinuation<Result<Value, Problem>, Never>
    private var value: Value?

    init(
        bytes: Int, loop: EventLoop?, continuation: UnsafeContinuation<Result<Value, Problem>, Never>,
        body: @escaping Body
    ) {
        self.body = body
        self.continuation = continuation
        super.init(bytes: bytes, loop: loop)
    }

    override func run(in transaction: borrowing Transaction) throws(StoreError) { value = try body(transaction) }

    override func complete() {
        if let failure {
            continuation.resume(returning: .failure(failure.problem))
        } else if let value {
            continuation.resume(returning: .success(value))
        } else {
            continuation.resume(returning: .failure(Problem(500, "store-failed", "the write was never run")))
        }
    }
}

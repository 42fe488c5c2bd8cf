import Glibc
import Reactor
import Synchronization

/// A few threads, each with a connection, that answer short reads in the order in which they came.
///
/// `@unchecked Sendable`: the queue is a Mutex, the semaphore is made for threads; connections never leave their thread.
final class ReaderPool: @unchecked Sendable {
    private struct Queue {
        var waiting: [ReadRequest] = []
        var first = 0
        var stopping = false
        var count: Int { waiting.count - first }
    }
    private let queue = Mutex(Queue())
    private let semaphore = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)
    private let threads: Int
    private let limit: Int
    private let nanosecondsPerRead: UInt64

    init(options: StoreOptions) {
        sem_init(semaphore, 0, 0)
        threads = options.readerThreads
        limit = options.maximumQueuedReads
        nanosecondsPerRead = options.readMilliseconds * 1_000_000
    }

    deinit {
        sem_destroy(semaphore)
        semaphore.deallocate()
    }

    func submit(_ request: ReadRequest) {
        let refusal: Problem? = queue.withLock { queue in
            if queue.stopping { return Problem(503, "stopping", "the core is stopping", retryAfter: 5) }
            guard queue.count < limit else {
                return Problem(503, "store-busy", "too many queries are waiting: try again", retryAfter: 1)
            }
            queue.waiting.append(request)
            return nil
        }
        if let refusal { request.refuse(refusal) } else { sem_post(semaphore) }
    }

    func stop() {
        queue.withLock { $0.stopping = true }
        for _ in 0..<threads { sem_post(semaphore) }
    }

    /// One reader thread.
    func run(_ connection: Connection) {
        connection.limitReads()
        while let request = next() {
            connection.setDeadline(monotonicNanoseconds() &+ nanosecondsPerRead)
            answer(request, connection)
            connection.setDeadline(0)
        }
    }

    private func answer(_ request: ReadRequest, _ connection: Connection) {
        do throws(StoreError) {
            try connection.execute("BEGIN")
            request.run(with: Reader(access: StoreAccess(connection: connection)))
            if connection.isInTransaction { try connection.execute("COMMIT") }
            request.complete()
        } catch {
            if connection.isInTransaction { try? connection.execute("ROLLBACK") }
            request.refuse(error.problem)
        }
    }

    private func next() -> ReadRequest? {
        while true {
            while sem_wait(semaphore) != 0 {}
            let (request, stop): (ReadRequest?, Bool) = queue.withLock { queue in
                guard queue.count > 0 else { return (nil, queue.stopping) }
                let request = queue.waiting[queue.first]
                queue.first += 1
                if queue.first == queue.waiting.count {
                    queue.waiting.removeAll(keepingCapacity: queue.first < 256)
                    queue.first = 0
                } else if queue.first > 1_024 {
                    queue.waiting.removeFirst(queue.first)
                    queue.first = 0
                }
                return (request, false)
            }
            if let request { return request }
            if stop { return nil }
        }
    }
}

/// A read on its way to a reader thread and back.
///
/// `@unchecked Sendable`: filled before it is queued; then only the reader thread touches it until `complete`.
class ReadRequest: @unchecked Sendable {
    func run(with reader: borrowing Reader) {}
    func complete() {}
    func refuse(_ problem: Problem) {}
}

final class TypedReadRequest<Value: Sendable>: ReadRequest, @unchecked Sendable {
    typealias Body = @Sendable (borrowing Reader) throws(StoreError) -> Value
    private let body: Body
    private let continuation: UnsafeContinuation<Result<Value, Problem>, Never>
    private var result: Result<Value, StoreError>?

    init(continuation: UnsafeContinuation<Result<Value, Problem>, Never>, body: @escaping Body) {
        self.body = body
        self.continuation = continuation
    }

    override func run(with reader: borrowing Reader) {
        do throws(StoreError) { result = .success(try body(reader)) } catch { result = .failure(error) }
    }

    override func complete() {
        switch result {
        case .success(let value): continuation.resume(returning: .success(value))
        case .failure(let error): continuation.resume(returning: .failure(error.problem))
        case nil: continuation.resume(returning: .failure(Problem(500, "store-failed", "the query was never run")))
        }
    }

    override func refuse(_ problem: Problem) { continuation.resume(returning: .failure(problem)) }
}

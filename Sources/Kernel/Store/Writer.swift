import CSQLite
import Glibc
import Reactor
import Synchronization

/// The one thread that changes the database. What queues up while a commit runs forms the next commit: under load many
/// requests share one fsync, and alone a request waits for nobody. A disk that syncs faster than requests gather would
/// get a commit for each few of them: once several share a commit, the next one starts no sooner than `commitSpacing`
/// after it (see Docs/decisions/0007-commands-per-cpu-second.md).
///
/// `@unchecked Sendable`: the mailbox, counters and flags are atomics; every other stored property belongs to the
/// writer thread from `start` on.
final class Writer: @unchecked Sendable {
    // Any thread.
    private let mailbox = Mailbox()
    private let doorbell = Doorbell()
    private let queuedRequests = Atomic<Int>(0)
    private let queuedBytes = Atomic<Int>(0)
    private let stopping = Atomic<Bool>(false)
    private let ended = Atomic<Bool>(false)
    private let auditRecord: Atomic<UInt64>
    let statistics: StoreStatistics
    private let options: StoreOptions

    // The writer thread.
    private let batches: BatchRunner
    private let checkpointer: Checkpointer
    private var waiting: [WriteRequest] = []

    init(
        _ batches: sending BatchRunner, checkpointer: Checkpointer, statistics: StoreStatistics, options: StoreOptions
    ) {
        self.statistics = statistics
        auditRecord = Atomic(batches.newestAuditRecord)
        self.batches = batches
        self.checkpointer = checkpointer
        self.options = options
    }

    // MARK: Any thread

    /// Takes the request over; it will be completed exactly once.
    func submit(_ request: WriteRequest) {
        guard !stopping.load(ordering: .relaxed) else { return request.refuse(Self.stopped) }
        let requests = queuedRequests.wrappingAdd(1, ordering: .relaxed).newValue
        let bytes = queuedBytes.wrappingAdd(request.bytes, ordering: .relaxed).newValue
        // One request may be larger than the whole queue if it is alone, or it could never be written.
        guard requests <= options.maximumQueuedRequests,
            bytes <= options.maximumQueuedBytes || bytes == request.bytes
        else {
            release(requests: 1, bytes: request.bytes)
            statistics.refused.wrappingAdd(1, ordering: .relaxed)
            return request.refuse(Self.busy)
        }
        mailbox.push(request)
        doorbell.ring()
        if ended.load(ordering: .sequentiallyConsistent) { refuseLeftovers() }
    }

    /// What was accepted is still written; what comes later is refused.
    func stop() {
        stopping.store(true, ordering: .sequentiallyConsistent)
        doorbell.ring()
    }

    var newestAuditRecord: UInt64 { auditRecord.load(ordering: .relaxed) }
    var depth: Int { queuedRequests.load(ordering: .relaxed) }

    private static let busy = Problem(
        503, "store-busy", "more changes are waiting for the disk than the store holds: try again", retryAfter: 1)
    private static let stopped = Problem(503, "stopping", "the core is stopping: nothing was changed", retryAfter: 5)

    private func release(requests: Int, bytes: Int) {
        queuedRequests.wrappingSubtract(requests, ordering: .relaxed)
        queuedBytes.wrappingSubtract(bytes, ordering: .relaxed)
    }

    private func refuseLeftovers() {
        var letters: [WriteRequest] = []
        mailbox.takeAll(into: &letters)
        for request in letters { request.refuse(Self.stopped) }
    }

    // MARK: The writer thread

    func run() {
        var last: (start: UInt64, requests: Int) = (0, 0)
        while true {
            if last.requests >= Self.crowd, waiting.isEmpty { Self.sleep(until: last.start &+ options.commitSpacingNanoseconds) }
            mailbox.takeAll(into: &waiting)
            if waiting.isEmpty {
                last.requests = 0
                if stopping.load(ordering: .sequentiallyConsistent) { break }
                doorbell.wait { !mailbox.isEmpty || stopping.load(ordering: .sequentiallyConsistent) }
                continue
            }
            let batch = takeBatch()
            let start = monotonicNanoseconds()
            last = (start, batch.count)
            batches.commit(batch)
            auditRecord.store(batches.newestAuditRecord, ordering: .relaxed)
            statistics.committed(batch.count, nanoseconds: monotonicNanoseconds() &- start)
            release(requests: batch.count, bytes: batch.reduce(0) { $0 + $1.bytes })
            complete(batch)
            checkpointer.afterCommit(logPages: batches.logPages) { batches.finishCheckpoint() }
        }
        ended.store(true, ordering: .sequentiallyConsistent)
        refuseLeftovers()
        batches.close()
    }

    /// So many requests in one commit mean that more are on their way.
    private static let crowd = 4

    /// Nobody rings meanwhile: the doorbell is needed only when the queue was empty.
    private static func sleep(until deadline: UInt64) {
        let now = monotonicNanoseconds()
        guard deadline > now else { return }
        var pause = timespec(tv_sec: 0, tv_nsec: Int(deadline - now))
        nanosleep(&pause, nil)
    }

    private func takeBatch() -> [WriteRequest] {
        var bytes = 0
        var count = 0
        for request in waiting.prefix(options.maximumBatchRequests) {
            bytes += request.bytes
            if bytes > options.maximumBatchBytes && count > 0 { break }
            count += 1
        }
        if count == waiting.count {
            let batch = waiting
            waiting = []
            return batch
        }
        let batch = Array(waiting[..<count])
        waiting.removeFirst(count)
        return batch
    }

    /// One piece of mail per loop, whatever the number of its waiting tasks.
    private func complete(_ batch: [WriteRequest]) {
        var groups: [(loop: EventLoop, requests: [WriteRequest])] = []
        for request in batch {
            guard let loop = request.loop else {
                request.complete()
                continue
            }
            if let index = groups.firstIndex(where: { $0.loop === loop }) {
                groups[index].requests.append(request)
            } else {
                groups.append((loop, [request]))
            }
        }
        for (loop, requests) in groups {
            loop.post { for request in requests { request.complete() } }
        }
    }
}

import AgentProtocol
import Glibc
import Reactor
import Synchronization
import System

/// Bounds of the output store while commands run; how long and how much it keeps is up to the settings.
public struct OutputLimits: Sendable {
    /// Bytes that were taken from agents and wait for the disk, of all clients together. Above half of it agents get no
    /// new credit; above all of it a link that sends more is closed (its agent keeps what it has).
    public var unwrittenBytes = 64 << 20
    /// Credit beyond what is written, per stream.
    public var windowBytes: UInt64 = 256 << 10
    /// The same for a client into whose terminal somebody types: an echo stands behind what is under way.
    public var windowBesideTyping: UInt64 = 48 << 10
    /// So long after a keystroke.
    public var typingNanoseconds: UInt64 = 2_000_000_000
    /// Bytes in the segments of unfinished targets of one client; more are dropped and marked as truncated.
    public var bytesPerClient: UInt64 = 8 << 30

    public init() {}
}

/// Keeps what commands print. Small output lives in memory until the exit row takes it; everything else is appended to
/// segment files by one thread, and credit goes back to an agent only when that thread has written its bytes.
///
/// `take` is called on the links' loops and never waits; `commit` and `read` suspend.
public final class OutputStore: Sendable {
    public let limits: OutputLimits
    let directory: SegmentDirectory
    /// One thread: the only one that appends.
    private let writing: BlockingPool
    let reading: BlockingPool

    private struct Work {
        var queued: [LiveOutput] = []
        var commits: [Commit] = []
        var isScheduled = false
        var isStopped = false
    }
    private struct Commit {
        let output: LiveOutput
        let continuation: UnsafeContinuation<Bool, Never>
    }
    private let work = Mutex(Work())
    private let unwritten = Atomic<Int>(0)
    private let clientBytes = Mutex<[ClientID: UInt64]>([:])
    private let writer: Mutex<WriterBox>
    /// Told after bytes became readable; called on the writer's thread.
    private let onWritten = Mutex(Hook())
    private let fault = Mutex<SystemError?>(nil)

    /// A closure that is the whole value of a generic lock is wrapped once more by each look at it, until a call overflows
    /// the stack; as a member of a struct it stays as it is. `MapTests` looks for the other form.
    private struct Hook: Sendable {
        var body: (@Sendable (LiveOutput) -> Void)?
    }

    /// Only the writer's thread takes it out of its mutex, which is therefore never waited for.
    private struct WriterBox: ~Copyable {
        var writer: SegmentWriter
    }

    /// Opens or makes `directory`.
    public convenience init(directory path: String, limits: OutputLimits = OutputLimits()) throws(SystemError) {
        try self.init(directory: path, limits: limits) { (file, path) throws(SystemError) in
            try file.syncData(subject: path)
        }
    }

    /// - Parameter flush: brings what was appended to a file to the disk.
    init(
        directory path: String, limits: OutputLimits = OutputLimits(),
        flush: @escaping @Sendable (borrowing Descriptor, _ path: String) throws(SystemError) -> Void
    ) throws(SystemError) {
        self.limits = limits
        directory = SegmentDirectory(path: path)
        try Files.makeDirectories(path)
        let last = try directory.segments().last ?? 0
        writer = Mutex(WriterBox(writer: SegmentWriter(directory, after: last, flush: flush)))
        writing = BlockingPool(name: "output", threads: 1, queue: 64)
        reading = BlockingPool(name: "output-read", threads: 2, queue: 1_024)
    }

    func setOnWritten(_ body: @escaping @Sendable (LiveOutput) -> Void) { onWritten.withLock { $0.body = body } }

    /// Bytes that wait for the disk, and why the disk refuses, if it does.
    public var backlog: (bytes: Int, fault: SystemError?) {
        (unwritten.load(ordering: .relaxed), fault.withLock { $0 })
    }

    // MARK: In

    /// - Returns: false when the bytes do not continue the stream, or the store is full to its bound.
    func take(
        _ output: LiveOutput, _ stream: OutputStream, at offset: UInt64, _ bytes: RawSpan, from link: any ExecutionLink
    ) -> Bool {
        guard unwritten.load(ordering: .relaxed) < limits.unwrittenBytes else { return false }
        switch output.take(stream, at: offset, bytes, from: link) {
        case .gap: return false
        case .small: return true
        case .pending(let count, let queue):
            unwritten.add(count, ordering: .relaxed)
            if queue { self.queue(output) }
            return true
        }
    }

    /// Before the commit of a target that has ended.
    /// - Returns: false when a filter that its end has to pass cannot be asked now.
    func finish(_ output: LiveOutput) -> Bool {
        guard let rest = output.finish() else { return false }
        for taken in rest {
            guard case .pending(let count, let queue) = taken else { continue }
            unwritten.add(count, ordering: .relaxed)
            if queue { self.queue(output) }
        }
        return true
    }

    private func queue(_ output: LiveOutput) {
        let schedule = work.withLock { work in
            work.queued.append(output)
            guard !work.isScheduled, !work.isStopped else { return false }
            work.isScheduled = true
            return true
        }
        guard schedule else { return }
        // After everything that the loop reads in this turn: the thread then writes it in one go, and neither wakes the
        // other for each frame.
        if let loop = EventLoop.current { loop.post { [self] in self.schedule() } } else { self.schedule() }
    }

    private func schedule() {
        if !writing.submit({ [self] in drain() }) { work.withLock { $0.isScheduled = false } }
    }

    /// Returns when everything that was taken for this output is on the disk; small output has nothing to wait for.
    /// False only when the store is stopped meanwhile.
    func commit(_ output: LiveOutput) async -> Bool {
        guard output.isSpilled else { return true }
        return await withUnsafeContinuation { continuation in
            let schedule = work.withLock { work -> Bool? in
                guard !work.isStopped else { return nil }
                work.commits.append(Commit(output: output, continuation: continuation))
                guard !work.isScheduled else { return false }
                work.isScheduled = true
                return true
            }
            guard let schedule else { return continuation.resume(returning: false) }
            if schedule { self.schedule() }
        }
    }

    /// Ends the writer after its present round; waiting commits answer false. Idempotent.
    public func stop() {
        let commits = work.withLock { work in
            work.isStopped = true
            defer { work.commits = [] }
            return work.commits
        }
        for commit in commits { commit.continuation.resume(returning: false) }
    }

    // MARK: The writer's thread

    private func drain() {
        while true {
            let (queued, commits) = work.withLock { work -> ([LiveOutput], [Commit]) in
                guard !work.isStopped, !(work.queued.isEmpty && work.commits.isEmpty) else {
                    work.isScheduled = false
                    return ([], [])
                }
                defer {
                    work.queued = []
                    work.commits = []
                }
                return (work.queued, work.commits)
            }
            guard !queued.isEmpty || !commits.isEmpty else { return }
            do {
                try writer.withLock { box throws(SystemError) in
                    for (index, output) in queued.enumerated() {
                        do throws(SystemError) { try write(output, &box.writer) } catch {
                            putBack(Array(queued[index...]), [])
                            throw error
                        }
                    }
                    if !commits.isEmpty {
                        killPoint("output.sync.before")
                        try box.writer.sync()
                        killPoint("output.sync.after")
                    }
                }
                if fault.withLock({ $0 != nil }) { fault.withLock { $0 = nil } }
                for commit in commits { commit.continuation.resume(returning: true) }
            } catch {
                fault.withLock { $0 = error }
                putBack([], commits)
                // A failed sync is final (`SegmentWriter.failure`): no credit, no end of a command whose output is in the
                // segments, until a restart; the agents keep everything that has no acknowledged end. `isScheduled` stays
                // set, so this thread has nothing more to do.
                if writer.withLock({ $0.writer.failure != nil }) { return }
                // The disk is full or busy: try again soon. Credit stays away meanwhile, so nothing grows.
                usleep(500_000)
            }
        }
    }

    private func putBack(_ outputs: [LiveOutput], _ commits: [Commit]) {
        let refused = work.withLock { work -> [Commit] in
            work.queued.insert(contentsOf: outputs, at: 0)
            guard !work.isStopped else { return commits }
            work.commits.insert(contentsOf: commits, at: 0)
            return []
        }
        for commit in refused { commit.continuation.resume(returning: false) }
    }

    private func write(_ output: LiveOutput, _ writer: inout SegmentWriter) throws(SystemError) {
        var pending = output.state.withLock { state in
            defer {
                state.pending = StreamPair([], [])
                state.isQueued = false
            }
            return state.pending
        }
        for stream in OutputStream.allCases where !pending[stream].isEmpty {
            let extent: OutputExtents.Extent
            do throws(SystemError) { extent = try writer.append(pending[stream]) } catch {
                // Back in front of what came meanwhile; this stream and the one not yet tried.
                output.state.withLock { state in
                    for stream in OutputStream.allCases {
                        state.pending[stream] = pending[stream] + state.pending[stream]
                    }
                    state.isQueued = true
                }
                throw error
            }
            let count = pending[stream].count
            pending[stream] = []
            unwritten.subtract(count, ordering: .relaxed)
            account(output.client, extent.length)
            output.state.withLock { $0.extents[stream].append(extent) }
        }
        giveCredit(output)
        onWritten.withLock { $0.body }?(output)
    }

    /// Credit up to a window beyond what is written, a quarter of it at a time: each costs a frame and a turn on both
    /// sides. Above half of the backlog's bound it waits for the next round.
    private func giveCredit(_ output: LiveOutput) {
        let mayGrow = unwritten.load(ordering: .relaxed) < limits.unwrittenBytes / 2
        let now = monotonicNanoseconds()
        for stream in OutputStream.allCases {
            let (link, credit, retry) = output.state.withLock { state -> ((any ExecutionLink)?, UInt64, Bool) in
                guard state.received[stream] > 0, let link = state.link else { return (nil, 0, false) }
                let typedAt = link.typedAt
                let isTyping = typedAt != 0 && now < typedAt &+ limits.typingNanoseconds
                let window = isTyping ? limits.windowBesideTyping : limits.windowBytes
                let credit = state.received[stream] - UInt64(state.pending[stream].count) + window
                guard credit >= state.granted[stream] + window / 4 else { return (nil, 0, false) }
                guard mayGrow else {
                    defer { state.isQueued = true }
                    return (nil, 0, !state.isQueued)
                }
                state.granted[stream] = credit
                return (link, credit, false)
            }
            link?.grant(output.command, stream, upTo: credit)
            if retry { work.withLock { $0.queued.append(output) } }
        }
    }

    private func account(_ client: ClientID, _ bytes: UInt64) {
        clientBytes.withLock { $0[client, default: 0] += bytes }
    }

    /// The target has ended: its bytes no longer count against its client's budget.
    func release(_ output: LiveOutput) {
        let bytes = output.state.withLock { state -> UInt64 in
            state.link = nil
            return state.extents.output.length + state.extents.errors.length
        }
        guard bytes > 0 else { return }
        clientBytes.withLock { budget in
            guard let used = budget[output.client] else { return }
            budget[output.client] = used > bytes ? used - bytes : nil
        }
    }

    /// What a new target of the client may print.
    func allowance(_ client: ClientID, wanted: UInt64) -> UInt64 {
        let used = clientBytes.withLock { $0[client] ?? 0 }
        return min(wanted, limits.bytesPerClient - min(limits.bytesPerClient, used))
    }
}

import AgentProtocol

/// Ends of links and reports of facts that memory knows and the store does not yet. Nobody was promised that they are
/// durable (an agent reports its facts again, a session without an end is ended at the next start), so they are written
/// together, at the latest with the next sweep. At most one of each per client.
struct UnwrittenLinks: Sendable {
    struct End: Sendable {
        var epoch: UInt64
        var at: UInt64
        var end: LinkEnd
    }
    struct Report: Sendable {
        /// JSON as reported.
        var report: [UInt8]
        var packed: [UInt8]
        var hash: UInt64
        var at: UInt64
    }
    var ends: [ClientID: End] = [:]
    var facts: [ClientID: Report] = [:]
    var factBytes = 0
    /// One write at a time, so that an older report cannot overtake a newer one.
    var isWriting = false

    /// Orders the reads of all groups that follow a change, so that an older one cannot replace a newer one.
    var groupReads = 0
    var groupsTaken = 0

    /// Enough to be worth a commit before the next sweep.
    var isMuch: Bool { ends.count >= 512 || factBytes >= 1 << 20 }

    mutating func note(_ report: Report, of client: ClientID) {
        factBytes += report.report.count - (facts[client]?.report.count ?? 0)
        facts[client] = report
    }

    mutating func forget(_ client: ClientID) {
        ends[client] = nil
        factBytes -= facts.removeValue(forKey: client)?.report.count ?? 0
    }

    struct Batch: Sendable {
        var ends: [ClientID: End]
        var facts: [ClientID: Report]
        var isEmpty: Bool { ends.isEmpty && facts.isEmpty }
        var bytes: Int { ends.count * 256 + facts.values.reduce(0) { $0 + 2 * $1.report.count + 128 } }
    }

    /// At most this many of each in one commit, so that no request waits long behind it.
    static let batchLength = 1_024

    mutating func take() -> Batch {
        var batch = Batch(ends: [:], facts: [:])
        for (client, end) in ends.prefix(Self.batchLength) {
            batch.ends[client] = end
        }
        for (client, report) in facts.prefix(Self.batchLength) {
            batch.facts[client] = report
            factBytes -= report.report.count
        }
        for client in batch.ends.keys { ends[client] = nil }
        for client in batch.facts.keys { facts[client] = nil }
        return batch
    }

    /// Gives a batch back that could not be written; what came since is newer.
    mutating func giveBack(_ batch: Batch) {
        for (client, end) in batch.ends where ends[client] == nil { ends[client] = end }
        for (client, report) in batch.facts where facts[client] == nil { note(report, of: client) }
    }
}

import AgentProtocol
import JSON

/// How the wait of a pending link ended.
enum PendingVerdict: Sendable {
    /// Its key belongs to a client now.
    case approved
    case rejected(String)
    /// It waited too long, or a newer link of the same machine waits in its place.
    case lapsed
}

typealias PendingWaiter = UnsafeContinuation<PendingVerdict, Never>

/// The pending enrollments with the links that wait for their verdict: at most one link per enrollment.
struct WaitingRoom: Sendable {
    var pending: PendingEnrollments
    var policy: EnrollmentPolicy
    /// What the waiting link said, so that it can be admitted when the verdict comes.
    private var hellos: [EnrollmentID: AgentHello] = [:]
    private var waiters: [EnrollmentID: (ticket: UInt64, waiter: PendingWaiter)] = [:]
    private var tickets: UInt64 = 0

    init(pending: PendingEnrollments, policy: EnrollmentPolicy) {
        self.pending = pending
        self.policy = policy
    }

    mutating func note(_ hello: AgentHello, for id: EnrollmentID) { hellos[id] = hello }

    /// The hello once more, and only once.
    mutating func takeHello(_ id: EnrollmentID) -> AgentHello? { hellos.removeValue(forKey: id) }

    func hello(_ id: EnrollmentID) -> AgentHello? { hellos[id] }

    /// Tells the waits of one enrollment apart.
    mutating func newTicket() -> UInt64 {
        tickets += 1
        return tickets
    }

    /// - Returns: the waiter whose place it takes.
    mutating func wait(_ id: EnrollmentID, _ ticket: UInt64, _ waiter: PendingWaiter) -> PendingWaiter? {
        waiters.updateValue((ticket, waiter), forKey: id)?.waiter
    }

    /// - Parameter ticket: takes it only if it is this one.
    mutating func takeWaiter(_ id: EnrollmentID, _ ticket: UInt64? = nil) -> PendingWaiter? {
        guard ticket == nil || waiters[id]?.ticket == ticket else { return nil }
        return waiters.removeValue(forKey: id)?.waiter
    }

    /// Drops the hellos of links that never asked for the verdict.
    mutating func dropStrayHellos() {
        hellos = hellos.filter { pending.entries[$0.key] != nil }
    }
}

/// Whether machines without a token are let in by themselves. Off as shipped.
public struct EnrollmentPolicy: Sendable, Equatable {
    public var autoApprove = false
    /// Asserted on each client that was let in this way.
    public var labels: [String: String] = [:]

    public init(autoApprove: Bool = false, labels: [String: String] = [:]) {
        self.autoApprove = autoApprove
        self.labels = labels
    }

    static func load(_ reader: borrowing Reader) throws(StoreError) -> EnrollmentPolicy {
        try reader.first("SELECT auto_approve, labels FROM enrollment_policy") { (row) throws(StoreError) in
            EnrollmentPolicy(autoApprove: row.bool(0), labels: EnrollmentSchema.labels(row.text(1)))
        } ?? EnrollmentPolicy()
    }
}

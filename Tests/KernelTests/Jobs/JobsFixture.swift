import AgentProtocol
import JSON
import Synchronization

@testable import Kernel

/// Attempts that were given out and not ended yet; the test decides how they end.
final class HeldAttempts: Sendable {
    private let state = Mutex<(leases: [JobLease], cancelled: [JobID])>(([], []))
    func add(_ lease: JobLease) { state.withLock { $0.leases.append(lease) } }
    func cancel(_ lease: JobLease) { state.withLock { $0.cancelled.append(lease.job) } }
    var leases: [JobLease] { state.withLock { $0.leases } }
    var cancelled: [JobID] { state.withLock { $0.cancelled } }
    var last: JobLease? { leases.last }
}

/// Who is still there, and what they may do.
final class FakeOwners: Sendable {
    private let state = Mutex<(gone: Set<String>, rights: [String: Set<Right>])>(([], [:]))
    func remove(_ name: String) { state.withLock { _ = $0.gone.insert(name) } }
    func grant(_ name: String, _ rights: Set<Right>) { state.withLock { $0.rights[name] = rights } }

    var owners: JobOwners {
        JobOwners(
            present: { [self] (owner, correlation) throws(Problem) in
                guard !state.withLock({ $0.gone.contains(owner.id) }) else { throw Problem(403, "owner-gone", owner.id) }
                return Principal(kind: owner.kind, id: owner.id, correlation: correlation)
            },
            grants: { [self] principal, right in state.withLock { $0.rights[principal.id, default: []].contains(right) } })
    }
}

/// Jobs on a real store, with a clock and kinds that the test holds.
final class JobsFixture: Sendable {
    let directory: CommandsDirectory
    let clock: FakeClock
    let store: Store
    let events = Events()
    let jobs: Jobs
    let schedules: Schedules
    let attempts = HeldAttempts()
    let owners: FakeOwners
    static let principal = Principal(kind: .user, id: "alice", address: "127.0.0.1", correlation: "c-1")

    init(
        directory: CommandsDirectory = CommandsDirectory(), clock: FakeClock = FakeClock(), limits: JobLimits = JobLimits(),
        scheduleLimits: ScheduleLimits = ScheduleLimits(), owners: FakeOwners = FakeOwners(),
        _ change: (inout JobKind) -> Void = { _ in }
    ) async throws {
        self.directory = directory
        self.clock = clock
        self.owners = owners
        store = try Store.open(directory: directory.path, migrations: Jobs.migrations + Schedules.migrations)
        jobs = try await Jobs.open(
            store: store, events: events, owners: owners.owners, limits: limits, now: { clock.now })
        schedules = Schedules(jobs: jobs, limits: scheduleLimits)
        for guarantee in JobGuarantee.allCases {
            var kind = JobKind(
                guarantee == .idempotent ? "safe" : "once", "test", guarantee,
                check: { arguments, _ throws(Problem) in
                    if arguments["bad"] != nil { throw .invalid("bad arguments") }
                    return arguments["title"]?.string ?? "t"
                }, work: .delegated { [attempts] in attempts.add($0) })
            kind.cancel = { [attempts] in attempts.cancel($0) }
            change(&kind)
            try jobs.register(kind)
        }
        try await jobs.recover()
    }

    func create(
        _ kind: String = "safe", _ arguments: JSONValue = [:], _ change: (inout JobRequest) -> Void = { _ in }
    ) async throws -> Job {
        var request = JobRequest(kind, arguments)
        change(&request)
        return try await jobs.create(request, by: Self.principal)
    }

    /// Creates a job and begins its first attempt.
    func started(_ kind: String = "safe", _ change: (inout JobRequest) -> Void = { _ in }) async throws -> JobLease {
        let job = try await create(kind, [:], change)
        _ = try await jobs.turn()
        guard let lease = attempts.last, lease.job == job.id else { throw Problem.invalid("it did not start") }
        return lease
    }

    func pass(_ milliseconds: UInt64) async throws {
        clock.advance(milliseconds)
        _ = try await jobs.turn()
    }

    func machine(_ id: JobID) async throws -> JobStateMachine { try await jobs.get(id).machine }

    /// A new core on the directory of this one, which ended as by a crash.
    func restarted(_ change: (inout JobKind) -> Void = { _ in }) async throws -> JobsFixture {
        jobs.stop()
        store.close()
        return try await JobsFixture(directory: directory, clock: clock, owners: owners, change)
    }

    func audited(_ action: String) async throws -> Int {
        try await store.read { (reader) throws(StoreError) in
            try reader.count("SELECT count(*) FROM audit_records WHERE action = ?", action)
        }
    }
}

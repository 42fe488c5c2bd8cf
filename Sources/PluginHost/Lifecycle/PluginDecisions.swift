import JSON
import Kernel
import Synchronization
import System

/// What operators decided about plugins, durable: approvals, off and on, and the crashes that count against a plugin.
final class PluginDecisions: Sendable {
    static let migrations = [
        Migration(
            area: "plugins", version: 1,
            sql: """
                CREATE TABLE plugin_decisions (
                    id TEXT PRIMARY KEY, is_off INTEGER NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT '',
                    crashes INTEGER NOT NULL DEFAULT 0
                ) STRICT, WITHOUT ROWID;
                CREATE TABLE plugin_approvals (
                    id TEXT NOT NULL, capabilities TEXT NOT NULL, signer TEXT NOT NULL, sha256 TEXT NOT NULL,
                    approved_ms INTEGER NOT NULL, approved_by TEXT NOT NULL,
                    PRIMARY KEY (id, capabilities, signer, sha256)
                ) STRICT, WITHOUT ROWID;
                """)
    ]

    struct Decision: Sendable {
        var isOff = false
        var reason = ""
        var crashes = 0
    }
    /// Holds for id, capabilities and signing key; an unsigned file's for its hash.
    struct Approval: Sendable, Hashable {
        let id: String
        /// Sorted, with commas between.
        let capabilities: String
        let signer: String
        let sha256: String

        init(_ file: PluginFile, _ wanted: [String]) {
            id = file.note.id
            capabilities = wanted.joined(separator: ",")
            signer = file.signer ?? ""
            sha256 = file.signer == nil ? file.sha256 : ""
        }

        fileprivate init(_ id: String, _ capabilities: String, _ signer: String, _ sha256: String) {
            (self.id, self.capabilities, self.signer, self.sha256) = (id, capabilities, signer, sha256)
        }
    }

    private struct State {
        var decisions: [String: Decision] = [:]
        var approvals: Set<Approval> = []
    }
    private let state: Mutex<State>
    private let store: Store

    static func load(_ store: Store) async throws(Problem) -> PluginDecisions {
        let state = try await store.read { (reader) throws(StoreError) in
            var state = State()
            try reader.each("SELECT id, is_off, reason, crashes FROM plugin_decisions") { (row) throws(StoreError) in
                state.decisions[row.text(0)] = Decision(isOff: row.int(1) != 0, reason: row.text(2), crashes: row.int(3))
            }
            try reader.each("SELECT id, capabilities, signer, sha256 FROM plugin_approvals") { (row) throws(StoreError) in
                state.approvals.insert(Approval(row.text(0), row.text(1), row.text(2), row.text(3)))
            }
            return state
        }
        return PluginDecisions(store, state)
    }

    private init(_ store: Store, _ state: State) {
        self.store = store
        self.state = Mutex(state)
    }

    subscript(id: String) -> Decision { state.withLock { $0.decisions[id] ?? Decision() } }

    func isApproved(_ approval: Approval) -> Bool { state.withLock { $0.approvals.contains(approval) } }

    /// Keeps the decision and its audit record in one commit.
    func set(_ id: String, _ decision: Decision, _ record: AuditRecord) async throws(Problem) {
        try await store.write { (transaction) throws(StoreError) in
            try transaction.run(
                "INSERT OR REPLACE INTO plugin_decisions VALUES (?, ?, ?, ?)", id, decision.isOff ? 1 : 0, decision.reason,
                decision.crashes)
            try transaction.audit(record)
        }
        state.withLock { $0.decisions[id] = decision }
    }

    /// A crash that is blamed on a plugin, kept with its audit record.
    func count(_ crash: CrashRecord) async throws(Problem) {
        guard let id = crash.blamed else { return }
        var decision = self[id]
        decision.crashes += 1
        decision.reason = crash.image == nil
            ? "the core ended with \(crash.signalName) while it worked for the plugin (thread \(crash.threadName))"
            : "its code ended the core with \(crash.signalName) (thread \(crash.threadName), offset 0x\(String(crash.imageOffset, radix: 16)) of its image)"
        try await set(
            id, decision,
            AuditRecord(
                principal: Principal(kind: .system, id: "plugin-host"), action: "plugin.crash", target: id, outcome: .failed,
                reason: decision.reason))
    }

    func approve(_ approval: Approval, at milliseconds: UInt64, _ record: AuditRecord) async throws(Problem) {
        let by = record.principal.id
        try await store.write { (transaction) throws(StoreError) in
            try transaction.run(
                "INSERT OR REPLACE INTO plugin_approvals VALUES (?, ?, ?, ?, ?, ?)", approval.id, approval.capabilities,
                approval.signer, approval.sha256, milliseconds, by)
            try transaction.audit(record)
        }
        _ = state.withLock { $0.approvals.insert(approval) }
    }

    /// Takes back every approval of the id.
    func revoke(_ id: String, _ record: AuditRecord) async throws(Problem) {
        try await store.write { (transaction) throws(StoreError) in
            try transaction.run("DELETE FROM plugin_approvals WHERE id = ?", id)
            try transaction.audit(record)
        }
        state.withLock { state in state.approvals = state.approvals.filter { $0.id != id } }
    }
}

import JSON
import PluginKit

/// Which secret goes to whom. On the plugin's own thread.
final class Assignments {
    private let store: Store
    private var table: [String: Assignment] = [:]

    init(_ host: Host) throws(PluginError) { store = try host.store() }

    private static func key(_ id: String) -> String { "assignment/" + id }

    func restore(_ vault: Vault) throws(PluginError) {
        table = [:]
        var orphans: [String] = []
        try store.each(prefix: "assignment/") { (key, bytes) throws(PluginError) in
            guard let record = try? JSONValue(parsing: bytes), let assignment = Assignment(record: record) else {
                throw PluginError(.internal, "the record \(key) cannot be read")
            }
            // A removal of the secret was cut off between its two steps.
            if vault.find(assignment.secret) == nil { orphans.append(assignment.id) } else { table[assignment.id] = assignment }
        }
        try forget(orphans)
    }

    var all: [Assignment] { table.values.sorted { ($0.createdAt, $0.id) < ($1.createdAt, $1.id) } }
    func of(_ secret: String) -> [Assignment] { all.filter { $0.secret == secret } }
    func find(_ id: String) -> Assignment? { table[id] }

    /// Returns when it is durable.
    func add(_ assignment: Assignment) throws(PluginError) {
        guard table.count < Settings.maximumAssignments else {
            throw .conflict("too-many-assignments", "there are \(Settings.maximumAssignments) assignments, the limit")
        }
        guard !table.values.contains(where: { $0.secret == assignment.secret && $0.file == assignment.file && $0.selector == assignment.selector }) else {
            throw .conflict("assignment-exists", "\"\(assignment.secret)\" goes to \(assignment.selector) as \"\(assignment.file)\" already")
        }
        try store.transaction { (transaction) throws(PluginError) in
            try transaction.put(Self.key(assignment.id), JSONValue.object(assignment.record).serialized())
        }
        table[assignment.id] = assignment
    }

    func forget(_ ids: [String]) throws(PluginError) {
        guard !ids.isEmpty else { return }
        try store.transaction { (transaction) throws(PluginError) in
            for id in ids { try transaction.remove(Self.key(id)) }
        }
        for id in ids { table[id] = nil }
    }
}

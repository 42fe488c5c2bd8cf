import JSON
import Synchronization

/// What the host knows of one plugin id at the moment.
struct PluginRecord: Sendable {
    enum State: String, Sendable {
        /// The file is not let in; `refusal` says why.
        case refused
        /// Asks for capabilities that somebody must approve.
        case awaitingApproval = "awaiting-approval"
        /// A service that it requires is not there.
        case waiting
        /// Off by its flag, by an operator, or because of crashes.
        case off
        case loading, running, stopping
        /// `load` or `start` failed; tried again when the file changes or an operator says so.
        case failed
        /// Stuck or misbehaving, and given up for the life of this process.
        case fenced
        /// Its flag is on, and there is no file.
        case missing
    }

    let id: String
    var state: State
    var file: PluginFile?
    var refusal: PluginRefusal?
    /// What stands in the directory in place of `file`, while the version that runs goes on: `refusal` says why.
    var replacement: PluginFile?
    var instance: PluginInstance?
    /// Loaded versions of this process.
    var images = 0
    var isUpgrading = false

    func json(_ services: ServiceRegistry) -> JSONValue {
        var object: JSONObject = ["id": .string(id), "state": .string(state.rawValue)]
        if let note = instance?.note ?? file?.note {
            object["name"] = .string(note.name)
            object["summary"] = .string(note.summary)
            object["version"] = .string(note.version.description)
            object["provides"] = .array(note.provides.map { .string($0) })
            object["requires"] = .array(note.requires.map { .string($0) })
            object["wants"] = .array(note.wants.map { .string($0) })
            object["capabilities"] = .array(note.capabilities.map { .string($0) })
            object["routes"] = .array(note.routes.map { .string($0) })
        }
        if let file {
            object["file"] = .string(file.path.split(separator: "/").last.map(String.init) ?? file.path)
            object["sha256"] = .string(file.sha256)
            object["signer"] = file.signer.map { .string($0) } ?? .null
        }
        if let replacement {
            object["replacement"] = .object([
                "version": .string(replacement.note.version.description), "sha256": .string(replacement.sha256),
                "signer": replacement.signer.map { .string($0) } ?? .null,
                "capabilities": .array(replacement.note.capabilities.map { .string($0) }),
            ])
        }
        if let refusal {
            object["code"] = .string(refusal.code)
            object["reason"] = .string(refusal.reason)
            object["remedy"] = .string(refusal.remedy)
        }
        object["images"] = .integer(Int64(images))
        if let instance {
            object["generation"] = .integer(Int64(clamping: instance.generation))
            object["granted"] = .array(instance.grants.map(\.rawValue).sorted().map { .string($0) })
            if case .object(var costs) = instance.accounting.json {
                costs["threads"] = .integer(Int64(instance.environment.threads.count(instance.note.shortName)))
                costs["store_bytes"] = .integer(Int64(clamping: instance.environment.memory(of: id).bytes))
                object["accounting"] = .object(costs)
            }
            object["resources"] = .integer(Int64(instance.resourceCount))
            object["queue"] = .integer(Int64(instance.thread.depth))
            object["image_bytes"] = .integer(Int64(clamping: instance.image.range.upperBound - instance.image.range.lowerBound))
            object["misuses"] = .array(instance.misuses.map { .string($0) })
            let (holds, heldBy) = services.json(of: instance)
            object["holds"] = holds
            object["held_by"] = heldBy
        }
        return .object(object)
    }
}

/// The records as the API and readiness see them; written by the control thread alone.
final class PluginRecords: Sendable {
    private let records = Mutex<[String: PluginRecord]>([:])

    subscript(id: String) -> PluginRecord? { records.withLock { $0[id] } }
    var all: [PluginRecord] { records.withLock { $0.values.sorted { $0.id < $1.id } } }

    func set(_ record: PluginRecord) { records.withLock { $0[record.id] = record } }
    func remove(_ id: String) { records.withLock { _ = $0.removeValue(forKey: id) } }

    func change(_ id: String, _ body: (inout PluginRecord) -> Void) {
        records.withLock { records in
            guard var record = records[id] else { return }
            body(&record)
            records[id] = record
        }
    }
}

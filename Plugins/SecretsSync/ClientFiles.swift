import JSON

/// One file of one assignment on one client.
struct DeliveredFile: Sendable {
    struct Key: Hashable, Sendable {
        var assignment: String
        var slot: Slot
    }

    var secret: String
    /// Its name on the client, the slot's suffix included.
    var name: String
    /// Where the client's programs find it, once the client has said so.
    var path = ""
    var machine: DeliveryStateMachine
    var updatedAt: UInt64
    /// When it is shown again, so that it does not lapse.
    var refreshAt: UInt64?
}

/// The secrets' files of one client. On the plugin's own thread.
final class ClientFiles {
    let id: String
    var files: [DeliveredFile.Key: DeliveredFile] = [:]
    /// One order at a time: the order of changes is the order on the client.
    var isUnderway = false
    var isQueued = false
    /// Not yet written down.
    var isDirty = false

    init(_ id: String) { self.id = id }

    /// Of several files that want one name the oldest assignment's has it; the others wait, and say so.
    func holder(of name: String, _ rank: (String) -> Int?) -> DeliveredFile.Key? {
        files.filter { $0.value.name == name && $0.value.machine.wanted != nil }
            .min { (rank($0.key.assignment) ?? .max, $0.key.assignment) < (rank($1.key.assignment) ?? .max, $1.key.assignment) }?.key
    }

    /// In the order in which they go out: what stands beside comes first, so that the old value is there before the new one takes
    /// its place; what is to go goes last.
    var inOrder: [DeliveredFile.Key] {
        files.keys.sorted { left, right in
            let (first, second) = (rank(left), rank(right))
            return first == second ? left.assignment < right.assignment : first < second
        }
    }

    private func rank(_ key: DeliveredFile.Key) -> Int {
        if files[key]?.machine.wanted == nil { return 3 }
        return switch key.slot {
        case .previous: 0
        case .next: 1
        case .current: 2
        }
    }

    // MARK: As it is stored

    var record: JSONObject {
        ["files": .array(
            files.map { key, file in
                var record: JSONObject = [
                    "assignment": .string(key.assignment), "slot": .string(key.slot.rawValue), "secret": .string(file.secret),
                    "name": .string(file.name), "path": .string(file.path), "state": .string(file.machine.phase.rawValue), "updated_ms": .integer(Int64(clamping: file.updatedAt)),
                    "confirmed_ms": .integer(Int64(clamping: file.machine.confirmedAt)),
                ]
                if let wanted = file.machine.wanted { record["wanted"] = .integer(Int64(wanted)) }
                if let placed = file.machine.placed { record["placed"] = .integer(Int64(placed)) }
                if !file.machine.code.isEmpty {
                    record["code"] = .string(file.machine.code)
                    record["reason"] = .string(file.machine.reason)
                }
                return .object(record)
            })]
    }

    init?(_ id: String, record: JSONValue) {
        self.id = id
        for item in record["files"]?.array ?? [] {
            guard let assignment = item["assignment"]?.string, let slot = item["slot"]?.string.flatMap({ Slot(rawValue: $0) }),
                let secret = item["secret"]?.string, let name = item["name"]?.string,
                let phase = item["state"]?.string.flatMap({ DeliveryStateMachine.Phase(rawValue: $0) })
            else { return nil }
            files[DeliveredFile.Key(assignment: assignment, slot: slot)] = DeliveredFile(
                secret: secret, name: name, path: item["path"]?.string ?? "",
                machine: DeliveryStateMachine(
                    wanted: item["wanted"]?.integer.map { Int(clamping: $0) }, placed: item["placed"]?.integer.map { Int(clamping: $0) },
                    phase: phase, code: item["code"]?.string ?? "", reason: item["reason"]?.string ?? "",
                    confirmedAt: UInt64(clamping: item["confirmed_ms"]?.integer ?? 0)),
                updatedAt: UInt64(clamping: item["updated_ms"]?.integer ?? 0))
        }
    }
}

import JSON

/// What is known of a secret besides its values.
struct Secret: Sendable {
    struct Version: Sendable, Equatable {
        var number: Int
        var createdAt: UInt64
        var by: String
        var bytes: Int
    }

    /// Where values come from when no operator writes them.
    struct Source: Sendable, Equatable {
        var reference: String
        var refreshSeconds: Int
    }

    var name: String
    var summary = ""
    var createdAt: UInt64
    var versions: [Version] = []
    /// 0 before a source gave the first one.
    var current = 0
    /// Placed beside the current one while a rotation asks who has it.
    var next: Int?
    /// Kept beside the current one after a rotation.
    var previous: Int?
    /// Other plugins may read it.
    var isShared = false
    var source: Source?
    /// Of the next version; numbers are never used twice.
    var nextNumber = 1

    static let nameBytes = 64
    /// Last segments of paths that are, or will be, no secrets.
    static let takenNames: Set<String> = ["commands"]

    static func isName(_ text: String) -> Bool {
        let bytes = Array(text.utf8)
        guard let first = bytes.first, bytes.count <= nameBytes, first != UInt8(ascii: "."), first != UInt8(ascii: "-"), !takenNames.contains(text)
        else { return false }
        return bytes.allSatisfy {
            (UInt8(ascii: "a")...UInt8(ascii: "z")).contains($0) || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0)
                || $0 == UInt8(ascii: ".") || $0 == UInt8(ascii: "_") || $0 == UInt8(ascii: "-")
        }
    }

    /// A version as the API names it.
    func state(of number: Int) -> String {
        switch number {
        case current: "current"
        case next: "next"
        case previous: "previous"
        default: "kept"
        }
    }

    /// Versions that must not go: somebody may be handed them.
    var inUse: Set<Int> { Set([current, next ?? 0, previous ?? 0]) }

    func version(_ number: Int) -> Version? { versions.first { $0.number == number } }

    /// What each place on a client should hold.
    func wanted(in slot: Slot) -> Int? {
        switch slot {
        case .current: current == 0 ? nil : current
        case .next: next
        case .previous: previous
        }
    }
}

/// A place on a client: the path of the assignment, and the two beside it during a rotation.
enum Slot: String, Sendable, CaseIterable {
    case current, next, previous

    var suffix: String {
        switch self {
        case .current: ""
        case .next: ".next"
        case .previous: ".previous"
        }
    }
}

extension Secret {
    /// As it is stored; never with a value.
    var record: JSONObject {
        var record: JSONObject = [
            "summary": .string(summary), "created_ms": .integer(Int64(clamping: createdAt)), "current": .integer(Int64(current)),
            "shared": .bool(isShared), "next_number": .integer(Int64(nextNumber)),
            "versions": .array(
                versions.map {
                    [
                        "version": .integer(Int64($0.number)), "created_ms": .integer(Int64(clamping: $0.createdAt)), "by": .string($0.by),
                        "bytes": .integer(Int64($0.bytes)),
                    ]
                }),
        ]
        if let next { record["next"] = .integer(Int64(next)) }
        if let previous { record["previous"] = .integer(Int64(previous)) }
        if let source {
            record["source"] = ["reference": .string(source.reference), "refresh_s": .integer(Int64(source.refreshSeconds))]
        }
        return record
    }

    init?(name: String, record: JSONValue) {
        guard let created = record["created_ms"]?.integer, let current = record["current"]?.integer, let next = record["next_number"]?.integer,
            let versions = record["versions"]?.array
        else { return nil }
        self.name = name
        summary = record["summary"]?.string ?? ""
        createdAt = UInt64(clamping: created)
        self.current = Int(clamping: current)
        nextNumber = Int(clamping: next)
        self.next = record["next"]?.integer.map { Int(clamping: $0) }
        previous = record["previous"]?.integer.map { Int(clamping: $0) }
        isShared = record["shared"]?.bool ?? false
        if let source = record["source"], let reference = source["reference"]?.string, let refresh = source["refresh_s"]?.integer {
            self.source = Source(reference: reference, refreshSeconds: Int(clamping: refresh))
        }
        for version in versions {
            guard let number = version["version"]?.integer, let created = version["created_ms"]?.integer, let bytes = version["bytes"]?.integer else { return nil }
            self.versions.append(
                Version(number: Int(clamping: number), createdAt: UInt64(clamping: created), by: version["by"]?.string ?? "", bytes: Int(clamping: bytes)))
        }
    }

    /// As the API shows it.
    func shown(assignments: Int, sourceState: JSONValue?) -> JSONObject {
        var shown = record
        shown["next_number"] = nil
        shown["name"] = .string(name)
        shown["assignments"] = .integer(Int64(assignments))
        shown["versions"] = .array(
            versions.map {
                [
                    "version": .integer(Int64($0.number)), "state": .string(state(of: $0.number)),
                    "created_ms": .integer(Int64(clamping: $0.createdAt)), "by": .string($0.by), "bytes": .integer(Int64($0.bytes)),
                ]
            })
        if let sourceState, var source = shown["source"]?.object {
            for member in sourceState.object ?? [:] { source[member.key] = member.value }
            shown["source"] = .object(source)
        }
        return shown
    }
}

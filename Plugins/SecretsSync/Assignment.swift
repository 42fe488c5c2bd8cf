import JSON
import PluginKit

/// Which clients get a secret, and how its file looks there.
struct Assignment: Sendable, Equatable {
    var id: String
    var secret: String
    /// Over labels that operators assert, and nothing that a machine says about itself.
    var selector: String
    /// Name of the file below the agent's directory for private files.
    var file: String
    var owner: String?
    var group: String?
    var mode: Int
    /// The client removes the file so long after it last heard from the core; `nil`: only when it is told.
    var lifetimeSeconds: Int?
    /// What the client does after a change, where its local policy allows it.
    var hook: [String]
    var createdAt: UInt64
    var by: String

    /// The longest suffix of a slot has to fit behind it.
    static let fileBytes = 55
    static let members: Set<String> = ["selector", "file", "owner", "group", "mode", "lifetime_s", "hook"]

    var record: JSONObject {
        var record: JSONObject = [
            "id": .string(id), "secret": .string(secret), "selector": .string(selector), "file": .string(file),
            "mode": .string(Self.octal(mode)), "hook": .array(hook.map { .string($0) }), "created_ms": .integer(Int64(clamping: createdAt)),
            "by": .string(by),
        ]
        if let owner { record["owner"] = .string(owner) }
        if let group { record["group"] = .string(group) }
        if let lifetimeSeconds { record["lifetime_s"] = .integer(Int64(lifetimeSeconds)) }
        return record
    }

    init?(record: JSONValue) {
        guard let id = record["id"]?.string, let secret = record["secret"]?.string, let selector = record["selector"]?.string,
            let file = record["file"]?.string, let mode = record["mode"]?.string.flatMap({ Int($0, radix: 8) })
        else { return nil }
        (self.id, self.secret, self.selector, self.file, self.mode) = (id, secret, selector, file, mode)
        owner = record["owner"]?.string
        group = record["group"]?.string
        lifetimeSeconds = record["lifetime_s"]?.integer.map { Int(clamping: $0) }
        hook = record["hook"]?.array?.compactMap(\.string) ?? []
        createdAt = UInt64(clamping: record["created_ms"]?.integer ?? 0)
        by = record["by"]?.string ?? ""
    }

    init(_ body: Body, id: String, secret: String, by: String, now: UInt64) throws(PluginError) {
        guard let selector = try body.text("selector", limit: 4_096), !selector.isEmpty else {
            throw .invalid("\"selector\" must say which clients, over labels: \"env=prod\"")
        }
        let file = try body.text("file", limit: Self.fileBytes) ?? secret
        guard Self.isFile(file) else {
            throw .invalid("\"file\" must be a name of 1 to \(Self.fileBytes) of A-Z a-z 0-9 . _ -, the first no dot and no dash")
        }
        guard !Slot.allCases.contains(where: { !$0.suffix.isEmpty && file.hasSuffix($0.suffix) }) else {
            throw .invalid("\"file\" must not end with .next or .previous: these stand beside it during a rotation")
        }
        let mode = try body.text("mode", limit: 4) ?? "0400"
        guard let bits = Int(mode, radix: 8), bits & ~0o660 == 0, bits & 0o440 != 0 else {
            throw .invalid("\"mode\" must be reading and writing for owner and group, octal as a text: \"0400\" to \"0660\"")
        }
        var hook: [String] = []
        if let value = body.object["hook"] {
            guard let words = value.array, words.count <= 32 else { throw .invalid("\"hook\" must be a list of at most 32 texts") }
            for word in words {
                guard let text = word.string, (1...1_024).contains(text.utf8.count), !text.utf8.contains(0) else {
                    throw .invalid("each word of \"hook\" must be a text of 1 to 1,024 bytes")
                }
                hook.append(text)
            }
            guard hook.isEmpty || Self.isHook(hook) else {
                throw .invalid("\"hook\" is [\"reload\", UNIT], [\"restart\", UNIT], [\"signal\", NAME, UNIT or PID-FILE] or [\"run\", PROGRAM, …]")
            }
        }
        for name in ["owner", "group"] {
            guard let text = try body.text(name, limit: 64) else { continue }
            guard !text.isEmpty else { throw .invalid("\"\(name)\" must be a name of 1 to 64 bytes") }
        }
        self.id = id
        self.secret = secret
        self.selector = selector
        self.file = file
        self.mode = bits
        self.hook = hook
        owner = try body.text("owner", limit: 64)
        group = try body.text("group", limit: 64)
        lifetimeSeconds = try body.number("lifetime_s", 60...31_536_000)
        createdAt = now
        self.by = by
    }

    static func isFile(_ text: String) -> Bool {
        let bytes = Array(text.utf8)
        guard let first = bytes.first, bytes.count <= fileBytes, first != UInt8(ascii: "."), first != UInt8(ascii: "-") else { return false }
        return bytes.allSatisfy {
            (0x30...0x39).contains($0) || (0x41...0x5A).contains($0) || (0x61...0x7A).contains($0) || $0 == 0x2E || $0 == 0x5F || $0 == 0x2D
        }
    }

    /// The shape alone: the client's policy decides.
    private static func isHook(_ words: [String]) -> Bool {
        switch (words[0], words.count) {
        case ("reload", 2), ("restart", 2), ("signal", 3): true
        case ("run", 2...): true
        default: false
        }
    }

    private static func octal(_ mode: Int) -> String {
        let text = String(mode, radix: 8)
        return String(repeating: "0", count: max(0, 4 - text.utf8.count)) + text
    }
}

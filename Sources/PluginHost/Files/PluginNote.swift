import JSON

/// Who a plugin says it is and what it asks for: the text of its ELF section, read before any of its code runs.
public struct PluginNote: Sendable, Equatable {
    public let id: String
    public let version: PluginVersion
    public let name: String
    public let summary: String
    public let provides: [String]
    public let requires: [String]
    public let wants: [String]
    public let capabilities: [String]
    /// Areas of the API below /api/v1.
    public let routes: [String]
    /// A JSON schema; `nil`: no configuration.
    public let configuration: JSONValue?
    public let libraries: [String]

    /// The ABI's major version that the host speaks.
    public static let abi = 1
    static let maximumBytes = 65_536
    private static let firstLine = "client-manager-plugin "

    /// - Throws: `plugin-note-invalid`, `plugin-abi`.
    public init(_ section: [UInt8]) throws(PluginRefusal) {
        guard section.count <= Self.maximumBytes else {
            throw .note("its identity note has \(section.count) bytes; \(Self.maximumBytes) are allowed")
        }
        let text = section.prefix { $0 != 0 }
        guard text.starts(with: Self.firstLine.utf8), let lineEnd = text.firstIndex(of: 0x0A) else {
            throw .note("its identity note does not begin with the line \"client-manager-plugin \(Self.abi)\"")
        }
        let major = String(decoding: text[Self.firstLine.utf8.count..<lineEnd], as: UTF8.self)
        guard major == String(Self.abi) else {
            throw PluginRefusal(
                "plugin-abi", "it wants version \(major.prefix(16)) of the plugin ABI, and this core has \(Self.abi)",
                remedy: "build it against the SDK of this core (make sdk)")
        }
        let json: JSONValue
        do throws(JSONError) {
            json = try JSONValue(parsing: Array(text[(lineEnd + 1)...]), limits: JSONLimits(depth: 32, bytes: Self.maximumBytes))
        } catch {
            throw .note("its identity note is not JSON: \(error)")
        }
        try self.init(json: json)
    }

    /// The object alone, as `plugin-manifest.json` has it too.
    public init(json: JSONValue) throws(PluginRefusal) {
        guard let object = json.object else { throw .note("its identity note is not a JSON object") }
        for member in object where !Self.members.contains(member.key) {
            throw .note("its identity note has the unknown member \"\(member.key.prefix(64))\"; known are \(Self.members.sorted().joined(separator: ", "))")
        }
        guard let id = json["id"]?.string, Self.isID(id) else {
            throw .note("\"id\" must be a reverse domain name of 3 to 64 characters in [a-z0-9.-] with a dot, for example \"com.example.hello\"")
        }
        self.id = id
        guard let version = json["version"]?.string.flatMap({ PluginVersion($0) }) else {
            throw .note("\"version\" must be \"MAJOR.MINOR.PATCH\" with numbers below 1,000,000")
        }
        self.version = version
        name = try Self.text(json, "name", 64) ?? id
        summary = try Self.text(json, "summary", 256) ?? ""
        provides = try Self.list(json, "provides", "services such as \"com.example.greeter/1\"", Self.isService)
        requires = try Self.list(json, "requires", "services such as \"com.example.greeter/1\"", Self.isService)
        wants = try Self.list(json, "wants", "services such as \"com.example.greeter/1\"", Self.isService)
        capabilities = try Self.list(json, "capabilities", Capability.allCases.map(\.rawValue).joined(separator: ", ")) {
            Capability(rawValue: $0) != nil
        }
        routes = try Self.list(json, "routes", "areas in [a-z0-9-], such as \"hello\" for /api/v1/hello", Self.isArea)
        configuration = json["configuration"]
        if let configuration, configuration.object == nil { throw .note("\"configuration\" must be a JSON schema, an object") }
        libraries = try Self.list(json, "libraries", "file names such as \"libcurl.so.4\"") { $0.utf8.count <= 128 && !$0.contains("/") }
    }

    private static let members: Set<String> = [
        "id", "version", "name", "summary", "provides", "requires", "wants", "capabilities", "routes", "configuration",
        "libraries",
    ]

    /// What a plugin's metrics, events and job kinds may begin with besides its id: its last word.
    public var shortName: String { id.split(separator: ".").last.map(String.init) ?? id }

    static func isID(_ text: String) -> Bool {
        (3...64).contains(text.utf8.count) && text.contains(".")
            && text.split(separator: ".", omittingEmptySubsequences: false).allSatisfy { part in
                !part.isEmpty && part.utf8.allSatisfy { isWord($0) || $0 == 0x2D } && part.first != "-" && part.last != "-"
            }
    }

    static func isService(_ text: String) -> Bool {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        return parts.count == 2 && isID(String(parts[0])) && UInt16(parts[1]).map { $0 > 0 && String($0) == parts[1] } ?? false
    }

    static func isArea(_ text: String) -> Bool {
        (1...32).contains(text.utf8.count) && text.utf8.allSatisfy { isWord($0) || $0 == 0x2D } && text.first != "-"
    }

    private static func isWord(_ byte: UInt8) -> Bool { (0x61...0x7A).contains(byte) || (0x30...0x39).contains(byte) }

    private static func text(_ json: JSONValue, _ key: String, _ limit: Int) throws(PluginRefusal) -> String? {
        guard let value = json[key] else { return nil }
        guard let text = value.string, text.utf8.count <= limit, !text.utf8.contains(where: { $0 < 0x20 }) else {
            throw .note("\"\(key)\" must be a text of at most \(limit) bytes in one line")
        }
        return text
    }

    private static func list(
        _ json: JSONValue, _ key: String, _ allowed: String, _ isValid: (String) -> Bool
    ) throws(PluginRefusal) -> [String] {
        guard let value = json[key] else { return [] }
        guard let items = value.array, items.count <= 64 else { throw .note("\"\(key)\" must be an array of at most 64: \(allowed)") }
        var texts: [String] = []
        for item in items {
            guard let text = item.string, isValid(text) else { throw .note("\"\(key)\" has \(item), allowed are \(allowed)") }
            guard !texts.contains(text) else { throw .note("\"\(key)\" names \(text) twice") }
            texts.append(text)
        }
        return texts
    }
}

public struct PluginVersion: Sendable, Hashable, Comparable, CustomStringConvertible {
    public let major: Int
    public let minor: Int
    public let patch: Int

    public init?(_ text: String) {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false).map { part in
            part.utf8.count <= 6 && part.utf8.allSatisfy({ (0x30...0x39).contains($0) }) ? Int(part) : nil
        }
        guard parts.count == 3, let major = parts[0], let minor = parts[1], let patch = parts[2] else { return nil }
        (self.major, self.minor, self.patch) = (major, minor, patch)
    }

    public var description: String { "\(major).\(minor).\(patch)" }
    public static func < (one: PluginVersion, other: PluginVersion) -> Bool {
        (one.major, one.minor, one.patch) < (other.major, other.minor, other.patch)
    }
}

/// What a plugin may be granted (CM_CAPABILITY_… of the header).
public enum Capability: String, Sendable, CaseIterable {
    case http, events, jobs, store
    case clientsRead = "clients.read"
    case auditWrite = "audit.write"
    case inline
    case clientsWrite = "clients.write"
    case commands, channels, secrets, files
    case auditRead = "audit.read"
    case enrollment
    case privateFiles = "private-files"
    case outputFilter = "output.filter"

    /// Granted to whoever is let in, unless `plugins.default_grants` says otherwise.
    public static let defaults: [Capability] = [.http, .events, .jobs, .store, .clientsRead, .auditWrite]
}

extension PluginRefusal {
    fileprivate static func note(_ reason: String) -> PluginRefusal {
        PluginRefusal("plugin-note-invalid", reason, remedy: "correct the note (see client_manager_plugin.h) and build again")
    }
}

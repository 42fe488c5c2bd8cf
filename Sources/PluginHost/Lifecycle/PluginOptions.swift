import JSON
import System

/// What an operator sets before the core starts (`plugins.…`), and where things are.
public struct PluginOptions: Sendable {
    public var directory: String
    /// Where copies go when they cannot stay in memory.
    public var copies: String
    /// False: copies are files in `copies` (`--plugin-copies`), so that debuggers see names.
    public var copiesInMemory = true
    /// Shared libraries that the core brings along for plugins.
    public var libraries: String
    /// This program, to run as a probe.
    public var program: String
    /// `--safe`: the core alone; nothing is loaded.
    public var isSafe = false
    /// By id: true loads it and says so in readiness if it is not there; false keeps it off; absent: the file decides.
    public var flags: [String: Bool] = [:]
    public var defaultGrants: Set<Capability> = Set(Capability.defaults)
    /// Raw Ed25519 public keys.
    public var trustedKeys: [[UInt8]] = []
    /// What first-party files are granted, by SHA-256 in hexadecimal.
    public var catalogue: [String: CatalogueEntry] = [:]
    /// `plugins.settings`: configuration by id.
    public var settings: JSONObject = [:]
    /// Crashes blamed on one plugin until it stays off.
    public var crashLimit = 1
    /// Longest time of one callback on the plugin's own thread.
    public var callMilliseconds = 30_000
    /// What `cm.store/1` keeps for one plugin, keys, values and blobs together.
    public var storeBytes: UInt64 = 1 << 30
    /// Images of one plugin in this process; they are never unmapped.
    public var imageLimit = 256

    /// Where agents find this core, for those who install them; `nil`: nobody has said so.
    public var agentsURL: String?
    /// The agent's program that this core hands out.
    public var agentFile: String

    public init(directory: String, copies: String, libraries: String, program: String) {
        agentFile = (Files.parent(of: program) ?? "") + "/cm-agent"
        self.directory = directory
        self.copies = copies
        self.libraries = libraries
        self.program = program
    }
}

/// A first-party file of `share/plugin-catalogue.json`.
public struct CatalogueEntry: Sendable, Equatable {
    public let id: String
    public let version: String
    public let capabilities: Set<Capability>

    /// `{"plugins": [{"id", "version", "sha256", "capabilities", …}]}`; what cannot be read is left out.
    public static func read(_ json: JSONValue) -> [String: CatalogueEntry] {
        var entries: [String: CatalogueEntry] = [:]
        for item in json["plugins"]?.array ?? [] {
            guard let hash = item["sha256"]?.string, hash.utf8.count == 64, let id = item["id"]?.string else { continue }
            let capabilities = item["capabilities"]?.array?.compactMap { $0.string.flatMap { Capability(rawValue: $0) } } ?? []
            entries[hash] = CatalogueEntry(id: id, version: item["version"]?.string ?? "", capabilities: Set(capabilities))
        }
        return entries
    }
}

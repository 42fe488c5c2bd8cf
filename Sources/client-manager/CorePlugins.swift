import Crypto
import Glibc
import JSON
import Kernel
import PluginHost
import Program
import Reactor
import System
import Web

/// The plugin host as the configuration wants it.
enum CorePlugins {
    static let directory = ConfigurationKey.text(
        "plugins.directory", default: "", "Directory that plugins are loaded from; empty: plugins in the data directory.",
        allowed: "a path", flag: "plugins", flagValue: "DIR")
    static let copies = ConfigurationKey.text(
        "plugins.copies", default: "",
        "Directory for the private copies that are loaded, for debuggers; empty: sealed files in memory where the kernel allows it.",
        allowed: "a path", flag: "plugin-copies", flagValue: "DIR")
    static let libraries = ConfigurationKey.text(
        "plugins.libraries", default: "", "Directory of shared libraries for plugins; empty: lib beside the program's bin.",
        allowed: "a path")
    static let grants = ConfigurationKey.list(
        "plugins.default_grants", default: Capability.defaults.map(\.rawValue),
        "Capabilities that every plugin gets; more must be approved one by one.",
        allowed: Capability.allCases.map(\.rawValue).joined(separator: ", "), atMost: 32, isValid: { Capability(rawValue: $0) != nil })
    static let trustedKeys = ConfigurationKey.list(
        "plugins.trusted_keys", "Ed25519 public keys whose signatures (NAME.so.sig) are accepted.",
        allowed: "32 bytes as hexadecimal", atMost: 64, isValid: { Hex.decode($0)?.count == 32 })
    static let flags = ConfigurationKey<JSONValue>.structure(
        "plugins.enabled", default: [:],
        "Plugins by id that must run (true: readiness says so if one does not) or must not (false); others run if their file is there.",
        allowed: "an object of id and true or false") { value in
            value.object.map { $0.allSatisfy { $0.value.bool != nil } } ?? false
        }
    static let settings = ConfigurationKey<JSONValue>.structure(
        "plugins.settings", default: [:], "Configuration of plugins by id, checked against the schema of each.",
        allowed: "an object of id and object", secret: true) { value in
            value.object.map { $0.allSatisfy { $0.value.object != nil } } ?? false
        }
    static let crashLimit = ConfigurationKey.integer(
        "plugins.crash_limit", default: 1, in: 1...1_000, "Crashes blamed on a plugin until it stays off.")

    static let callLimit = ConfigurationKey.integer(
        "plugins.call_limit_s", default: 30, in: 1...3_600,
        "Longest time of one callback on a plugin's own thread, after which it is given up; also for giving back the leases on a plugin that stops.")

    static let storeBytes = ConfigurationKey.integer(
        "plugins.store_bytes", default: 1 << 30, in: 0...1 << 50, "Bytes that one plugin may keep: keys, values and blobs together.")

    static let agentsURL = ConfigurationKey.text(
        "agents.url", default: "",
        "Where agents find this core, for plugins that install agents; empty: each installation has to say it.",
        allowed: "URL[*WEIGHT][,…] as for cm-agent run --server")
    static let agentsProgram = ConfigurationKey.text(
        "agents.program", default: "", "The agent's program that plugins install; empty: cm-agent beside the core's own.",
        allowed: "a path")

    static let declarations = [
        directory.declaration, copies.declaration, libraries.declaration, grants.declaration, trustedKeys.declaration,
        flags.declaration, settings.declaration, crashLimit.declaration, callLimit.declaration,
        storeBytes.declaration, agentsURL.declaration, agentsProgram.declaration,
    ]

    static func options(_ configuration: Configuration, data: String, isSafe: Bool) -> PluginOptions {
        let program = (try? Files.readLink("/proc/self/exe")) ?? "/proc/self/exe"
        let root = Files.parent(of: Files.parent(of: program) ?? "/") ?? "/"
        func given(_ key: ConfigurationKey<String>) -> String? { configuration[key].isEmpty ? nil : configuration[key] }
        var options = PluginOptions(
            directory: given(directory) ?? data + "/plugins", copies: given(copies) ?? data + "/run/plugin-copies",
            libraries: given(libraries) ?? root + "/lib", program: program)
        options.copiesInMemory = given(copies) == nil
        options.isSafe = isSafe
        options.defaultGrants = Set(configuration[grants].compactMap { Capability(rawValue: $0) })
        options.trustedKeys = configuration[trustedKeys].compactMap { Hex.decode($0) }
        options.settings = configuration[settings].object ?? [:]
        options.crashLimit = configuration[crashLimit]
        options.callMilliseconds = configuration[callLimit] * 1_000
        options.storeBytes = UInt64(clamping: configuration[storeBytes])
        options.agentsURL = given(agentsURL)
        if let path = given(agentsProgram) { options.agentFile = path }
        let catalogue = catalogue(root + "/share/plugin-catalogue.json")
        options.catalogue = CatalogueEntry.read(catalogue)
        options.flags = environmentFlags(catalogue)
        for flag in configuration[flags].object ?? [:] { options.flags[flag.key] = flag.value.bool }
        return options
    }

    /// The first-party plugins of this tree; written by `make stage`.
    private static func catalogue(_ path: String) -> JSONValue {
        guard let bytes = try? Files.read(path, limit: 1 << 20), let json = try? JSONValue(parsing: bytes) else { return .null }
        return json
    }

    /// `ENABLE_TERMINAL=0` and its like: the flags of first-party plugins, named in the catalogue.
    private static func environmentFlags(_ catalogue: JSONValue) -> [String: Bool] {
        var flags: [String: Bool] = [:]
        for item in catalogue["plugins"]?.array ?? [] {
            guard let name = item["flag"]?.string, let id = item["id"]?.string, let value = getenv(name) else { continue }
            switch String(cString: value).lowercased() {
            case "1", "true", "yes", "on": flags[id] = true
            case "0", "false", "no", "off": flags[id] = false
            default: break
            }
        }
        return flags
    }
}

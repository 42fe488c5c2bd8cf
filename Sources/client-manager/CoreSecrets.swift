import Glibc
import Kernel
import Program

/// Where the configuration says that secrets come from.
enum CoreSecrets {
    /// The name under which systemd hands the master key over (`LoadCredential=`).
    private static let credential = "client-manager-master-key"

    /// `nil` when no master key is configured: keys are then plain files, mode 0600.
    static func masterKey(_ configuration: Configuration) throws(Problem) -> MasterKey? {
        var sources: [MasterKey.Source] = []
        let file = configuration[CoreConfiguration.masterKeyFile]
        let text = configuration[CoreConfiguration.masterKey]
        if !file.isEmpty { sources.append(.file(file)) }
        if !text.isEmpty { sources.append(.text(text)) }
        if let directory = getenv("CREDENTIALS_DIRECTORY").map({ String(cString: $0) }),
            access(directory + "/" + credential, F_OK) == 0
        {
            sources.append(.credential(directory: directory, name: credential))
        }
        guard sources.count <= 1 else {
            throw Problem(
                500, "master-key-invalid",
                "the master key is given more than once: keep one of security.master_key_file, security.master_key and the systemd credential")
        }
        guard let source = sources.first else { return nil }
        return try MasterKey.load(source)
    }

    static func safe(_ configuration: Configuration) throws(Problem) -> KeySafe {
        let previous = configuration[CoreConfiguration.previousMasterKeyFile]
        return KeySafe(
            current: try masterKey(configuration), previous: previous.isEmpty ? [] : [try MasterKey.load(.file(previous))])
    }

    static func options(_ configuration: Configuration) throws(Problem) -> Security.Options {
        var options = Security.Options()
        options.strangerRate = configuration[CoreConfiguration.strangerRate]
        options.userRate = configuration[CoreConfiguration.userRate]
        options.clientRate = configuration[CoreConfiguration.clientRate]
        options.tokenRate = configuration[CoreConfiguration.tokenRate]
        options.firstTokenRate = configuration[CoreConfiguration.firstTokenRate]
        for issuer in configuration[CoreConfiguration.issuers].array ?? [] {
            options.issuers.append(try TokenIssuer(json: issuer))
        }
        return options
    }

    /// On SIGHUP: issuers' key files are read again; a changed master key seals the core's secrets anew.
    static func reload(_ configuration: Configuration, _ kernel: Kernel) async throws(Problem) {
        let key = try masterKey(configuration)
        if !kernel.security.isSealed(under: key) {
            try await kernel.security.changeMasterKey(
                to: key, kernel.identity, by: Principal(kind: .system, id: "core", correlation: "reload"))
        }
        // Also when the key is as it was: an earlier reload may have failed half-way.
        try await kernel.outbox.sealSecrets()
        try await kernel.security.reloadIssuers()
    }
}

import JSON
import Kernel
import Program

enum TLSMode: String, CaseIterable, Sendable {
    /// A certificate of the core's own authority, made and renewed by itself.
    case auto
    /// Plain text; only on loopback addresses.
    case off
    /// `tls.certificate` and `tls.key`, read again on SIGHUP.
    case files
}

/// What an operator may set before the core starts. What can change while it runs is in `/api/v1/settings` instead.
enum CoreConfiguration {
    static let listen = ConfigurationKey.text(
        "listen", default: "127.0.0.1:8443",
        "Address and port for agents, API and documents; port 0 takes a free one.",
        allowed: "ADDRESS:PORT, an IPv6 address in brackets", flag: "listen", flagValue: "ADDRESS:PORT")
    static let loops = ConfigurationKey.integer(
        "loops", default: 0, in: 0...64, "Event loops, each a thread; 0 takes one per processor.")

    static let tlsMode = ConfigurationKey<TLSMode>.choice(
        "tls.mode", default: .auto,
        "auto: a certificate of the core's own authority; files: yours; off: plain text, on loopback only.", flag: "tls")
    static let tlsCertificate = ConfigurationKey.text(
        "tls.certificate", default: "", "PEM file with the certificate chain, for tls.mode files.", allowed: "a path")
    static let tlsKey = ConfigurationKey.text(
        "tls.key", default: "", "PEM file with the certificate's key, for tls.mode files.", allowed: "a path")
    static let tlsNames = ConfigurationKey.list(
        "tls.names", "Further DNS names and addresses in the core's own certificate.", allowed: "a DNS name or an address",
        atMost: 64)

    static let tlsClientAuthorities = ConfigurationKey.text(
        "tls.client_authorities", default: "",
        "PEM file with authorities of client certificates: a client may do without one, but one that it shows must be signed by one of them.",
        allowed: "a path")

    static let hosts = ConfigurationKey.list(
        "http.hosts", "Host names that the server answers to, besides addresses and localhost; * allows any.",
        allowed: "a host name or *", atMost: 64)
    static let origins = ConfigurationKey.list(
        "http.origins", "Origins of other sites whose pages may call the API; none by default.",
        allowed: "SCHEME://HOST[:PORT]", atMost: 64, isValid: isOrigin)
    static let docs = ConfigurationKey.toggle(
        "http.docs", default: true, "Serve /docs and /openapi.json (they hold no data).")
    static let trustedProxies = ConfigurationKey.list(
        "http.trusted_proxies", "Address ranges whose Forwarded, X-Forwarded-For and PROXY v2 are believed.",
        allowed: "ADDRESS or ADDRESS/BITS", atMost: 64)
    static let strangersPerAddress = ConfigurationKey.integer(
        "limits.unauthenticated_per_address", default: 256, in: 1...100_000,
        "Connections of one address and loop that have not proved who they are; more wait unread.")
    static let connections = ConfigurationKey.integer(
        "limits.connections_per_loop", default: 60_000, in: 16...1_000_000,
        "Connections of one event loop; more are closed as they come.")

    static let strangerRate = ConfigurationKey.integer(
        "limits.stranger_rate", default: 1_000, in: 1...1_000_000,
        "Requests per second of one address that come without credentials.")
    static let userRate = ConfigurationKey.integer(
        "limits.user_rate", default: 1_000, in: 1...1_000_000, "Requests per second of one user.")
    static let clientRate = ConfigurationKey.integer(
        "limits.client_rate", default: 1_000, in: 1...1_000_000, "Commands per second to one client.")
    static let tokenRate = ConfigurationKey.integer(
        "limits.token_rate", default: 100, in: 1...1_000_000,
        "Requests per second of an API token whose maker does not say otherwise.")
    static let firstTokenRate = ConfigurationKey.integer(
        "limits.first_token_rate", default: 100_000, in: 1...1_000_000,
        "Requests per second of the first administrator's token, set when it is made.")

    static let issuers = ConfigurationKey<JSONValue>.structure(
        "security.issuers", default: [],
        "Outside issuers whose JWTs are accepted: name, issuer, audience, algorithms, key_file (PEM or JWK set) or secret_file, roles_claim, roles.",
        allowed: "a list of objects; every algorithm is named") { value in
            value.array.map { $0.count <= 32 && $0.allSatisfy { (try? TokenIssuer(json: $0)) != nil } } ?? false
        }
    static let masterKeyFile = ConfigurationKey.text(
        "security.master_key_file", default: "",
        "File with the 32 bytes under which the core's private keys are sealed; read again on SIGHUP.", allowed: "a path")
    static let masterKey = ConfigurationKey.text(
        "security.master_key", default: "", "The same as text, meant for the environment.",
        allowed: "32 bytes as hexadecimal or base64", secret: true)
    static let previousMasterKeyFile = ConfigurationKey.text(
        "security.previous_master_key_file", default: "",
        "A master key that may still open what is sealed under it, for a change of the key while the core is stopped.",
        allowed: "a path")

    static let logLevel = ConfigurationKey<LogLevelName>.choice(
        "log.level", default: .info, "Least level that is written; changeable at run time.")
    static let synchronous = ConfigurationKey<StoreOptions.Synchronous>.choice(
        "store.synchronous", default: .full,
        "full: what was acknowledged survives power loss; normal: it survives only the end of the process.")
    static let drainSeconds = ConfigurationKey.integer(
        "drain_s", default: 5, in: 0...300, "Longest wait for open requests at a stop.")

    static let auditFile = ConfigurationKey.text(
        "audit.file", default: "", "A file to which every audit record is appended as a JSON line; empty: none.",
        allowed: "a path")
    static let auditSyslog = ConfigurationKey.text(
        "audit.syslog", default: "", "A syslog socket that gets every audit record; empty: none.",
        allowed: "a path, usually /dev/log")

    static let declarations: [ConfigurationDeclaration] = [
        listen.declaration, loops.declaration, tlsMode.declaration, tlsCertificate.declaration, tlsKey.declaration,
        tlsNames.declaration, tlsClientAuthorities.declaration, hosts.declaration, origins.declaration, docs.declaration, trustedProxies.declaration,
        strangerRate.declaration, userRate.declaration, clientRate.declaration, tokenRate.declaration,
        firstTokenRate.declaration, issuers.declaration, masterKeyFile.declaration, masterKey.declaration,
        previousMasterKeyFile.declaration, strangersPerAddress.declaration, connections.declaration, logLevel.declaration, synchronous.declaration,
        auditFile.declaration, auditSyslog.declaration,
        drainSeconds.declaration,
    ] + CorePlugins.declarations
}

enum LogLevelName: String, CaseIterable, Sendable {
    case debug, info, warning, error
    var level: LogLevel { LogLevel(name: rawValue) ?? .info }
}

/// `SCHEME://HOST[:PORT]` with no path: what a browser sends as `Origin`, so that nothing is listed which never matches.
private func isOrigin(_ text: String) -> Bool {
    let parts = text.split(separator: "/", omittingEmptySubsequences: false)
    return parts.count == 3 && parts[0].count > 1 && parts[0].hasSuffix(":") && parts[1].isEmpty && !parts[2].isEmpty
}

import JSON
import Program

/// Which core to talk to, and as whom.
public struct ServerChoice: Sendable, Equatable {
    /// `https://host:port` or `http://host:port`, without a slash at the end.
    public var server: String
    public var token: String?
    /// Lower-case hex SHA-256 of a key in the chain that the core shows; `nil` means the system's roots or `caFile` decide.
    public var pin: String?
    /// PEM file of certificate authorities to trust instead of the system's.
    public var caFile: String?
    /// Renews `token`, when that is the short session that `cmctl login` saved.
    public var refresh: String?

    public init(
        server: String, token: String? = nil, pin: String? = nil, caFile: String? = nil, refresh: String? = nil
    ) {
        self.server = server
        self.token = token
        self.pin = pin
        self.caFile = caFile
        self.refresh = refresh
    }

    public static let flags: [Flag] = [
        .option("server", "URL", "Address of the core (or CM_SERVER)."),
        .option("token", "TOKEN", "API token (or CM_TOKEN, which other users of this machine cannot see)."),
        .option("pin", "FINGERPRINT", "Fingerprint of the core's key (or CM_PIN)."),
        .option("ca", "FILE", "Trust the authorities in this PEM file instead of the system's."),
        .option("data-dir", "DIRECTORY", "Use the core on this machine with this data directory."),
    ]

    /// Flags win over variables, those over the file that `cmctl login` wrote. What the file or a data directory says goes
    /// together: its token is only sent to its own server.
    ///
    /// - Parameters:
    ///   - value: looks a flag up.
    ///   - read: reads a small file; `nil` when there is none.
    public static func resolve(
        flags value: (String) -> String?, environment: [String: String], read: (String) -> [UInt8]?
    ) throws(OperatorError) -> ServerChoice {
        let explicitServer = value("server") ?? environment["CM_SERVER"]
        let explicitToken = value("token") ?? environment["CM_TOKEN"]
        let explicitPin = value("pin") ?? environment["CM_PIN"]
        var known: ServerChoice?
        if let directory = value("data-dir") {
            known = try localCore(directory, read)
        } else if let path = SavedLogin.path(environment), let content = read(path) {
            known = try SavedLogin(parsing: content, path: path).choice
        }
        guard let server = explicitServer ?? known?.server else {
            throw .usage(
                "no core is given",
                advice: "Give --server URL, set CM_SERVER, sign in with 'cmctl login', or name a local core with --data-dir.")
        }
        let address = try normalized(server)
        let same = try known.map { known throws(OperatorError) in try normalized(known.server) == address } ?? false
        return ServerChoice(
            server: address, token: explicitToken ?? (same ? known?.token : nil),
            pin: try (explicitPin ?? (same ? known?.pin : nil)).map { pin throws(OperatorError) in try checkedPin(pin) },
            caFile: value("ca") ?? (same ? known?.caFile : nil),
            refresh: same && explicitToken == nil ? known?.refresh : nil)
    }

    private static func localCore(_ directory: String, _ read: (String) -> [UInt8]?) throws(OperatorError) -> ServerChoice {
        let path = directory + "/run/ready.json"
        guard let content = read(path), let ready = try? JSONValue(parsing: content), let url = ready["url"]?.string else {
            throw OperatorError(
                .unreachable, "no running core in \(directory) (\(path) is missing or cannot be read)",
                advice: "Start it with 'client-manager serve --data-dir \(directory)', or give --server.")
        }
        let token = read(directory + "/admin-token").map { bytes in
            String(decoding: bytes, as: UTF8.self).split(whereSeparator: \.isWhitespace).first.map(String.init) ?? ""
        }
        return ServerChoice(server: url, token: token, pin: ready["fingerprint"]?.string)
    }

    private static func normalized(_ server: String) throws(OperatorError) -> String {
        var text = server
        while text.hasSuffix("/") { text.removeLast() }
        let scheme = ["https://", "http://"].first { text.hasPrefix($0) }
        guard let scheme, case let host = text.dropFirst(scheme.count), !host.isEmpty, !host.contains("/")
        else {
            throw .usage("'\(server)' is no address of a core", advice: "Write it as https://HOST:PORT.")
        }
        return text
    }

    private static func checkedPin(_ pin: String) throws(OperatorError) -> String {
        let text = pin.lowercased()
        guard text.utf8.count == 64, text.utf8.allSatisfy({ (0x30...0x39).contains($0) || (0x61...0x66).contains($0) }) else {
            throw .usage("the pin '\(pin)' is no fingerprint", advice: "It has 64 hexadecimal digits, as 'serve' prints them.")
        }
        return text
    }
}

/// What `cmctl login` keeps in `~/.config/client-manager/cmctl.json` (mode 0600).
struct SavedLogin: Equatable {
    var choice: ServerChoice

    static func path(_ environment: [String: String]) -> String? {
        if let base = environment["XDG_CONFIG_HOME"], base.hasPrefix("/") { return base + "/client-manager/cmctl.json" }
        guard let home = environment["HOME"], home.hasPrefix("/") else { return nil }
        return home + "/.config/client-manager/cmctl.json"
    }

    init(choice: ServerChoice) { self.choice = choice }

    init(parsing content: [UInt8], path: String) throws(OperatorError) {
        let value: JSONValue
        do throws(JSONError) {
            value = try JSONValue(parsing: content, syntax: .lenient)
        } catch {
            throw .usage("\(path), \(error)", advice: "Repair or remove the file, or sign in again with 'cmctl login'.")
        }
        guard let server = value["server"]?.string else {
            throw .usage("\(path) names no \"server\"", advice: "Sign in again with 'cmctl login'.")
        }
        choice = ServerChoice(
            server: server, token: value["token"]?.string, pin: value["pin"]?.string, caFile: value["ca"]?.string,
            refresh: value["refresh"]?.string)
    }

    var content: [UInt8] {
        var object: JSONObject = ["server": .string(choice.server)]
        if let token = choice.token { object["token"] = .string(token) }
        if let pin = choice.pin { object["pin"] = .string(pin) }
        if let caFile = choice.caFile { object["ca"] = .string(caFile) }
        if let refresh = choice.refresh { object["refresh"] = .string(refresh) }
        return Array((JSONValue.object(object).pretty() + "\n").utf8)
    }
}

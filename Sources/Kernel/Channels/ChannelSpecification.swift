import AgentProtocol
import JSON

/// What is opened where.
public struct ChannelSpecification: Sendable, Equatable {
    /// The names of the wire and of plugins.
    public enum Kind: String, Sendable, CaseIterable {
        /// A terminal.
        case terminal = "pty"
        /// Input and output without one.
        case stream = "exec"
    }

    public var kind: Kind
    public var client: ClientID
    /// Who of the layers above looks after it: a plugin's id, by which it finds its channels again. Not in the JSON.
    public var keeper = ""
    /// Program and arguments; empty: the user's login shell.
    public var argv: [String]
    /// A user of the client; `nil`: the agent's own.
    public var user: String?
    public var environment: [String: String] = [:]
    public var workingDirectory: String?
    public var size = TerminalSize(rows: 24, columns: 80)
    public var terminalType = "xterm-256color"
    /// Of output that is kept at the client.
    public var scrollbackBytes: UInt64 = 1 << 20
    /// Runs on while nobody is attached; old output makes room.
    public var isLossy = true
    public var idleMilliseconds: UInt64?
    public var maximumMilliseconds: UInt64?
    /// How long it goes on while no core is connected.
    public var orphanMilliseconds: UInt64 = 24 * 3_600_000

    public init(_ kind: Kind = .terminal, on client: ClientID, argv: [String] = []) {
        self.kind = kind
        self.client = client
        self.argv = argv
    }

    static let argvCount = 1_024
    static let textBytes = 64 << 10
    private static let members: Set<String> = [
        "kind", "client", "argv", "user", "environment", "directory", "rows", "columns", "terminal",
        "scrollback_bytes", "lossy", "idle_s", "maximum_s", "orphan_s",
    ]

    /// - Throws: 400 `invalid`, with the member that is wrong.
    public init(_ json: JSONValue) throws(Problem) {
        guard let object = json.object else { throw .invalid("a channel's specification is a JSON object") }
        for member in object where !Self.members.contains(member.key) {
            throw .invalid("\"\(member.key.prefix(64))\" is no member of a channel", pointer: "/\(member.key.prefix(64))")
        }
        guard let client = json["client"]?.string.flatMap({ ClientID($0) }) else {
            throw .invalid("\"client\" must be a client's id", pointer: "/client")
        }
        guard let kind = Kind(rawValue: json["kind"]?.string ?? "pty") else {
            throw .invalid("\"kind\" must be \"pty\" or \"exec\"", pointer: "/kind")
        }
        self.init(kind, on: client)
        if let argv = json["argv"] {
            guard let list = argv.array, list.allSatisfy({ $0.string != nil }) else {
                throw .invalid("\"argv\" must be an array of texts", pointer: "/argv")
            }
            self.argv = list.compactMap(\.string)
        }
        user = try Self.text(json, "user")
        workingDirectory = try Self.text(json, "directory")
        terminalType = try Self.text(json, "terminal") ?? terminalType
        if let variables = json["environment"] {
            guard let object = variables.object else {
                throw .invalid("\"environment\" must be an object of texts", pointer: "/environment")
            }
            for member in object {
                guard let value = member.value.string else {
                    throw .invalid("\"environment\" must be an object of texts", pointer: "/environment/\(member.key)")
                }
                environment[member.key] = value
            }
        }
        size.rows = UInt16(try Self.number(json, "rows", 1...1_000) ?? 24)
        size.columns = UInt16(try Self.number(json, "columns", 1...1_000) ?? 80)
        scrollbackBytes = try Self.number(json, "scrollback_bytes", WireLimits.terminalKeptBytes) ?? scrollbackBytes
        if let lossy = json["lossy"] {
            guard let value = lossy.bool else { throw .invalid("\"lossy\" must be true or false", pointer: "/lossy") }
            isLossy = value
        }
        let month: UInt64 = 31 * 86_400
        idleMilliseconds = try Self.number(json, "idle_s", 1...month).map { $0 * 1_000 }
        maximumMilliseconds = try Self.number(json, "maximum_s", 1...month).map { $0 * 1_000 }
        orphanMilliseconds = try Self.number(json, "orphan_s", 1...month).map { $0 * 1_000 } ?? orphanMilliseconds
    }

    private static func text(_ json: JSONValue, _ name: String) throws(Problem) -> String? {
        guard let value = json[name], !value.isNull else { return nil }
        guard let text = value.string else { throw .invalid("\"\(name)\" must be a text", pointer: "/\(name)") }
        return text
    }

    private static func number(
        _ json: JSONValue, _ name: String, _ range: ClosedRange<UInt64>
    ) throws(Problem) -> UInt64? {
        guard let value = json[name], !value.isNull else { return nil }
        guard let number = value.integer.flatMap({ UInt64(exactly: $0) }), range.contains(number) else {
            throw .invalid(
                "\"\(name)\" must be a whole number from \(range.lowerBound) to \(range.upperBound)", pointer: "/\(name)")
        }
        return number
    }

    /// - Throws: 400 `invalid`.
    func validate() throws(Problem) {
        guard argv.count <= Self.argvCount, argv.first.map({ !$0.isEmpty }) ?? true else {
            throw .invalid("\"argv\" has at most \(Self.argvCount) texts, the first not empty", pointer: "/argv")
        }
        guard kind == .terminal || !argv.isEmpty else {
            throw .invalid("a channel without a terminal needs \"argv\"", pointer: "/argv")
        }
        var bytes = argv.reduce(0) { $0 + $1.utf8.count + 4 }
        for (name, value) in environment {
            guard !name.isEmpty, !name.utf8.contains(0x3D) else {
                throw .invalid("a variable's name is empty or holds \"=\"", pointer: "/environment")
            }
            bytes += name.utf8.count + value.utf8.count + 8
        }
        for text in [user ?? "", workingDirectory ?? "", terminalType] { bytes += text.utf8.count }
        guard bytes <= Self.textBytes, terminalType.utf8.count <= 64 else {
            throw .invalid("program, environment and directory together have at most \(Self.textBytes) bytes")
        }
        for text in argv + [user ?? "", workingDirectory ?? "", terminalType] where text.utf8.contains(0) {
            throw .invalid("a text holds a NUL byte")
        }
        guard size.rows > 0, size.columns > 0 else { throw .invalid("rows and columns are from 1 on", pointer: "/rows") }
    }

    var subject: PolicySubject { argv.isEmpty ? .shell : .argv(argv) }

    /// For lists and the audit trail.
    var title: String { argv.isEmpty ? "login shell" : String(argv.joined(separator: " ").prefix(256)) }

    func order(_ id: ChannelID, correlation: String, startBefore: UInt64) -> TerminalOrder {
        TerminalOrder(
            form: kind == .terminal ? .terminal : .stream,
            order: Order(
                command: CommandID(sameAs: id), invocation: .argv(argv), environment: environment,
                workingDirectory: workingDirectory, user: user, timeoutMilliseconds: maximumMilliseconds,
                killGraceMilliseconds: 2_000, outputLimitBytes: 0, correlation: correlation, startBefore: startBefore),
            size: size, terminalType: kind == .terminal ? terminalType : "", keptBytes: scrollbackBytes,
            isLossy: isLossy, idleMilliseconds: idleMilliseconds, orphanMilliseconds: orphanMilliseconds)
    }
}

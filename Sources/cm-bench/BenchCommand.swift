import CFloor
import Glibc

/// What the program's arguments ask for.
enum BenchCommand {
    static let usage = """
        usage: cm-bench ws-echo --listen ADDRESS:PORT [--tls] [--loops N]   an echo server made of Transport
               cm-bench floor echo|relay|terminal [--port P]               the bare C servers to measure against
               cm-bench floor file --to PATH [--port P]                    a bare C receiver of files over TLS
               cm-bench run file --from PATH --port P                      sends a file to it: bytes and seconds as JSON
               cm-bench run echo|relay|all [--seconds S] [--rounds N]      figures beside their floors
               cm-bench run commands [--agents N] [--callers N] [--tls] [--seconds S] [--rounds N] [--data-dir D]

        """

    static func run(_ arguments: [String]) {
        do throws(BenchError) {
            switch arguments.first {
            case "ws-echo": try EchoServer.run(Options(arguments.dropFirst(), known: ["listen", "loops"], switches: ["tls"]))
            case "floor": try floor(Array(arguments.dropFirst()))
            case "run": try measure(Array(arguments.dropFirst()))
            default: throw BenchError(status: 2, usage)
            }
        } catch {
            error.message.withCString { text in _ = write(2, text, strlen(text)) }
            exit(error.status)
        }
    }

    private static func floor(_ arguments: [String]) throws(BenchError) {
        let options = try Options(arguments.dropFirst(), known: arguments.first == "file" ? ["port", "to"] : ["port"], switches: [])
        var port = UInt16(clamping: try options.number("port", 0))
        let listener = cm_floor_listen(&port)
        guard listener >= 0 else { throw BenchError(status: 4, "cannot listen: errno \(-listener)\n") }
        switch arguments.first {
        case "echo":
            announce("127.0.0.1:\(port)", isSecure: false)
            cm_floor_echo(listener)
        case "relay":
            announce("127.0.0.1:\(port)", isSecure: false)
            cm_floor_relay(listener)
        case "terminal":
            announce("127.0.0.1:\(port)", isSecure: false)
            cm_floor_terminal(listener)
        case "file":
            guard let path = options["to"] else { throw BenchError(status: 2, usage) }
            announce("127.0.0.1:\(port)", isSecure: true)
            cm_floor_file(listener, path)
        default: throw BenchError(status: 2, usage)
        }
    }

    private static func sendFile(_ arguments: [String]) throws(BenchError) {
        let options = try Options(arguments.dropFirst(), known: ["port", "from"], switches: [])
        guard let path = options["from"] else { throw BenchError(status: 2, usage) }
        var result = cm_load_result()
        guard cm_load_file(UInt16(clamping: try options.number("port", 0)), path, &result) == 0 else {
            throw BenchError(status: 1, "the file could not be sent: \(path)\n")
        }
        say("{\"bytes\":\(result.count),\"seconds\":\(Double(result.nanoseconds) / 1e9)}")
    }

    private static func measure(_ arguments: [String]) throws(BenchError) {
        if arguments.first == "file" { return try sendFile(arguments) }
        let isCommands = arguments.first == "commands"
        let options = try Options(
            arguments.dropFirst(), known: ["seconds", "rounds"] + (isCommands ? ["agents", "callers", "data-dir"] : []),
            switches: isCommands ? ["tls"] : [])
        let seconds = try options.number("seconds", 3)
        let rounds = try options.number("rounds", 3)
        say(Machine.description)
        switch arguments.first {
        case "echo": try EchoFigure.run(seconds: seconds, rounds: rounds)
        case "relay": try RelayFigure.run(seconds: seconds, rounds: rounds)
        case "commands":
            let agents = max(1, try options.number("agents", 100))
            let callers = max(1, try options.number("callers", 50))
            try CommandFigure(
                agents: agents, callers: callers, isSecure: options["tls"] != nil, seconds: seconds, rounds: rounds,
                dataDirectory: options["data-dir"]
            ).run()
        case "all":
            try EchoFigure.run(seconds: seconds, rounds: rounds)
            try CommandFigure(
                agents: 100, callers: 50, isSecure: false, seconds: seconds, rounds: rounds, dataDirectory: nil
            ).run()
        default: throw BenchError(status: 2, usage)
        }
    }

    /// The line that a starter waits for.
    static func announce(_ address: String, isSecure: Bool) {
        say("{\"event\":\"ready\",\"url\":\"\(isSecure ? "https" : "http")://\(address)\",\"pid\":\(getpid())}")
    }

    static func say(_ line: String) {
        let bytes = Array((line + "\n").utf8)
        _ = write(1, bytes, bytes.count)
    }
}

struct BenchError: Error {
    let status: Int32
    let message: String
    init(status: Int32, _ message: String) {
        self.status = status
        self.message = message
    }
}

/// `--name value` and switches.
struct Options {
    private var values: [String: String] = [:]

    init(_ arguments: some Sequence<String>, known: [String], switches: [String]) throws(BenchError) {
        var name: String?
        for argument in arguments {
            if let waiting = name {
                values[waiting] = argument
                name = nil
            } else if argument.hasPrefix("--"), switches.contains(String(argument.dropFirst(2))) {
                values[String(argument.dropFirst(2))] = "yes"
            } else if argument.hasPrefix("--"), known.contains(String(argument.dropFirst(2))) {
                name = String(argument.dropFirst(2))
            } else {
                throw BenchError(status: 2, "unknown argument \(argument)\n\(BenchCommand.usage)")
            }
        }
        if let name { throw BenchError(status: 2, "--\(name) needs a value\n\(BenchCommand.usage)") }
    }

    subscript(_ name: String) -> String? { values[name] }

    func number(_ name: String, _ standard: Int) throws(BenchError) -> Int {
        guard let text = values[name] else { return standard }
        guard let number = Int(text), number >= 0 else {
            throw BenchError(status: 2, "--\(name) must be a number, not \(text)\n")
        }
        return number
    }
}

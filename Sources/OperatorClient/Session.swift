import Glibc
import JSON
import Program

/// One run of `cmctl`: the console, the environment, and the core once a verb asks for it. Lives on one loop.
final class Session {
    let console: any Console
    let environment: [String: String]
    let isJSON: Bool
    let interrupts: Interrupts
    /// Suspends for that many milliseconds.
    let pause: (UInt64) async -> Void
    let files: LocalFiles
    private let resolve: (_ server: String?) throws(OperatorError) -> ServerChoice
    private let connect: (ServerChoice) throws(OperatorError) -> any APITransport
    private var connected: Core?

    init(
        console: any Console, environment: [String: String], isJSON: Bool, interrupts: Interrupts,
        files: LocalFiles, pause: @escaping (UInt64) async -> Void, resolve: @escaping (_ server: String?) throws(OperatorError) -> ServerChoice,
        connect: @escaping (ServerChoice) throws(OperatorError) -> any APITransport
    ) {
        self.console = console
        self.environment = environment
        self.isJSON = isJSON
        self.interrupts = interrupts
        self.files = files
        self.pause = pause
        self.resolve = resolve
        self.connect = connect
    }

    func core() throws(OperatorError) -> Core {
        if let connected { return connected }
        let choice = try resolve(nil)
        let core: Core
        if choice.refresh != nil, let path = SavedLogin.path(environment) {
            let transport = try RenewingTransport(choice, path: path, files: files, pause: pause, connect: connect)
            core = Core(transport: transport, server: choice.server)
        } else {
            core = try self.core(choice)
        }
        connected = core
        return core
    }

    /// - Parameter server: instead of the server that flags, variables or the saved file name.
    func choice(server: String? = nil) throws(OperatorError) -> ServerChoice { try resolve(server) }

    /// A connection to exactly this core.
    func core(_ choice: ServerChoice) throws(OperatorError) -> Core {
        Core(transport: try connect(choice), server: choice.server)
    }

    // MARK: Input

    /// Content of a file, or of standard input for `-`; at most 16 MiB.
    func content(_ path: String) throws(OperatorError) -> [UInt8] {
        let limit = 16 << 20
        if path == "-" { return console.readInput(limit: limit) }
        do throws(FileReadError) {
            return try readSmallFile(path, limit: limit)
        } catch {
            throw .usage("\(error)")
        }
    }

    func listLimit(_ flags: Flags) throws(OperatorError) -> Int {
        do throws(FlagError) {
            return try flags.integer("limit", in: 1...1_000_000) ?? 1_000
        } catch {
            throw .usage(error.detail)
        }
    }

    // MARK: Output

    func showList(_ items: [JSONValue], hasMore: Bool, _ columns: [Column]) {
        if isJSON {
            console.print(JSONValue.object(["items": .array(items), "more": .bool(hasMore)]).pretty())
            return
        }
        let width = console.outputIsTerminal ? console.columns : nil
        for line in Table.lines(items, columns, width: width) { console.print(line) }
        if hasMore { console.complain("There are more: raise --limit.") }
    }

    func showRecord(_ value: JSONValue) {
        if isJSON {
            console.print(value.pretty())
        } else if value != .null {
            for line in Table.record(value) { console.print(line) }
        }
    }

    /// Writes the body of an answer to standard output as it arrives.
    func pass(_ request: APIRequest) async throws(OperatorError) -> Outcome {
        let core = try core()
        let console = console
        var last: UInt8 = 0x0A
        let response = try await core.transport.stream(request) { piece throws(OperatorError) in
            console.write(piece, toError: false)
            last = piece.last ?? last
        }
        guard (200..<300).contains(response.status) else { throw core.failure(response, of: request) }
        if console.outputIsTerminal, last != 0x0A { console.print("") }
        return .success
    }
}

import JSON
import PluginKit

/// `/api/v1/terminal/sessions`. Whose sessions somebody may see, join or end:
/// his own; with "terminal.read" on the client, look at others'; with "terminal.manage", type in and end them.
struct SessionRoutes {
    private let host: Host
    private let sessions: Sessions
    private let executor: Executor

    init(_ host: Host, _ sessions: Sessions, _ executor: Executor) {
        self.host = host
        self.sessions = sessions
        self.executor = executor
    }

    func add() throws(PluginError) {
        let http = try host.http()
        let sessions = sessions
        let base = "/api/v1/terminal/sessions"

        try http.route(
            Route(.post, base, right: "terminal.open", summary: "Opens a terminal on a client.", operation: Operations.open)
        ) { request, body in
            Self.answer(request) { () throws(PluginError) in
                let wish = try Self.wish(body, sessions.settings)
                let session = try sessions.open(wish, for: request)
                request.respond(201, json: session.json)
            }
        }
        try http.route(
            Route(.get, base, right: "terminal.open", summary: "Open terminals that you may see.", operation: Operations.list)
        ) { request, _ in
            let items = sessions.all.filter { Self.maySee($0, request) }.sorted { $0.id < $1.id }.map(\.json)
            request.respond(json: ["items": .array(items), "next": .null] as JSONObject)
        }
        try http.route(
            Route(.get, base + "/{id}", right: "terminal.open", summary: "One terminal.", operation: Operations.show)
        ) { request, _ in
            Self.answer(request) { () throws(PluginError) in
                request.respond(json: try Self.session(request, sessions, Self.maySee).json)
            }
        }
        var end = Route(.delete, base + "/{id}", right: "terminal.open", summary: "Ends a terminal and all that runs in it.", operation: Operations.end)
        end.audit = "terminal.end"
        try http.route(end) { request, _ in
            Self.answer(request) { () throws(PluginError) in
                let session = try Self.session(request, sessions, Self.mayType)
                try sessions.attach(session, wanting: nil)
                session.close()
                request.respond(202, json: session.json)
            }
        }
        try http.route(
            Route(
                .post, base + "/{id}/ticket", right: "terminal.open",
                summary: "A ticket with which a browser attaches once within 30 s.", operation: Operations.ticket)
        ) { request, _ in
            Self.answer(request) { () throws(PluginError) in
                let session = try Self.session(request, sessions, Self.maySee)
                let path = base + "/\(session.id)/attach"
                let ticket = try request.ticket(for: path)
                request.respond(201, json: ["ticket": .string(ticket), "url": .string(path + "?ticket=" + ticket)] as JSONObject)
            }
        }
        try addAttach(http, base)
    }

    /// Bytes go through on the core's loops; who comes in is looked at on the plugin's thread.
    private func addAttach(_ http: HTTP, _ base: String) throws(PluginError) {
        let (sessions, executor) = (sessions, executor)
        var attach = Route(
            .webSocket, base + "/{id}/attach", right: "terminal.open",
            summary: "Attaches to a terminal: binary messages are output and keystrokes, texts are JSON.", operation: Operations.attach)
        attach.audit = "terminal.attach"
        attach.isInline = true
        attach.messageLimit = 32 << 10
        try http.route(attach) { request, _ in
            do throws(PluginError) {
                try executor.post { Self.attach(request, sessions, executor) }
            } catch {
                request.problem(503, "plugin-busy", "the terminal plugin has too much to do; try again")
            }
        }
    }

    private static func attach(_ request: Request, _ sessions: Sessions, _ executor: Executor) {
        answer(request) { () throws(PluginError) in
            let wanted = request.query("mode") ?? "typist"
            guard let mode = Viewer.Mode(rawValue: wanted) else {
                throw PluginError(.invalid, "mode is \"typist\" or \"viewer\", not \"\(wanted.prefix(32))\"", code: "invalid", httpStatus: 400)
            }
            let session = try session(request, sessions, mode == .typist ? mayType : maySee)
            let offset = try request.query("offset").map { (text) throws(PluginError) in
                guard let offset = UInt64(text) else {
                    throw PluginError(.invalid, "offset is a whole number of bytes, not \"\(text.prefix(32))\"", code: "invalid", httpStatus: 400)
                }
                return offset
            }
            let viewer = Viewer(mode: mode, actor: request.actor, joinedAt: executor.now, position: offset ?? 0)
            // First, so that what the viewer waits for is on its way when it comes in.
            if !session.isEnded { try sessions.attach(session, wanting: offset ?? 0) }
            let socket = try request.accept { handler in
                handler.message = { _, kind, payload in session.message(viewer, kind, payload) }
                handler.writable = { _ in session.writable(viewer) }
                handler.closed = { _, _, _ in session.leave(viewer) }
            }
            guard session.join(viewer, socket) else {
                socket.close(1013, "\(Session.maximumViewers) people are in this terminal already")
                return
            }
        }
    }

    // MARK: Who may

    private static func isOwn(_ session: Session, _ request: Request) -> Bool {
        let shape = session.shape
        return shape.owner == request.actor && request.may("terminal.open", client: shape.client)
    }

    private static func maySee(_ session: Session, _ request: Request) -> Bool {
        isOwn(session, request) || request.may("terminal.read", client: session.shape.client) || mayType(session, request)
    }

    private static func mayType(_ session: Session, _ request: Request) -> Bool {
        isOwn(session, request) || request.may("terminal.manage", client: session.shape.client)
    }

    private static func session(
        _ request: Request, _ sessions: Sessions, _ may: (Session, Request) -> Bool
    ) throws(PluginError) -> Session {
        let id = request.parameter("id") ?? ""
        // What somebody may not see is not there for him.
        guard let session = try sessions.find(id), maySee(session, request) else {
            throw PluginError(.notFound, "there is no terminal \"\(id.prefix(64))\"", code: "not-found", httpStatus: 404)
        }
        guard may(session, request) else {
            throw PluginError(.denied, "this needs the right \"terminal.manage\" on client \(session.shape.client)", code: "forbidden", httpStatus: 403)
        }
        return session
    }

    // MARK: Reading

    private static let members: Set<String> = [
        "client", "argv", "user", "environment", "working_directory", "terminal_type", "rows", "columns", "record", "idle_s",
        "maximum_s",
    ]

    private static func wish(_ body: RawSpan, _ settings: Settings) throws(PluginError) -> Sessions.Wish {
        let json: JSONValue
        do throws(JSONError) {
            json = try JSONValue(parsing: [UInt8](body), limits: JSONLimits(depth: 8, bytes: 1 << 20))
        } catch {
            throw invalid("the body is not JSON: \(error)")
        }
        guard var object = json.object else { throw invalid("the body must be a JSON object") }
        for member in object where !members.contains(member.key) {
            throw invalid("\"\(member.key.prefix(64))\" is not known; known are \(members.sorted().joined(separator: ", "))")
        }
        guard let client = object["client"]?.string else { throw invalid("\"client\" must be a client's id") }
        func number(_ name: String, _ normal: UInt64, _ range: ClosedRange<UInt64>) throws(PluginError) -> UInt64 {
            guard let value = json[name] else { return min(normal, range.upperBound) }
            guard let number = value.integer.flatMap({ UInt64(exactly: $0) }), range.contains(number) else {
                throw invalid("\"\(name)\" must be a whole number from \(range.lowerBound) to \(range.upperBound)")
            }
            return number
        }
        let rows = try number("rows", 24, 1...1_000)
        let columns = try number("columns", 80, 1...1_000)
        object["kind"] = "pty"
        object["inline"] = true
        object["lossy"] = true
        object["rows"] = .integer(Int64(rows))
        object["columns"] = .integer(Int64(columns))
        object["scrollback_bytes"] = .integer(Int64(clamping: settings.scrollbackBytes))
        object["idle_s"] = .integer(Int64(try number("idle_s", settings.idleSeconds, 1...settings.idleSeconds)))
        object["maximum_s"] = .integer(Int64(try number("maximum_s", settings.maximumSeconds, 1...settings.maximumSeconds)))
        let asked = object["record"]?.bool
        guard object["record"] == nil || asked != nil else { throw invalid("\"record\" must be true or false") }
        object["record"] = nil
        // The API's names, as commands have them, and those of a channel (`cm_channels.open`).
        for (name, member) in [("working_directory", "directory"), ("terminal_type", "terminal")] {
            guard let value = object[name] else { continue }
            guard value.string != nil else { throw invalid("\"\(name)\" must be a text") }
            object[name] = nil
            object[member] = value
        }
        let isRecorded: Bool
        switch settings.recording {
        case .always: isRecorded = true
        case .onRequest: isRecorded = asked ?? false
        case .never:
            guard asked != true else {
                throw PluginError(.denied, "recording is switched off (record: never)", code: "recording-off", httpStatus: 403)
            }
            isRecorded = false
        }
        return Sessions.Wish(
            client: client, specification: object, isRecorded: isRecorded, rows: Int(rows), columns: Int(columns),
            terminal: object["terminal"]?.string ?? "xterm-256color")
    }

    private static func invalid(_ text: String) -> PluginError { PluginError(.invalid, text, code: "invalid", httpStatus: 400) }

    /// Runs `body`; what it throws is the answer.
    static func answer(_ request: Request, _ body: () throws(PluginError) -> Void) {
        do throws(PluginError) {
            try body()
        } catch {
            request.problem(error)
        }
    }
}

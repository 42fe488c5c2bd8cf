import JSON
import PluginKit

/// `/api/v1/terminal/recordings`: what was recorded, as asciicast v2, with the hash that stands in the audit trail.
struct RecordingRoutes {
    private let sessions: Sessions
    init(_ sessions: Sessions) { self.sessions = sessions }

    func add(to http: HTTP) throws(PluginError) {
        let sessions = sessions
        let base = "/api/v1/terminal/recordings"
        try http.route(
            Route(.get, base, right: "terminal.read", summary: "Recordings that you may read.", operation: Operations.recordings)
        ) { request, _ in
            SessionRoutes.answer(request) { () throws(PluginError) in
                let (items, next) = try sessions.recordings(after: request.query("cursor") ?? "")
                let text = request.query("search")?.lowercased()
                let client = request.query("client")
                let shown = items.filter { item in
                    guard request.may("terminal.read", client: item["client"]?.string ?? "") else { return false }
                    if let client, item["client"]?.string != client { return false }
                    guard let text else { return true }
                    return ["owner", "program", "client", "id"].contains { Self.has(item[$0]?.string?.lowercased() ?? "", text) }
                }
                request.respond(
                    json: ["items": .array(shown.map { .object($0) }), "next": next.map { .string($0) } ?? .null] as JSONObject)
            }
        }
        var read = Route(
            .get, base + "/{id}", right: "terminal.read", summary: "One recording, asciicast v2.", operation: Operations.recording)
        read.audit = "terminal.recording-read"
        try http.route(read, configure: { handler in
            handler.writable = { request in Downloads.goOn(request, sessions) }
            handler.gone = { request in Downloads.drop(request) }
        }) { request, _ in
            SessionRoutes.answer(request) { () throws(PluginError) in
                let item = try Self.item(request, sessions)
                let size = item["bytes"]?.integer ?? 0
                guard request.begin(
                    200,
                    headers: [
                        ("content-type", "application/x-asciicast"), ("etag", "\"\(item["sha256"]?.string ?? "")\""),
                        ("content-disposition", "attachment; filename=\"\(item["id"]?.string ?? "").cast\""),
                    ], length: size)
                else { return }
                Downloads.begin(request, item["id"]?.string ?? "", sessions)
            }
        }
        var remove = Route(
            .delete, base + "/{id}", right: "terminal.manage", summary: "Removes a recording.", operation: Operations.removeRecording)
        remove.audit = "terminal.recording-remove"
        try http.route(remove) { request, _ in
            SessionRoutes.answer(request) { () throws(PluginError) in
                let item = try Self.item(request, sessions)
                try sessions.removeRecording(item["id"]?.string ?? "")
                request.respond(204)
            }
        }
    }

    private static func has(_ text: String, _ part: String) -> Bool {
        let (text, part) = (Array(text.utf8), Array(part.utf8))
        guard part.count <= text.count else { return false }
        return (0...(text.count - part.count)).contains { text[$0..<$0 + part.count].elementsEqual(part) }
    }

    private static func item(_ request: Request, _ sessions: Sessions) throws(PluginError) -> JSONObject {
        let id = request.parameter("id") ?? ""
        guard let item = try sessions.recording(id), request.may("terminal.read", client: item["client"]?.string ?? "") else {
            throw PluginError(.notFound, "there is no recording \"\(id.prefix(64))\"", code: "not-found", httpStatus: 404)
        }
        return item
    }
}

/// Recordings on their way to slow readers. Only on the plugin's own thread.
enum Downloads {
    private struct Download {
        let id: String
        var offset: UInt64 = 0
    }
    /// Unsafe: touched on the plugin's own thread alone, where every callback of these routes runs.
    nonisolated(unsafe) private static var under: [UInt64: Download] = [:]

    static func begin(_ request: Request, _ id: String, _ sessions: Sessions) {
        under[request.handle] = Download(id: id)
        goOn(request, sessions)
    }

    static func goOn(_ request: Request, _ sessions: Sessions) {
        while var download = under[request.handle] {
            guard let piece = try? sessions.read(download.id, from: download.offset) else {
                drop(request)
                request.abort()
                return
            }
            guard !piece.isEmpty else {
                drop(request)
                request.end()
                return
            }
            switch request.write(piece) {
            case .taken:
                download.offset += UInt64(piece.count)
                under[request.handle] = download
            case .busy: return
            case .gone: return drop(request)
            }
        }
    }

    static func drop(_ request: Request) { under[request.handle] = nil }
}

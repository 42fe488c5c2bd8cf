import JSON
import Kernel
import Web

func outputRoutes(_ access: CommandAccess) -> [Route] {
    let commands = access.commands
    let stream = Route.Parameter.query("stream", .choice(["stdout", "stderr"], "Default: stdout."))
    return [
        Route(
            .get, "/api/v1/commands/{id}/targets/{client}/output", right: .readOutput,
            "A range of one output stream, while the command runs and afterwards.",
            query: [
                stream, .query("offset", .integer("First byte.")),
                .query("limit", .integer("Most bytes; at most 262144.", in: 1...262_144)),
            ],
            answers: [
                Route.Answer(
                    200, "The bytes as text, or as base 64 where they are not UTF-8.",
                    .object([
                        .required("stream", .string()), .required("offset", .integer()), .optional("text", .string()),
                        .optional("text_base64", .string()), .required("next", .integer("Offset of the next byte.")),
                        .required("length", .integer("Of the stream so far.")),
                        .required("complete", .boolean("The target has ended.")),
                    ]))
            ], auditedRead: "output.read"
        ) { (request) async throws(Problem) in
            let (id, client) = try await access.target(request, .readOutput)
            let stream = outputStream(request)
            let offset = UInt64(clamping: request.query.integer("offset") ?? 0)
            let piece = try await commands.readOutput(
                id, of: client, stream, at: offset, count: Int(request.query.integer("limit") ?? 65_536))
            var writer = JSONWriter(reserving: piece.bytes.count + 256)
            writer.object { writer in
                writer.field("stream", stream == .standardOutput ? "stdout" : "stderr")
                writer.field("offset", offset)
                writer.bytes("text", piece.bytes)
                writer.field("next", offset + UInt64(piece.bytes.count))
                writer.field("length", piece.length)
                writer.field("complete", piece.isComplete)
            }
            return .json(bytes: writer.finish())
        },
        Route(
            .get, "/api/v1/commands/{id}/targets/{client}/output/raw", right: .readOutput,
            "One output stream as it is, from an offset to the present end.",
            query: [stream, .query("offset", .integer("First byte."))],
            answers: [Route.Answer(200, "The bytes.", nil, contentType: "application/octet-stream")],
            auditedRead: "output.read"
        ) { (request) async throws(Problem) in
            let (id, client) = try await access.target(request, .readOutput)
            let stream = outputStream(request)
            let start = UInt64(clamping: request.query.integer("offset") ?? 0)
            let handle = try await commands.openOutput(id, of: client)
            let first = try await commands.readOutput(handle, stream, at: start, count: downloadPiece)
            let end = max(start, first.length)
            return .stream(contentType: "application/octet-stream", length: end - start) {
                (writer) async throws(StreamClosed) in
                var offset = start
                var piece = first.bytes
                while !piece.isEmpty {
                    try await writer.write(piece)
                    offset += UInt64(piece.count)
                    guard offset < end else { return }
                    // A read that fails now can only be told by ending the body early.
                    let count = Int(min(UInt64(downloadPiece), end - offset))
                    let next = try? await commands.readOutput(handle, stream, at: offset, count: count)
                    guard let next, !next.bytes.isEmpty else { throw StreamClosed() }
                    piece = next.bytes
                }
            }
        },
        Route(
            .get, "/api/v1/commands/{id}/targets/{client}/result", right: .readOutput,
            "The typed result of a template that has one.",
            answers: [
                Route.Answer(
                    200, "The result.",
                    .object([.required("template", .string()), .required("parser", .string()), .required("result", .any())]))
            ], auditedRead: "output.read"
        ) { (request) async throws(Problem) in
            let (id, client) = try await access.target(request, .readOutput)
            let result = try await commands.typedResult(id, of: client)
            return .json(["template": .string(result.template), "parser": .string(result.parser.rawValue), "result": result.value])
        },
    ]
}

/// A reader that stops holds one of these and what the connection takes beyond it.
private let downloadPiece = 64 << 10

private func outputStream(_ request: Request) -> OutputStream {
    request.query["stream"] == "stderr" ? .standardError : .standardOutput
}

/// `GET /api/v1/commands/{id}/watch`: live states and output by server-sent events, pulled by offset.
///
/// The id of each event is `<client>:<stdout offset>:<stderr offset>` of the newest output; a reader that comes back
/// with `Last-Event-ID` gets the output of that client from there on, and everything else from the start.
func watchRoute(_ access: CommandAccess) -> Route {
    let commands = access.commands
    return Route(
        .get, "/api/v1/commands/{id}/watch", right: .readOutput,
        "Follows a command: events command, target and output, until it has ended.",
        query: [.query("output", .boolean("false: states only."))],
        answers: [Route.Answer(200, "Server-sent events.", nil, contentType: "text/event-stream")],
        auditedRead: "output.read"
    ) { (request) async throws(Problem) in
        let detail = try await access.detail(request, .readOutput)
        let permitted = try await access.narrowed(detail, nil, .readOutput, request.principal).map(Set.init)
        var watch = try await commands.watch(
            detail.summary.id, withOutput: request.query.bool("output") ?? true,
            skip: lastPosition(request.headers["last-event-id"]))
        let first = try await watch.next(waitMilliseconds: 0)
        let started = watch
        return .events { (stream) async throws(StreamClosed) in
            var watch = started
            var items = first
            var idleRounds = 0
            while true {
                for item in items { try await send(item, permitted, watch, stream) }
                if watch.isEnded { return }
                do throws(Problem) { items = try await watch.next(waitMilliseconds: 2_000) } catch {
                    throw StreamClosed()
                }
                idleRounds = items.isEmpty ? idleRounds + 1 : 0
                if idleRounds == 8, !watch.isEnded {
                    idleRounds = 0
                    try await stream.keepAlive()
                }
            }
        }
    }
}

private func send(
    _ item: CommandWatch.Item, _ permitted: Set<ClientID>?, _ watch: CommandWatch, _ stream: EventStream
) async throws(StreamClosed) {
    var writer = JSONWriter(reserving: 256)
    switch item {
    case .output(let client, let which, let offset, let bytes):
        guard permitted?.contains(client) ?? true else { return }
        writer.object { writer in
            writer.field("client", client.description)
            writer.field("stream", which == .standardOutput ? "stdout" : "stderr")
            writer.field("offset", offset)
            writer.bytes("text", bytes)
        }
        let position = watch.position(of: client)
        let id = position.map { "\(client):\($0.output):\($0.errors)" }
        try await stream.send(event: "output", id: id, data: writer.finish())
    case .target(let view):
        guard permitted?.contains(view.client) ?? true else { return }
        var none = 0
        CommandWriting.target(view, showsOutput: false, &none, &writer)
        try await stream.send(event: "target", data: writer.finish())
    case .command(let id, let isFinished, let counts, let targetCount):
        writer.object { writer in
            writer.field("id", id.description)
            writer.field("state", isFinished ? "finished" : "running")
            writer.field("target_count", targetCount)
            CommandWriting.counts(counts, of: targetCount, &writer)
        }
        try await stream.send(event: "command", data: writer.finish())
    }
}

private func lastPosition(_ id: String?) -> [ClientID: StreamPair<UInt64>] {
    let parts = id?.split(separator: ":") ?? []
    guard parts.count == 3, let client = ClientID(parts[0]), let output = UInt64(parts[1]), let errors = UInt64(parts[2])
    else { return [:] }
    return [client: StreamPair(output, errors)]
}

import AgentProtocol
import JSON

/// A command with targets and results, as the answer to a submit or a look.
public struct CommandAnswer: Sendable {
    public var id: CommandID
    public var targetCount: Int
    public var counts: OutcomeCounts
    public var isFinished: Bool
    /// False when an idempotency key led to an earlier command.
    public var isNew: Bool
    /// The first targets in the order of the command.
    public var targets: [TargetView]
    /// Index of the first target that is not in `targets`; `nil` when all are.
    public var next: Int?
}

/// Looking at commands. Ends come from the database, so what is shown as ended is durable; states on the way come from
/// the book.
extension Commands {
    /// Targets of one page.
    public static let pageTargets = 10_000

    /// Submits, waits as the request says, and answers with the targets as they are then.
    public func run(_ request: CommandRequest, _ principal: Principal) async throws(Problem) -> CommandAnswer {
        let acceptance = try await submit(request, principal)
        return try await answer(acceptance, waitMilliseconds: request.waitMilliseconds)
    }

    public func answer(
        _ acceptance: Acceptance, waitMilliseconds: UInt64
    ) async throws(Problem) -> CommandAnswer {
        if let live = acceptance.live {
            await wait(for: live, milliseconds: waitMilliseconds)
            if let answer = quickAnswer(live, isNew: acceptance.isNew) { return answer }
        }
        guard let detail = try await history.detail(acceptance.id) else { throw Self.unknown(acceptance.id) }
        let views = try await targets(detail, from: 0, limit: Self.pageTargets, withOutput: true)
        return CommandAnswer(
            id: acceptance.id, targetCount: detail.summary.targetCount, counts: detail.summary.counts,
            isFinished: detail.summary.isFinished, isNew: acceptance.isNew, targets: views,
            next: views.count < detail.summary.targetCount ? views.count : nil)
    }

    /// The answer from memory, when the command has few targets: the hot path reads no row back.
    private func quickAnswer(_ live: LiveCommand, isNew: Bool) -> CommandAnswer? {
        state.withLock { _ in
            guard live.targets.count <= LiveCommand.keptResults else { return nil }
            var views: [TargetView] = []
            views.reserveCapacity(live.targets.count)
            // By index: an iterator would copy each target, field by field.
            for index in live.targets.indices {
                let result = live.targets[index].result
                if case .ended = live.targets[index].machine.phase, result == nil { return nil }
                views.append(
                    TargetView(
                        client: live.targets[index].client, state: live.targets[index].machine.name, end: result?.end,
                        output: result?.output ?? live.targets[index].output.map { OutputSummary(lengthsOf: $0) }))
            }
            return CommandAnswer(
                id: live.id, targetCount: live.targets.count, counts: live.recorded, isFinished: live.isFinished,
                isNew: isNew, targets: views, next: nil)
        }
    }

    /// - Throws: 404 `command-unknown`.
    public func get(_ id: CommandID) async throws(Problem) -> CommandDetail {
        guard let detail = try await history.detail(id) else { throw Self.unknown(id) }
        return detail
    }

    public func list(_ query: CommandQuery) async throws(Problem) -> CommandPage { try await history.list(query) }

    /// Targets from index `from` on, with their present states.
    public func targets(
        _ detail: CommandDetail, from: Int, limit: Int, withOutput: Bool
    ) async throws(Problem) -> [TargetView] {
        guard from < detail.summary.targetCount else { return [] }
        var views = try await history.targets(
            detail, from: max(0, from), limit: min(max(1, limit), Self.pageTargets), withOutput: withOutput)
        overlay(&views, detail.summary.id, from)
        return views
    }

    /// - Throws: 404 when the command is unknown or was not for this client.
    public func target(_ id: CommandID, of client: ClientID) async throws(Problem) -> TargetView {
        let detail = try await get(id)
        guard let view = try await history.target(detail, of: client) else { throw Self.notATarget(id, client) }
        guard view.end == nil else { return view }
        return state.withLock { state in
            guard let command = state.book.commands[id],
                let target = command.targets.first(where: { $0.client == client }), target.machine.isOpen
            else { return view }
            return Self.view(target)
        }
    }

    static func notATarget(_ id: CommandID, _ client: ClientID) -> Problem {
        Problem(404, "target-unknown", "command \(id) was not for client \(client)")
    }

    static func view(_ target: LiveTarget) -> TargetView {
        TargetView(
            client: target.client, state: target.machine.name, output: target.output.map { OutputSummary(lengthsOf: $0) })
    }

    private func overlay(_ views: inout [TargetView], _ id: CommandID, _ from: Int) {
        var changed = views
        state.withLock { state in
            guard let command = state.book.commands[id] else { return }
            for index in changed.indices where changed[index].end == nil && from + index < command.targets.count {
                let target = command.targets[from + index]
                if case .ended = target.machine.phase { continue }
                changed[index] = Self.view(target)
            }
        }
        views = changed
    }

    /// Where the output of a target is read.
    /// - Throws: 404.
    public func openOutput(_ id: CommandID, of client: ClientID) async throws(Problem) -> OutputHandle {
        let live = state.withLock { state -> OutputHandle? in
            guard let command = state.book.commands[id],
                let target = command.targets.first(where: { $0.client == client }), target.machine.isOpen
            else { return nil }
            return OutputHandle(source: target.output.map { .live($0) }, isComplete: false)
        }
        if let live { return live }
        let view = try await target(id, of: client)
        return OutputHandle(source: view.output.map { .kept($0) }, isComplete: view.end != nil, archived: view.archived)
    }

    /// Bytes of an output stream from `offset` on, at most `count`.
    /// - Throws: 410 `output-expired`, or `output-archived` with the place where it is; 503 `output-busy`.
    public func readOutput(
        _ handle: OutputHandle, _ stream: OutputStream, at offset: UInt64, count: Int
    ) async throws(Problem) -> OutputPiece {
        guard let source = handle.source else { return OutputPiece(bytes: [], length: 0, isComplete: handle.isComplete) }
        let bytes: [UInt8]
        do throws(Problem) { bytes = try await outputs.read(source, stream, at: offset, count: count) } catch {
            throw error.code == "output-expired" ? handle.archived?.object(stream)?.elsewhere ?? error : error
        }
        return OutputPiece(bytes: bytes, length: source.length(stream), isComplete: handle.isComplete)
    }

    /// The same for one look.
    public func readOutput(
        _ id: CommandID, of client: ClientID, _ stream: OutputStream, at offset: UInt64, count: Int
    ) async throws(Problem) -> OutputPiece {
        try await readOutput(try await openOutput(id, of: client), stream, at: offset, count: count)
    }
}

/// The output of one target as it was found: running (then it may grow) or ended.
public struct OutputHandle: Sendable {
    let source: OutputSource?
    public let isComplete: Bool
    var archived: ArchivedOutput?
}

extension ArchivedObject {
    /// What a reader is told of output that is only there.
    var elsewhere: Problem {
        var problem = Problem(
            410, "output-archived",
            "this output was removed by the retention of outputs; its \(bytes) bytes are in remote \"\(remote)\" as \"\(key)\"")
        problem.archived = self
        return problem
    }
}

extension Commands {
    /// The typed result of a target whose command came from a template with a parser.
    /// - Throws: 404 `no-typed-result` when there is none; 409 `not-finished`.
    public func typedResult(
        _ id: CommandID, of client: ClientID
    ) async throws(Problem) -> (template: String, parser: ResultParser, value: JSONValue) {
        guard let specification = try await history.specification(id) else { throw Self.unknown(id) }
        guard let reference = specification.template,
            let parser = try await templates.get(reference.name, version: reference.version).result
        else {
            throw Problem(404, "no-typed-result", "command \(id) was not made from a template with a typed result")
        }
        let state = try await target(id, of: client).end?.state
        guard state == nil || state == .succeeded else {
            throw Problem(404, "no-typed-result", "the target did not succeed: read its output as text")
        }
        var bytes: [UInt8] = []
        while bytes.count <= ResultParser.limit {
            let piece = try await readOutput(
                id, of: client, .standardOutput, at: UInt64(bytes.count), count: OutputStore.readBytes)
            guard piece.isComplete else {
                throw .conflict("not-finished", "the target has not ended: its result is not complete")
            }
            if piece.bytes.isEmpty { break }
            bytes += piece.bytes
        }
        guard let value = parser.parse(bytes) else {
            throw Problem(404, "no-typed-result", "the output is not what \(reference.name) expects: read it as text")
        }
        return (reference.name, parser, value)
    }
}

/// A piece of output.
public struct OutputPiece: Sendable {
    public var bytes: [UInt8]
    /// Of the whole stream as it stands.
    public var length: UInt64
    /// The target has ended: the stream will not grow.
    public var isComplete: Bool
}

extension OutputSummary {
    /// How much there is so far; the bytes themselves are read by offset.
    init(lengthsOf output: LiveOutput) {
        self.init()
        inline = nil
        self.output = output.readable(.standardOutput)
        errors = output.readable(.standardError)
    }
}

import JSON
import Reactor

/// Follows one command to its end: writes output as it comes, shows progress, cancels on Ctrl-C, and comes back when the
/// connection is lost. The command does not depend on it.
final class ExecRun {
    private let session: Session
    private let core: Core
    private let command: String
    /// No output of the clients.
    private let isQuiet: Bool
    private let console: any Console

    private var state: ExecStateMachine
    private var stream = EventStreamStateMachine()
    private var lines: OutputLines
    /// For `--output json`: what the clients wrote goes into the one answer at the end.
    private var collected = OutputCollection()
    /// Display names by id, asked for when several clients write.
    private var names: [String: String]?
    private var interruptions = 0
    private var progressIsShown = false
    private var nextProgress: UInt64 = 0

    init(_ session: Session, core: Core, command: String, targets: Int64, isQuiet: Bool) {
        state = ExecStateMachine(total: targets)
        self.session = session
        self.core = core
        self.command = command
        self.isQuiet = isQuiet
        console = session.console
        lines = OutputLines(usesColour: console.usesColour, isGuarded: console.outputIsTerminal)
    }

    func follow() async throws(OperatorError) -> Outcome {
        session.interrupts.handler = { [self] in
            interruptions += 1
            core.transport.interrupt()
        }
        defer { session.interrupts.handler = nil }
        try await watch()
        clearProgress()
        return try await conclude()
    }

    // MARK: Watching

    private func watch() async throws(OperatorError) {
        let attempts = 8
        var failures = 0
        var cancelled = false
        while !state.isFinished {
            do throws(OperatorError) {
                try await watchOnce(progressed: { failures = 0 })
            } catch {
                guard error.status == .unreachable else { throw error }
                if interruptions == 0 || cancelled {
                    failures += 1
                    if failures >= attempts { throw lost(error) }
                }
            }
            if interruptions > 1 {
                throw OperatorError(
                    .remoteFailure, "interrupted; the command is being cancelled",
                    advice: "'cmctl commands show \(command)' tells how it ended.")
            }
            if interruptions == 1, !cancelled {
                clearProgress()
                console.complain("Cancelling \(command) …")
                _ = try await core.post("/api/v1/commands/\(command)/cancel")
                cancelled = true
            } else if !state.isFinished {
                await session.pause(UInt64(100) << UInt64(min(failures, 5)))
            }
        }
    }

    private func lost(_ error: OperatorError) -> OperatorError {
        OperatorError(
            .unreachable, "lost the core while the command runs: \(error.what)",
            advice: "The command goes on. 'cmctl commands follow \(command)' shows its output from the start.")
    }

    private func watchOnce(progressed: () -> Void) async throws(OperatorError) {
        stream.restart()
        var request = APIRequest("GET", "/api/v1/commands/\(command)/watch")
        request.headers = [(name: "accept", value: "text/event-stream")]
        if let id = stream.lastID { request.headers.append((name: "last-event-id", value: id)) }
        let response = try await core.transport.stream(request) { piece throws(OperatorError) in
            progressed()
            guard let events = stream.feed(piece) else {
                throw OperatorError(.remoteFailure, "the core sent an event of more than \(EventStreamStateMachine.longestEvent) bytes")
            }
            for event in events { try await take(event) }
            showProgress()
        }
        if response.status == 403 {
            return try await poll()
        }
        guard (200..<300).contains(response.status) else { throw core.failure(response, of: request) }
    }

    /// For those who may run commands but not read their output.
    private func poll() async throws(OperatorError) {
        console.complain("You may not read output here; waiting for the end.")
        while !state.isFinished, interruptions == 0 {
            let shown = try await core.get("/api/v1/commands/\(command)")
            _ = state.event("command", shown)
            if !state.isFinished { await session.pause(500) }
        }
    }

    private func take(_ event: EventStreamStateMachine.Event) async throws(OperatorError) {
        let data: JSONValue
        do throws(JSONError) {
            data = try JSONValue(parsing: event.data)
        } catch {
            throw OperatorError(.remoteFailure, "the core sent an event that is not JSON: \(error)")
        }
        let actions = state.event(event.name, data)
        if names == nil, state.total > 1, !isQuiet, !session.isJSON { names = await loadNames() }
        for action in actions {
            switch action {
            case .output(let bytes, let client, let isError): show(bytes, client, isError)
            case .ended(let client): end(client)
            }
        }
    }

    // MARK: Showing

    /// Names are a comfort: who may not read them sees ids.
    private func loadNames() async -> [String: String] {
        let request = APIRequest("GET", "/api/v1/commands/\(command)")
        guard let shown = try? await core.call(request), let selector = shown["selector"]?.string else { return [:] }
        var list = APIRequest("GET", "/api/v1/clients")
        list.query = [(name: "selector", value: selector), (name: "limit", value: "1000")]
        guard let (clients, _) = try? await core.list(list, limit: 10_000) else { return [:] }
        return ClientNames.short(clients)
    }

    private func name(_ client: String) -> String { Table.printable(names?[client] ?? client) }

    /// The output of a single client is passed on as it is.
    private var isSingle: Bool { state.total == 1 }

    private func show(_ bytes: [UInt8], _ client: String, _ isError: Bool) {
        guard !isQuiet else { return }
        if session.isJSON { return collected.add(bytes, client, isError) }
        clearProgress()
        if isSingle {
            console.write(bytes, toError: isError)
        } else {
            let whole = lines.add(bytes, of: OutputLines.Stream(client: client, isError: isError), name: name(client))
            if !whole.isEmpty { console.write(whole, toError: isError) }
        }
    }

    private func end(_ client: String) {
        guard !session.isJSON, let target = state.targets[client] else { return }
        clearProgress()
        for (bytes, isError) in lines.end(client, name: name(client)) where !isQuiet {
            console.write(bytes, toError: isError)
        }
        guard target.state != "succeeded" else { return }
        var text = target.state
        if target.state == "failed", let code = target.exitCode { text = "exit status \(code)" }
        if let detail = target.detail { text += ": " + Table.printable(detail) }
        console.complain("\(name(client)): \(text)")
    }

    private func showProgress() {
        guard console.errorIsTerminal, !isSingle else { return }
        let now = monotonicNanoseconds()
        guard now >= nextProgress else { return }
        nextProgress = now + 100_000_000
        progressIsShown = true
        console.write(Array("\r\u{1B}[K\(state.progress.prefix(max(console.columns - 1, 10)))".utf8), toError: true)
    }

    private func clearProgress() {
        guard progressIsShown else { return }
        progressIsShown = false
        console.write(Array("\r\u{1B}[K".utf8), toError: true)
    }

    // MARK: The end

    private func conclude() async throws(OperatorError) -> Outcome {
        var request = APIRequest("GET", "/api/v1/commands/\(command)/targets")
        request.query = [(name: "limit", value: "1000")]
        let (targets, _) = try await core.list(request, limit: 1_000_000)
        let states = targets.compactMap { $0["state"]?.string }
        if session.isJSON {
            session.showRecord([
                "command": .string(command), "state": .string(state.commandState),
                "targets": .array(isQuiet ? targets : targets.map { collected.joined(to: $0) }),
            ])
        } else if states.count != 1 {
            let counts = Dictionary(grouping: states) { $0 }.map { "\($0.value.count) \($0.key)" }.sorted()
            console.complain("\(states.count) targets: " + counts.joined(separator: ", "))
        }
        return ExecStateMachine.status(ofStates: states)
    }
}

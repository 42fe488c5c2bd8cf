import AgentProtocol
import JSON
import Reactor

/// The job kinds `command` and `template`: a command that is run later, or again and again.
///
/// At most once: the command is accepted under an idempotency key of its own for each attempt, so whatever happens
/// between the job and the command, asking again finds the same command. Its targets run on at their agents while the
/// core is away; the next start takes the attempt up again.
public struct CommandJobs: Sendable {
    /// Reads the body of `POST /api/v1/commands`.
    public typealias Reading = @Sendable (_ body: [UInt8]) throws(Problem) -> CommandRequest

    private let jobs: Jobs
    private let commands: Commands
    private let security: Security
    private let arguments: JSONValue
    private let read: Reading

    /// - Parameter arguments: what `read` takes, as a JSON Schema.
    public init(
        jobs: Jobs, commands: Commands, security: Security, arguments: JSONValue, read: @escaping Reading
    ) {
        self.arguments = arguments
        self.jobs = jobs
        self.commands = commands
        self.security = security
        self.read = read
    }

    /// Before `Jobs.start`, so that attempts of the last run are taken up again.
    public func register() throws(Problem) {
        try jobs.register(kind("command", "Runs a command on the clients that the selector then means.", isTemplate: false))
        try jobs.register(kind("template", "Runs a template on the clients that the selector then means.", isTemplate: true))
    }

    private func kind(_ name: String, _ summary: String, isTemplate: Bool) -> JobKind {
        var kind = JobKind(
            name, summary, .atMostOnce,
            check: { (arguments, principal) async throws(Problem) in
                try await check(arguments, principal, isTemplate: isTemplate)
            }, work: .task { lease in await run(lease) })
        kind.arguments = .documented(arguments)
        kind.concurrency = 32
        kind.timeoutMilliseconds = 86_400_000
        kind.cancel = { lease in EventLoop.current?.spawn { await cancel(lease) } }
        kind.reattach = { lease in await takeUp(lease) }
        return kind
    }

    // MARK: Accept

    private func check(
        _ arguments: JSONValue, _ principal: Principal, isTemplate: Bool
    ) async throws(Problem) -> String {
        guard principal.kind != .agent, principal.kind != .system else {
            throw .forbidden("commands are run in the name of a user, a token or an outside identity")
        }
        let request = try read(arguments.serialized())
        guard request.waitMilliseconds == 0 else {
            throw .invalid("a job does not answer: leave out \"wait_s\"", pointer: "/arguments/wait_s")
        }
        try request.validate(commands.limits)
        let (invocation, title): (Invocation, String)
        switch (request.work, isTemplate) {
        case (.invocation(let given), false):
            try given.validate(commands.limits, others: 1_024)
            switch given {
            case .argv(let argv): title = argv.joined(separator: " ")
            case .shell(let text): title = text
            case .script(let interpreter, _, let words): title = (interpreter + ["(script)"] + words).joined(separator: " ")
            }
            invocation = given
        case (.template(let name, let version, let parameters), true):
            invocation = try await commands.templates.get(name, version: version).invocation(parameters)
            title = "template " + name
        case (_, true):
            throw .invalid("a job of kind \"template\" needs \"template\"; others are of kind \"command\"", pointer: "/arguments")
        case (_, false):
            throw .invalid("a \"template\" is run by a job of kind \"template\"", pointer: "/arguments/template")
        }
        // Nothing that nobody would be allowed to run is kept for later; where it may run is decided then.
        _ = try security.commandScope(principal, PolicySubject(invocation))
        let cut = title.utf8.count <= 160 ? title : String(decoding: title.utf8.prefix(157), as: UTF8.self) + "…"
        switch request.selection {
        case .selector(let text): return "\(cut) on \(text.prefix(80))"
        case .clients(let clients): return "\(cut) on \(clients.count) clients"
        }
    }

    // MARK: Run

    private static func key(_ lease: JobLease) -> String { "job:\(lease.job):\(lease.attempt)" }

    private func run(_ lease: JobLease) async -> JobOutcome {
        guard !jobs.isAskedToEnd(lease) else { return .cancelled }
        let id: CommandID
        do throws(Problem) {
            id = try await accept(lease)
        } catch {
            let isBusy = error.status == 429 || error.status == 503
            return .failed(code: error.code, reason: error.detail, again: isBusy ? .nothingWasDone : .never)
        }
        // From here on the command runs, and nothing that fails on this side may let it run again.
        let mark: JSONValue = ["attempt": .integer(Int64(lease.attempt)), "command": .string(id.description)]
        try? await jobs.checkpoint(lease, mark.serialized())
        try? await jobs.log(lease, .info, "command \(id) accepted")
        if jobs.isAskedToEnd(lease) { await cancel(lease) }
        return await follow(id, lease)
    }

    /// - Throws: only where certainly no command was accepted.
    private func accept(_ lease: JobLease) async throws(Problem) -> CommandID {
        let body = lease.arguments.serialized()
        var request = try read(body)
        request.idempotencyKey = IdempotencyKey(key: Self.key(lease), request: body)
        let owner = try security.present(lease.owner, correlation: lease.job.description)
        do throws(Problem) {
            return try await commands.submit(request, owner).id
        } catch {
            // The answer to a submit can get lost where the command did not.
            guard let known = await surely({ () throws(Problem) in try await command(lease) }) ?? nil else { throw error }
            return known
        }
    }

    /// Asks until the store answers; `nil` when the core stops first, and the next one takes the attempt up again.
    private func surely<Answer>(_ ask: () async throws(Problem) -> Answer) async -> Answer? {
        while !jobs.isStopped {
            do throws(Problem) {
                return try await ask()
            } catch {
                guard error.status >= 500 else { return nil }
                await EventLoop.current?.sleep(milliseconds: 1_000)
            }
        }
        return nil
    }

    /// The command that this attempt has become.
    private func command(_ lease: JobLease) async throws(Problem) -> CommandID? {
        if let mark = try await jobs.get(lease.job).checkpoint.flatMap({ try? JSONValue(parsing: $0) }),
            mark["attempt"]?.integer == Int64(lease.attempt), let id = mark["command"]?.string.flatMap({ CommandID($0) }) {
            return id
        }
        return try await commands.accepted(key: Self.key(lease), lease.owner)
    }

    /// After a restart of the core: `nil` when nobody can know any more what became of it.
    private func takeUp(_ lease: JobLease) async -> JobOutcome? {
        guard let found = await surely({ () throws(Problem) in try await command(lease) }) else { return nil }
        guard let id = found else {
            // As long as keys are remembered, none means that no command was accepted: whoever would have asked for it
            // has died.
            let age = jobs.now() - min(jobs.now(), lease.begunAt)
            guard age < commands.limits.idempotencyMilliseconds / 2 else { return nil }
            return .notBegun(reason: "the core ended before the command was accepted")
        }
        try? await jobs.log(lease, .info, "the core was restarted; command \(id) goes on")
        if jobs.isAskedToEnd(lease) { await cancel(lease) }
        return await follow(id, lease)
    }

    /// Until the last target has ended.
    private func follow(_ id: CommandID, _ lease: JobLease) async -> JobOutcome {
        while true {
            let summary: CommandSummary
            do throws(Problem) {
                summary = try await commands.get(id).summary
            } catch {
                guard error.status >= 500 else { return .failed(code: error.code, reason: error.detail, again: .never) }
                // The core stops: the next one takes the attempt up again, and this outcome is written nowhere.
                guard !jobs.isStopped else { return .cancelled }
                await EventLoop.current?.sleep(milliseconds: 1_000)
                continue
            }
            let total = UInt64(clamping: summary.targetCount)
            try? jobs.progress(
                lease, JobProgress(done: UInt64(clamping: summary.counts.total), total: total, text: "command \(id)"))
            guard !summary.isFinished else { return outcome(summary, lease) }
            guard !commands.isStopped, !jobs.isStopped else { return .cancelled }
            await commands.wait(for: id, milliseconds: 5_000)
        }
    }

    private func outcome(_ summary: CommandSummary, _ lease: JobLease) -> JobOutcome {
        var counts = JSONObject()
        var text: [String] = []
        for state in FinalState.allCases where summary.counts[state] > 0 {
            counts[state.name] = .integer(Int64(summary.counts[state]))
            text.append("\(summary.counts[state]) \(state.name)")
        }
        if summary.counts[.succeeded] == summary.targetCount {
            let result: JSONValue = ["command": .string(summary.id.description), "counts": .object(counts)]
            return .succeeded(result: result.serialized())
        }
        if jobs.isAskedToEnd(lease) { return .cancelled }
        return .failed(
            code: "targets-failed", reason: "command \(summary.id): \(text.joined(separator: ", "))", again: .never)
    }

    private func cancel(_ lease: JobLease) async {
        let principal = Principal(kind: .system, id: "jobs", correlation: lease.job.description)
        do throws(Problem) {
            guard let id = try await command(lease) else { return }
            try await commands.cancel(id, principal)
        } catch {
            jobs.report(error)
        }
    }
}

extension Commands {
    /// The command that was accepted under an idempotency key; keys are remembered for a day.
    func accepted(key: String, _ owner: JobOwner) async throws(Problem) -> CommandID? {
        let principal = owner.kind.rawValue + ":" + owner.id
        return try await journal.store.read { (reader) throws(StoreError) in
            try reader.first("SELECT seq, low FROM command_keys WHERE principal = ? AND key = ?", principal, key) {
                (row) throws(StoreError) in
                CommandID(high: row.unsigned(0), low: UInt64(bitPattern: row.integer(1)))
            }
        }
    }

    /// Returns when the command has ended altogether or the time is over.
    func wait(for id: CommandID, milliseconds: UInt64) async {
        guard let live = state.withLock({ $0.book.commands[id] }) else { return }
        await wait(for: live, milliseconds: milliseconds)
    }
}

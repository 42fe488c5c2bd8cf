import AgentProtocol
import JSON
import Reactor
import Synchronization
import System

/// Commands from the request to the last durable end. Functions may be called on any loop.
///
/// The book (memory) and the journal (disk) are kept in step by one rule: what the book decides becomes visible to the
/// outside only after the journal has it. Locks are held for book-keeping only, never across an await or a send.
public final class Commands: Sendable {
    public let limits: CommandLimits
    public let outputs: OutputStore
    public let filters = OutputFilters()
    let journal: CommandJournal
    let history: CommandHistory
    let authority: any CommandAuthority
    let templates: Templates
    let numbers: CommandNumbers
    let observers: CommandObservers
    let now: @Sendable () -> UInt64
    let retention = Mutex(CommandRetention())
    let archiveWaits = Mutex(false)
    private let secretsMemory = CommandSecretsMemory()

    struct State {
        var book: CommandBook
        /// Ends that the database refused; the next tick tries them again.
        var unrecorded: [DecidedEnd] = []
        /// First targets of commands that are between their numbers and the book.
        var accepting: [Int64] = []
        var isStopped = false
    }
    let state: Mutex<State>

    /// What Commands is made of.
    public struct Parts: Sendable {
        public var store: Store
        public var outputs: OutputStore
        public var authority: any CommandAuthority
        public var templates: Templates
        public var limits = CommandLimits()
        public var observers = CommandObservers()
        /// Unix milliseconds.
        public var now: @Sendable () -> UInt64 = { unixMilliseconds() }
        /// For the ids.
        public var random: @Sendable () -> UInt64 = RandomNumbers().next

        public init(store: Store, outputs: OutputStore, authority: any CommandAuthority, templates: Templates) {
            self.store = store
            self.outputs = outputs
            self.authority = authority
            self.templates = templates
        }
    }

    public static var migrations: [Migration] { CommandJournal.migrations + OutputArchiveRow.migrations }

    /// Reads the unfinished commands; they go on as their agents connect.
    public static func open(_ parts: Parts) async throws(Problem) -> Commands {
        let loading = try await CommandLoading.load(parts.store)
        let commands = Commands(parts, loading)
        var effects = BookEffects()
        let now = commands.now()
        commands.state.withLock { state in
            for command in loading.commands { state.book.restore(command, now: now, &effects) }
        }
        await commands.perform(effects)
        return commands
    }

    private init(_ parts: Parts, _ loading: CommandLoading) {
        limits = parts.limits
        outputs = parts.outputs
        journal = CommandJournal(store: parts.store)
        history = CommandHistory(store: parts.store)
        authority = parts.authority
        templates = parts.templates
        observers = parts.observers
        now = parts.now
        numbers = CommandNumbers(
            lastHigh: loading.lastHigh, nextTarget: loading.nextTarget, random: parts.random)
        state = Mutex(State(book: CommandBook(limits: parts.limits)))
        outputs.setOnWritten { [weak self] output in self?.outputGrew(output) }
    }

    // MARK: Submit

    /// An accepted command.
    public struct Acceptance: Sendable {
        public let id: CommandID
        /// False when an idempotency key led to a command that was accepted before.
        public let isNew: Bool
        let live: LiveCommand?
    }

    /// Checks, decides, journals and sends. When it returns, command, targets and audit record are on the disk.
    /// - Throws: 400 `invalid`, 403, 404, 409 `idempotency-key-reused`, 413 `command-too-large`, 422 `no-targets`,
    ///   503 `too-many-targets` and what store and authority throw.
    public func submit(_ request: CommandRequest, _ principal: Principal) async throws(Problem) -> Acceptance {
        try request.validate(limits)
        let (invocation, template) = try await resolve(request.work)
        try validateSize(invocation, request)
        let proposal = CommandProposal(
            selection: request.selection, invocation: invocation, user: request.user, template: template)
        let clients: [ClientID]
        do throws(Problem) {
            clients = try await authority.admit(proposal, principal)
        } catch {
            if error.status == 403 { try await auditRefusal(request, error, principal) }
            throw error
        }
        guard !clients.isEmpty else { throw Problem(422, "no-targets", "the selector matches no client") }
        guard clients.count <= limits.targetsPerCommand else {
            throw .invalid(
                "the selector matches \(clients.count) clients, at most \(limits.targetsPerCommand) are allowed",
                pointer: "/selector")
        }
        return try await accept(request, invocation, template, clients, principal)
    }

    private func resolve(
        _ work: CommandWork
    ) async throws(Problem) -> (Invocation, CommandSpecification.TemplateReference?) {
        switch work {
        case .invocation(let invocation): return (invocation, nil)
        case .template(let name, let version, let parameters):
            let template = try await templates.get(name, version: version)
            return (
                try template.invocation(parameters),
                CommandSpecification.TemplateReference(name: template.name, version: template.version)
            )
        }
    }

    private func validateSize(_ invocation: Invocation, _ request: CommandRequest) throws(Problem) {
        var others = request.standardInput?.count ?? 0
        for (name, value) in request.environment { others += name.utf8.count + value.utf8.count + 8 }
        for (name, value) in request.secretEnvironment { others += name.utf8.count + value.utf8.count + 8 }
        // The protocol adds heads and lengths.
        try invocation.validate(limits, others: others + 1_024)
    }

    private func auditRefusal(
        _ request: CommandRequest, _ problem: Problem, _ principal: Principal
    ) async throws(Problem) {
        var clients: [ClientID] = []
        var detail = JSONObject()
        switch request.selection {
        case .clients(let named): clients = named
        case .selector(let text): detail["selector"] = .string(text)
        }
        try await journal.audit(
            AuditRecord(
                principal: principal, action: "command.submit", clients: clients, outcome: .refused,
                reason: problem.detail, detail: .object(detail)))
    }

    private func accept(
        _ request: CommandRequest, _ invocation: Invocation, _ template: CommandSpecification.TemplateReference?,
        _ clients: [ClientID], _ principal: Principal
    ) async throws(Problem) -> Acceptance {
        let now = now()
        let reserved = state.withLock { state -> Result<(CommandNumbers.Range, [Bool]), Problem> in
            guard !state.isStopped else {
                return .failure(Problem(503, "stopping", "the core is stopping", retryAfter: 5))
            }
            let open = state.book.openTargets
            guard open + clients.count <= limits.openTargets else {
                return .failure(
                    Problem(
                        503, "too-many-targets",
                        "\(open) targets are unfinished, at most \(limits.openTargets) are allowed", retryAfter: 5))
            }
            let staged = request.concurrency != nil || !request.waves.isEmpty
            let queues = request.offline == .queue
            let waits = { (client: ClientID) in
                staged || (!state.book.isReady(client) && (queues || state.book.isArriving(client)))
            }
            let deferred = clients.contains(where: waits) ? clients.map(waits) : []
            let range = numbers.next(targets: clients.count, now: now)
            state.accepting.append(range.firstTarget)
            return .success((range, deferred))
        }
        let (range, deferred) = try reserved.get()
        let secrets: CommandSecrets?
        do throws(Problem) {
            secrets = request.secretEnvironment.isEmpty ? nil : try CommandSecrets(request.secretEnvironment, secretsMemory)
        } catch {
            state.withLock { $0.accepting.removeAll { $0 == range.firstTarget } }
            throw error
        }
        let specification = CommandSpecification(
            id: range.command, request: request, invocation: invocation, template: template,
            targetCount: clients.count, principal: principal, limits: limits, outputFilters: filters.names)
        let entry = CommandJournal.Entry(
            specification: specification, firstTarget: range.firstTarget, clients: clients, deferred: deferred,
            key: request.idempotencyKey.map {
                CommandJournal.Key(
                    principal: principal.kind.rawValue + ":" + principal.id, key: $0.key, digest: $0.requestDigest)
            },
            audit: audit(specification, clients, principal, waits: request.waitMilliseconds > 0))
        let accepted: CommandJournal.Accepted
        do throws(Problem) {
            killPoint("command.accept.before")
            accepted = try await journal.accept(entry, now: now)
            killPoint("command.accept.after")
        } catch {
            state.withLock { $0.accepting.removeAll { $0 == range.firstTarget } }
            throw error
        }
        if case .known(let id) = accepted {
            let live = state.withLock { state in
                state.accepting.removeAll { $0 == range.firstTarget }
                return state.book.commands[id]
            }
            return Acceptance(id: id, isNew: false, live: live)
        }
        var targets: [LiveTarget] = []
        targets.reserveCapacity(clients.count)
        for (index, client) in clients.enumerated() {
            targets.append(LiveTarget(client: client, machine: TargetStateMachine(), isDeferred: entry.isDeferred(index)))
        }
        let command = LiveCommand(specification, firstTarget: range.firstTarget, targets: consume targets, secrets: secrets)
        var effects = BookEffects()
        let sending = self.now()
        state.withLock { state in
            state.accepting.removeAll { $0 == range.firstTarget }
            state.book.insert(command, now: sending, &effects)
        }
        await perform(consume effects)
        observe(.submitted, command)
        return Acceptance(id: command.id, isNew: true, live: command)
    }

    private func audit(
        _ specification: CommandSpecification, _ clients: [ClientID], _ principal: Principal, waits: Bool
    ) -> AuditRecord {
        var writer = JSONWriter()
        writer.object { detail in
            detail.field("title", specification.title)
            detail.field("selector", ifPresent: specification.selector)
            detail.field("user", ifPresent: specification.user)
            if case .shell = specification.invocation { detail.field("shell", true) }
            if !specification.secretNames.isEmpty { detail.field("secret_env_names", specification.secretNames) }
            if !specification.outputFilters.isEmpty { detail.field("output_filters", specification.outputFilters) }
            detail.field("rerun_of", ifPresent: specification.rerunOf)
            // The answer then shows the output: no audit record of its own tells of that read.
            if waits { detail.field("answered_with_output", true) }
        }
        return AuditRecord(
            principal: principal, action: "command.submit", clients: clients, target: specification.id.description,
            detailText: writer.finish())
    }

    // MARK: Effects

    /// Does what the book asks for, and what follows from that, until nothing is left.
    /// - Returns: false when an end could not be recorded now; the tick goes on with it.
    @discardableResult
    func perform(_ first: consuming BookEffects) async -> Bool {
        var effects = first
        var allRecorded = true
        while true {
            effects.sends.drain { (link, command) in
                killPoint("command.send.before")
                link.send(command)
            }
            effects.cancels.drain { (link, command) in link.cancel(command) }
            effects.finished.drain { command in observe(.finished, command) }
            effects.resumes.drain { continuation in continuation.resume() }
            guard !effects.ends.isEmpty || !effects.marks.isEmpty else { return allRecorded }
            var next = BookEffects()
            if !effects.marks.isEmpty { await mark(effects.marks, &next) }
            if !effects.ends.isEmpty, await !record(effects.ends, &next) { allRecorded = false }
            effects = next
        }
    }

    private func mark(_ targets: [TargetReference], _ next: inout BookEffects) async {
        var durable = true
        do throws(Problem) {
            killPoint("command.mark.before")
            try await journal.markSent(targets.map(\.row))
            killPoint("command.mark.after")
        } catch {
            durable = false
            observers.recordFailed(error)
        }
        let now = now()
        var effects = BookEffects()
        let marked = durable
        state.withLock { $0.book.dispatchMarked(targets, durable: marked, now: now, &effects) }
        next.append(effects)
    }

    private func record(_ ends: [DecidedEnd], _ next: inout BookEffects) async -> Bool {
        do throws(Problem) {
            killPoint("command.record.before")
            try await journal.record(ends, now: now())
            killPoint("command.record.after")
        } catch {
            observers.recordFailed(error)
            state.withLock { $0.unrecorded.append(contentsOf: ends) }
            return false
        }
        let now = now()
        var effects = BookEffects()
        state.withLock { $0.book.settle(ends, now: now, &effects) }
        next.append(effects)
        for end in ends {
            observers.targetEnded(end.end.state)
            guard let output = end.output else { continue }
            outputs.release(output)
            let withheld = output.withheld
            if withheld > 0 { observers.outputWithheld(output.client, output.command, withheld) }
        }
        return true
    }

    private func observe(_ kind: CommandEvent.Kind, _ command: LiveCommand) {
        let (counts, count, client) = state.withLock { _ in
            (command.recorded, command.targets.count, command.targets.count == 1 ? command.targets[0].client : nil)
        }
        observers.event(
            CommandEvent(kind, command.specification, targetCount: count, counts: counts, client: client))
        if kind == .finished { observers.commandTook(now() &- command.id.milliseconds) }
    }

    // MARK: Wait

    /// Returns when the command has ended altogether or the time is over.
    func wait(for command: LiveCommand, milliseconds: UInt64) async {
        guard milliseconds > 0 else { return }
        let deadline = now() + milliseconds
        await withUnsafeContinuation { continuation in
            let isOver = state.withLock { state in
                guard !command.isFinished, !state.isStopped else { return true }
                state.book.wait(command, continuation, until: deadline)
                return false
            }
            if isOver { continuation.resume() }
        }
    }
}

extension BookEffects {
    mutating func append(_ other: BookEffects) {
        sends.append(contentsOf: other.sends)
        cancels.append(contentsOf: other.cancels)
        marks += other.marks
        ends += other.ends
        finished.append(contentsOf: other.finished)
        resumes.append(contentsOf: other.resumes)
    }
}

import AgentProtocol

/// What agents say about executions. Each answer counts only for a target of the client whose link it came over, and
/// only over that client's newest link.
extension Commands: ExecutionSink {
    public func reconcile(_ link: AgentLink, _ reports: [ExecutionReport]) async -> [ResumeDecision] {
        await reconcile(over: link, reports)
    }

    public func started(_ link: AgentLink, _ command: CommandID, at unixMilliseconds: UInt64) {
        started(over: link, command)
    }

    public func output(
        _ link: AgentLink, _ command: CommandID, _ stream: OutputStream, at offset: UInt64, _ bytes: RawSpan
    ) -> Bool {
        output(over: link, command, stream, at: offset, bytes)
    }

    public func linkAccepted(_ link: AgentLink) { accepted(link) }

    public func linkLost(_ link: AgentLink) { lost(link) }

    // MARK: With any link

    func reconcile(over link: any ExecutionLink, _ reports: [ExecutionReport]) async -> [ResumeDecision] {
        if !filters.isOpen, await !filtersCame(for: link) { return [] }
        var effects = BookEffects()
        let now = now()
        let decisions = state.withLock { $0.book.reconcile(link, reports, now: now, &effects) }
        var forgotten: [CommandID] = []
        for decision in decisions {
            guard case .forget(let command) = decision else { continue }
            observers.foreignAnswer(link.client, command)
            forgotten.append(command)
        }
        await perform(consume effects)
        if !forgotten.isEmpty { await noteAnswersForOthers(link.client, forgotten) }
        return decisions
    }

    /// The core starts, and its filters are not there yet: an agent whose output has to pass one is not asked for it before.
    /// - Returns: false when the link was lost meanwhile.
    private func filtersCame(for link: any ExecutionLink) async -> Bool {
        let isBound = !filters.names.isEmpty || state.withLock { state in
            state.book.clients[link.client]?.targets.contains { !$0.command.specification.outputFilters.isEmpty } ?? false
        }
        guard isBound else { return true }
        await filters.whenOpen()
        return state.withLock { $0.book.clients[link.client]?.arriving?.link === link }
    }

    /// Most reports that are forgotten were acknowledged already and the word was lost. One for a command that exists and
    /// was for others is an attempt. Looks at a few: one is enough to tell.
    private func noteAnswersForOthers(_ client: ClientID, _ commands: [CommandID]) async {
        for command in commands.prefix(16) {
            do throws(Problem) {
                guard try await history.wasForOthers(command, than: client) else { continue }
                observers.answeredForOthers(client, command)
            } catch {
                return  // Too many queries wait; the count in /metrics has them.
            }
        }
    }

    func started(over link: any ExecutionLink, _ command: CommandID) {
        let now = now()
        var effects = BookEffects()
        let isKnown = state.withLock { state in
            guard let target = state.book.target(over: link, command) else { return false }
            _ = target.command.targets[target.index].machine.apply(.started)
            target.command.targets[target.index].news = now
            state.book.changed(target, &effects)
            return true
        }
        if !isKnown { observers.foreignAnswer(link.client, command) }
        effects.resumes.drain { continuation in continuation.resume() }
    }

    func output(
        over link: any ExecutionLink, _ command: CommandID, _ stream: OutputStream, at offset: UInt64, _ bytes: RawSpan
    ) -> Bool {
        let now = now()
        let found = state.withLock { state -> LiveOutput? in
            guard let target = state.book.target(over: link, command) else { return nil }
            let live = target.command
            guard live.targets[target.index].machine.stage.map({ $0 != .waiting }) == true else { return nil }
            _ = live.targets[target.index].machine.apply(.output)
            live.targets[target.index].news = now
            if let output = live.targets[target.index].output { return output }
            let limit = outputs.allowance(link.client, wanted: live.specification.outputLimitBytes)
            let output = LiveOutput(
                command: command, client: link.client, limit: limit, mask: live.mask,
                filtering: live.specification.outputFilters.isEmpty ? nil : (live.specification.outputFilters, filters))
            live.targets[target.index].output = output
            return output
        }
        guard let found else {
            // Late output of a target that has its end, or somebody else's: dropped, its exit will be acknowledged.
            observers.foreignAnswer(link.client, command)
            return true
        }
        observers.outputTaken(bytes.byteCount)
        guard outputs.take(found, stream, at: offset, bytes, from: link) else { return false }
        outputGrew(found)
        return true
    }

    func finished(over link: any ExecutionLink, _ record: ExitRecord) async -> Bool {
        await finished([ReportedEnd(link: link, record: record)])[0]
    }

    /// - Returns: for each, whether the agent may forget it.
    public func finished(_ ends: [ReportedEnd]) async -> [Bool] {
        var mayForget = [Bool](repeating: false, count: ends.count)
        var prompt: [Int] = []
        var waiting: [(index: Int, output: LiveOutput)] = []
        for (index, end) in ends.enumerated() {
            switch claim(end) {
            case .forget: mayForget[index] = true
            case .notNow: break
            case .complete: prompt.append(index)
            case .unwritten(let output): waiting.append((index, output))
            }
        }
        if !prompt.isEmpty, await close(prompt.map { ends[$0] }) {
            for index in prompt { mayForget[index] = true }
        }
        // Large output: nobody with a small one waits for the disk with them.
        for (index, output) in waiting where await outputs.commit(output) { mayForget[index] = await close([ends[index]]) }
        return mayForget
    }

    private enum Claim {
        case forget, notNow, complete
        /// All of its output is here, and not yet all on the disk.
        case unwritten(LiveOutput)
    }

    /// What is to be done about a reported end.
    private func claim(_ end: ReportedEnd) -> Claim {
        enum Found {
            case open(LiveOutput?)
            case ending
            case foreign
        }
        let found = state.withLock { state -> Found in
            guard let target = state.book.target(over: end.link, end.record.command) else { return .foreign }
            guard let stage = target.command.targets[target.index].machine.stage else { return .ending }
            guard stage != .waiting else { return .foreign }
            target.command.targets[target.index].isEnding = true
            return .open(target.command.targets[target.index].output)
        }
        switch found {
        case .foreign:
            // Recorded before, or never this client's: in both cases there is nothing that the agent should keep.
            observers.foreignAnswer(end.link.client, end.record.command)
            return .forget
        case .ending: return .notNow
        case .open(let output):
            let received = output?.received ?? StreamPair(0, 0)
            guard received.output >= end.record.standardOutputBytes, received.errors >= end.record.standardErrorBytes else {
                return .notNow
            }
            guard let output else { return .complete }
            guard outputs.finish(output) else { return .notNow }
            return output.isSpilled ? .unwritten(output) : .complete
        }
    }

    /// Their output is complete and durable: now they are.
    private func close(_ ends: [ReportedEnd]) async -> Bool {
        var effects = BookEffects()
        let now = now()
        state.withLock { state in
            for end in ends {
                guard let target = state.book.target(of: end.link.client, end.record.command) else { continue }
                state.book.apply(.exit(end.record), to: target, now, &effects)
            }
        }
        return await perform(consume effects)
    }

    func accepted(_ link: any ExecutionLink) {
        let now = now()
        state.withLock { $0.book.linkAccepted(link, now: now) }
    }

    func lost(_ link: any ExecutionLink) {
        let now = now()
        state.withLock { $0.book.linkLost(link, now: now) }
    }

    /// The client was revoked or forgotten, or enrolled anew with empty hands: its unfinished targets end now.
    /// - Parameter code: `client-revoked`, `client-forgotten`, …
    public func clientGone(_ client: ClientID, code: String) async {
        var effects = BookEffects()
        let now = now()
        state.withLock { state in
            for target in state.book.clients[client]?.targets ?? [] {
                state.book.apply(.clientGone(code: code), to: target, now, &effects)
            }
        }
        await perform(consume effects)
    }

    /// Wakes those who watch the command.
    func outputGrew(_ output: LiveOutput) {
        var effects = BookEffects()
        state.withLock { state in
            guard let target = state.book.target(of: output.client, output.command) else { return }
            state.book.changed(target, &effects)
        }
        effects.resumes.drain { continuation in continuation.resume() }
    }
}

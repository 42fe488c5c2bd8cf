import AgentProtocol
import JSON

/// Cancelling, and running again.
extension Commands {
    /// Asks for the end of all unfinished targets, or of those of the named clients. Waiting targets end at once; those
    /// that may be with their agents end when the agent says so, also when it comes back later. May be repeated; on a
    /// finished command it changes nothing.
    /// - Returns: how many targets were asked.
    /// - Throws: 404 for a command that does not exist; what the store throws.
    @discardableResult
    public func cancel(_ id: CommandID, clients: [ClientID]? = nil, _ principal: Principal) async throws(Problem) -> Int {
        let chosen = clients.map(Set.init)
        let targets: [TargetReference]? = state.withLock { state in
            guard let command = state.book.commands[id] else { return nil }
            return command.targets.indices.compactMap { index in
                let target = command.targets[index]
                guard target.machine.isOpen, chosen?.contains(target.client) ?? true else { return nil }
                // Before the journal is asked, so that an end that comes meanwhile also removes the mark.
                command.targets[index].isMarked = true
                return TargetReference(command: command, index: index)
            }
        }
        guard let targets else {
            guard try await history.detail(id) != nil else { throw Self.unknown(id) }
            return 0
        }
        guard !targets.isEmpty else { return 0 }
        let record = AuditRecord(
            principal: principal, action: "command.cancel", clients: clients ?? [], target: id.description,
            detail: .object(["targets": .integer(Int64(targets.count))]))
        try await journal.markCancelled(targets.map(\.row), record)
        var effects = BookEffects()
        let now = now()
        state.withLock { state in
            for target in targets { state.book.apply(.cancel, to: target, now, &effects) }
        }
        await perform(consume effects)
        return targets.count
    }

    /// Runs a finished or running command again for those of its targets that ended in one of these ways.
    /// - Throws: 404; 422 `no-targets`; everything that `submit` throws.
    public func rerun(
        _ id: CommandID, outcomes: Set<FinalState>, waitMilliseconds: UInt64 = 0, idempotencyKey: IdempotencyKey? = nil,
        _ principal: Principal
    ) async throws(Problem) -> Acceptance {
        guard let detail = try await history.detail(id), let old = try await history.specification(id) else {
            throw Self.unknown(id)
        }
        guard old.secretNames.isEmpty else {
            throw .conflict(
                "secrets-gone", "command \(id) was given secret variables, which nobody keeps: whoever gave them has to run it again")
        }
        var clients: [ClientID] = []
        var from = 0
        while from < detail.summary.targetCount {
            let page = try await history.targets(detail, from: from, limit: 5_000, withOutput: false)
            guard !page.isEmpty else { break }
            from += page.count
            for view in page {
                guard let end = view.end, outcomes.contains(end.state), authority.outOfService(view.client) == nil else {
                    continue
                }
                clients.append(view.client)
            }
        }
        guard !clients.isEmpty else {
            throw Problem(422, "no-targets", "no target of \(id) in service ended in one of the given ways")
        }
        var request = CommandRequest(.clients(clients), .invocation(old.invocation))
        request.standardInput = old.standardInput
        request.environment = old.environment
        request.workingDirectory = old.workingDirectory
        request.user = old.user
        request.timeoutMilliseconds = old.timeoutMilliseconds
        request.killGraceMilliseconds = old.killGraceMilliseconds
        request.outputLimitBytes = old.outputLimitBytes
        request.memoryLimitBytes = old.memoryLimitBytes
        request.processorLimitMillis = old.processorLimitMillis
        request.offline = old.offline
        if let until = old.queueUntil { request.queueMilliseconds = until - old.id.milliseconds }
        request.concurrency = old.concurrency
        request.waves = old.waves.map { .count($0) }
        request.errorBudget = old.errorBudget.map { .count($0) }
        request.note = old.note
        request.rerunOf = id
        request.waitMilliseconds = waitMilliseconds
        request.idempotencyKey = idempotencyKey
        return try await submit(request, principal)
    }

    static func unknown(_ id: CommandID) -> Problem {
        Problem(404, "command-unknown", "there is no command \(id); finished commands are kept for a limited time")
    }
}

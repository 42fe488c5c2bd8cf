import AgentProtocol

/// Every command that has open targets, and every client that has a link or open targets: who may be sent what, when.
///
/// No I/O and no waiting: each call changes the book and adds to `BookEffects` what is to be done once the lock is left.
/// Times are Unix milliseconds.
struct CommandBook {
    /// One object per client with a link or open targets; it never leaves the book. Not checked for exclusivity for the same
    /// reason as `LiveCommand`.
    final class ClientEntry {
        /// Only set between `reconcile` and the loss of the link, so that nothing is sent before the agent's report.
        @exclusivity(unchecked) var link: (any ExecutionLink)?
        /// Accepted, and its agent has not reported yet. Commands wait for it, since the registry shows it as online.
        @exclusivity(unchecked) var arriving: (link: any ExecutionLink, since: UInt64)?
        /// When the link was lost (or the core started); counts while `link` is nil.
        @exclusivity(unchecked) var awaySince: UInt64
        /// Targets with the agent, or possibly so.
        @exclusivity(unchecked) var active = 0
        /// Active targets, parked ones and those in `queue`; a client has few.
        @exclusivity(unchecked) var targets: [TargetReference] = []
        /// Targets that have their turn and wait for a free place at the client, in order.
        @exclusivity(unchecked) var queue: [TargetReference] = []
        @exclusivity(unchecked) var parked = 0

        init(awaySince: UInt64) { self.awaySince = awaySince }
    }

    let limits: CommandLimits
    private(set) var commands: [CommandID: LiveCommand] = [:]
    private(set) var live: [LiveCommand] = []
    private(set) var waited: [LiveCommand] = []
    private(set) var clients: [ClientID: ClientEntry] = [:]
    private(set) var openTargets = 0
    private var sweepCursor = 0

    init(limits: CommandLimits) { self.limits = limits }

    // MARK: Commands come and go

    /// - Parameter starts: false after a restart, when the targets wait for their agents' reports.
    mutating func insert(_ command: LiveCommand, now: UInt64, _ effects: inout BookEffects) {
        command.place = live.count
        live.append(command)
        commands[command.id] = command
        openTargets += command.open
        advance(command, now, &effects)
    }

    /// Puts a command back as the database has it. Its agents have not reported yet.
    mutating func restore(_ command: LiveCommand, now: UInt64, _ effects: inout BookEffects) {
        command.place = live.count
        live.append(command)
        commands[command.id] = command
        openTargets += command.open
        command.graceUntil = now + limits.returnGraceMilliseconds
        for index in command.targets.indices where command.targets[index].machine.isOpen {
            let reference = TargetReference(command: command, index: index)
            let client = command.targets[index].client
            command.targets[index].news = now
            if command.targets[index].machine.cancelRequested, command.targets[index].machine.stage == .waiting {
                apply(.cancel, to: reference, now, &effects)
                continue
            }
            if command.targets[index].machine.isActive {
                command.targets[index].holdsPlace = true
                command.targets[index].isActive = true
                let entry = clientEntry(client, now)
                entry.active += 1
                entry.targets.append(reference)
            } else if command.rollout.hasBegun(index) {
                park(reference, clientEntry(client, now))
            }
        }
        advance(command, now, &effects)
    }

    private func park(_ target: TargetReference, _ entry: ClientEntry) {
        target.command.targets[target.index].isParked = true
        entry.parked += 1
        entry.targets.append(target)
    }

    private mutating func clientEntry(_ client: ClientID, _ now: UInt64) -> ClientEntry {
        if let entry = clients[client] { return entry }
        let entry = ClientEntry(awaySince: now)
        clients[client] = entry
        return entry
    }

    private mutating func remove(_ command: LiveCommand) {
        commands[command.id] = nil
        let last = live.removeLast()
        if last !== command {
            live[command.place] = last
            last.place = command.place
        }
        command.place = -1
        stopWaiting(command)
    }

    // MARK: Turns

    /// Gives as many targets their turn as the window, the waves and the budget allow.
    mutating func advance(_ command: LiveCommand, _ now: UInt64, _ effects: inout BookEffects) {
        while let index = command.rollout.next() {
            command.targets[index].holdsPlace = true
            let target = TargetReference(command: command, index: index)
            guard command.targets[index].machine.isOpen else {
                // It ended while it waited for its turn.
                command.targets[index].holdsPlace = false
                command.rollout.park()
                continue
            }
            turn(target, now, &effects)
        }
    }

    private mutating func turn(_ target: TargetReference, _ now: UInt64, _ effects: inout BookEffects) {
        let command = target.command
        let client = command.targets[target.index].client
        guard let entry = clients[client], let link = entry.link else {
            return absent(target, now, &effects)
        }
        guard entry.active < limits.activePerClient else {
            guard entry.queue.count < limits.queuedPerClient else {
                let input = TargetStateMachine.Input.refuse(
                    code: "client-busy",
                    message: "\(entry.active) commands run on the client and \(entry.queue.count) wait for it")
                return apply(input, to: target, now, &effects)
            }
            command.targets[target.index].isQueued = true
            entry.queue.append(target)
            entry.targets.append(target)
            return
        }
        entry.targets.append(target)
        dispatch(target, entry, link, now, &effects)
    }

    private mutating func absent(_ target: TargetReference, _ now: UInt64, _ effects: inout BookEffects) {
        let command = target.command
        let client = command.targets[target.index].client
        let waits = command.specification.offline == .queue || now < command.graceUntil || isArriving(client)
        if waits {
            let parked = clients[client]?.parked ?? 0
            guard parked < limits.parkedPerClient else {
                let input = TargetStateMachine.Input.refuse(
                    code: "client-busy", message: "\(parked) commands wait for the client already")
                return apply(input, to: target, now, &effects)
            }
            command.targets[target.index].holdsPlace = false
            command.rollout.park()
            park(target, clientEntry(client, now))
        } else if command.specification.offline == .skip {
            apply(.skip, to: target, now, &effects)
        } else {
            apply(.refuse(code: "client-offline", message: "the client is offline"), to: target, now, &effects)
        }
    }

    /// The target is among the client's targets and a place at the client is free.
    private mutating func dispatch(
        _ target: TargetReference, _ entry: ClientEntry, _ link: any ExecutionLink, _ now: UInt64,
        _ effects: inout BookEffects
    ) {
        let command = target.command
        entry.active += 1
        command.targets[target.index].isActive = true
        if command.targets[target.index].isDeferred {
            // Counted as active from now on; `dispatchMarked` comes when the mark is durable.
            command.targets[target.index].isDeferred = false
            command.targets[target.index].isMarked = true
            effects.marks.append(target)
            return
        }
        send(target, link, now, &effects)
    }

    private mutating func send(
        _ target: TargetReference, _ link: any ExecutionLink, _ now: UInt64, _ effects: inout BookEffects
    ) {
        let command = target.command
        if command.lacksSecrets {
            let input = TargetStateMachine.Input.refuse(
                code: "secrets-gone", message: "the core was restarted, and it keeps secret variables in memory only")
            return apply(input, to: target, now, &effects)
        }
        switch command.targets[target.index].machine.apply(.dispatch) {
        case .send:
            command.targets[target.index].news = now
            changed(target, &effects)
            effects.sends.append((link, command))
        case .record(let end): decide(target, end, &effects)
        default: break
        }
    }

    /// The marks of `BookEffects.marks` are durable: the orders may go. On failure the targets wait for the next chance.
    mutating func dispatchMarked(
        _ targets: [TargetReference], durable: Bool, now: UInt64, _ effects: inout BookEffects
    ) {
        for target in targets {
            let command = target.command
            guard command.targets[target.index].machine.stage == .waiting else { continue }
            let entry = clientEntry(command.targets[target.index].client, now)
            if durable, let link = entry.link {
                send(target, link, now, &effects)
                continue
            }
            if !durable {
                command.targets[target.index].isDeferred = true
                command.targets[target.index].isMarked = false
            }
            entry.active -= 1
            command.targets[target.index].isActive = false
            removeFromClient(target, entry)
            if command.targets[target.index].holdsPlace {
                command.targets[target.index].holdsPlace = false
                command.rollout.park()
            }
            park(target, entry)
        }
    }

    // MARK: Ends

    /// Applies an input that ends targets or asks for a cancel.
    mutating func apply(
        _ input: TargetStateMachine.Input, to target: TargetReference, _ now: UInt64, _ effects: inout BookEffects
    ) {
        let command = target.command
        switch command.targets[target.index].machine.apply(input) {
        case .record(let end): decide(target, end, &effects)
        case .sendCancel:
            command.targets[target.index].news = now
            if let link = clients[command.targets[target.index].client]?.link {
                effects.cancels.append((link, command.id))
            }
        case .none, .illegal, .send, .requeue: break
        }
    }

    mutating func decide(_ target: TargetReference, _ end: TargetEnd, _ effects: inout BookEffects) {
        let command = target.command
        command.undecided -= 1
        command.decided[end.state] += 1
        let isLast = command.undecided == 0 && command.targets.count > 1
        effects.ends.append(
            DecidedEnd(
                target: target, end: end, output: command.targets[target.index].output,
                isMarked: command.targets[target.index].isMarked, summary: isLast ? command.decided : nil))
    }

    /// The ends are durable.
    mutating func settle(_ ends: [DecidedEnd], now: UInt64, _ effects: inout BookEffects) {
        for end in ends { settleOne(end, now, &effects) }
        var last: LiveCommand?
        for end in ends where end.target.command !== last {
            last = end.target.command
            if !end.target.command.isFinished { advance(end.target.command, now, &effects) }
        }
    }

    private mutating func settleOne(_ end: DecidedEnd, _ now: UInt64, _ effects: inout BookEffects) {
        let target = end.target
        let command = target.command
        let client = command.targets[target.index].client
        let held = command.targets[target.index].settle()
        if command.targets.count <= LiveCommand.keptResults {
            command.targets[target.index].result = TargetResult(
                end: end.end, output: held.output?.summary ?? OutputSummary())
        }
        command.recorded[end.end.state] += 1
        command.open -= 1
        openTargets -= 1
        changed(target, &effects)

        if let entry = clients[client] {
            removeFromClient(target, entry)
            if held.wasParked { entry.parked -= 1 }
            if held.wasActive {
                entry.active -= 1
                drainQueue(entry, now, &effects)
            }
            dropIfIdle(client, entry)
        }
        if command.rollout.ended(end.end.state, heldPlace: held.place) {
            for index in command.targets.indices where command.targets[index].machine.stage == .waiting {
                apply(.abort, to: TargetReference(command: command, index: index), now, &effects)
            }
        }
        if command.isFinished {
            for waiter in command.waiters { effects.resumes.append(waiter.continuation) }
            command.waiters = Few()
            effects.finished.append(command)
            remove(command)
        }
    }

    private func removeFromClient(_ target: TargetReference, _ entry: ClientEntry) {
        guard let index = entry.targets.lastIndex(where: { $0.isSame(as: target) }) else { return }
        entry.targets.remove(at: index)
        guard target.command.targets[target.index].isQueued else { return }
        target.command.targets[target.index].isQueued = false
        entry.queue.removeAll { $0.isSame(as: target) }
    }

    private mutating func drainQueue(_ entry: ClientEntry, _ now: UInt64, _ effects: inout BookEffects) {
        while let link = entry.link, entry.active < limits.activePerClient, !entry.queue.isEmpty {
            let next = entry.queue.removeFirst()
            next.command.targets[next.index].isQueued = false
            dispatch(next, entry, link, now, &effects)
        }
    }

    private mutating func dropIfIdle(_ client: ClientID, _ entry: ClientEntry) {
        if entry.link == nil, entry.arriving == nil, entry.targets.isEmpty { clients[client] = nil }
    }

    // MARK: Links

    /// The link is accepted; its agent's report comes next.
    mutating func linkAccepted(_ link: any ExecutionLink, now: UInt64) {
        clientEntry(link.client, now).arriving = (link, now)
    }

    /// The link's agent has reported; orders may go over it now.
    mutating func reconcile(
        _ link: any ExecutionLink, _ reports: [ExecutionReport], now: UInt64, _ effects: inout BookEffects
    ) -> [ResumeDecision] {
        let entry = clientEntry(link.client, now)
        entry.link = link
        entry.arriving = nil
        let targets = entry.targets
        var reported: [CommandID: Int] = [:]
        for (index, report) in reports.enumerated() { reported[report.command] = index }
        var decisions: [ResumeDecision] = []
        decisions.reserveCapacity(reports.count)
        var known: Set<CommandID> = []

        for target in targets where target.command.targets[target.index].machine.isActive {
            let command = target.command
            known.insert(command.id)
            guard let index = reported[command.id] else {
                // A full report may have left some out: then absence proves nothing.
                guard reports.count < WireLimits.reports else { continue }
                missing(target, link, now, &effects)
                continue
            }
            decisions.append(resume(target, reports[index], now, &effects))
        }
        for report in reports where !known.contains(report.command) {
            decisions.append(.forget(command: report.command))
        }
        drainQueue(entry, now, &effects)
        unpark(entry, now, &effects)
        return decisions
    }

    private mutating func missing(
        _ target: TargetReference, _ link: any ExecutionLink, _ now: UInt64, _ effects: inout BookEffects
    ) {
        switch target.command.targets[target.index].machine.apply(.unknownToAgent) {
        case .requeue: send(target, link, now, &effects)
        case .record(let end): decide(target, end, &effects)
        default: break
        }
    }

    private mutating func resume(
        _ target: TargetReference, _ report: ExecutionReport, _ now: UInt64, _ effects: inout BookEffects
    ) -> ResumeDecision {
        let command = target.command
        let action = report.exit == nil
            ? command.targets[target.index].machine.apply(.reported(report.started)) : .none
        command.targets[target.index].news = now
        command.targets[target.index].isEnding = false
        let held = command.targets[target.index].output?.received ?? StreamPair(0, 0)
        // Never more than the agent still has: after a power loss its spool may be shorter than what it had sent.
        let output = min(held.output, report.standardOutputBytes)
        let errors = min(held.errors, report.standardErrorBytes)
        return action == .sendCancel
            ? .cancel(command: command.id, standardOutputFrom: output, standardErrorFrom: errors)
            : .resume(command: command.id, standardOutputFrom: output, standardErrorFrom: errors)
    }

    private mutating func unpark(_ entry: ClientEntry, _ now: UInt64, _ effects: inout BookEffects) {
        guard entry.parked > 0 else { return }
        let parked = entry.targets.filter { $0.command.targets[$0.index].isParked }
        entry.parked = 0
        entry.targets.removeAll { $0.command.targets[$0.index].isParked }
        for target in parked {
            target.command.targets[target.index].isParked = false
            target.command.rollout.comeBack(target.index)
        }
        for target in parked { advance(target.command, now, &effects) }
    }

    /// The link is dead. Targets that may be with the agent stay as they are until it reports.
    mutating func linkLost(_ link: any ExecutionLink, now: UInt64) {
        guard let entry = clients[link.client] else { return }
        if entry.arriving?.link === link { entry.arriving = nil }
        if entry.link === link {
            entry.link = nil
            entry.awaySince = now
        }
        dropIfIdle(link.client, entry)
    }

    func isReady(_ client: ClientID) -> Bool { clients[client]?.link != nil }

    func isArriving(_ client: ClientID) -> Bool { clients[client]?.arriving != nil }

    /// The open target of this client and command; looked for only among the client's own targets, so that no agent can
    /// touch what another one runs.
    func target(of client: ClientID, _ command: CommandID) -> TargetReference? {
        clients[client]?.targets.last { $0.command.specification.id == command }
    }

    /// The same, asked for over a link: only the client's newest one counts.
    func target(over link: any ExecutionLink, _ command: CommandID) -> TargetReference? {
        guard let entry = clients[link.client], entry.link === link else { return nil }
        return entry.targets.last { $0.command.specification.id == command }
    }

    // MARK: Waiting callers

    mutating func wait(_ command: LiveCommand, _ continuation: UnsafeContinuation<Void, Never>, until deadline: UInt64) {
        command.waiters.append(.init(continuation: continuation, deadline: deadline))
        startWaiting(command)
    }

    private mutating func startWaiting(_ command: LiveCommand) {
        guard command.waitedPlace < 0 else { return }
        command.waitedPlace = waited.count
        waited.append(command)
    }

    private mutating func stopWaiting(_ command: LiveCommand) {
        guard command.waitedPlace >= 0 else { return }
        let last = waited.removeLast()
        if last !== command {
            waited[command.waitedPlace] = last
            last.waitedPlace = command.waitedPlace
        }
        command.waitedPlace = -1
    }

    /// Waits for the next change instead of the end.
    mutating func watch(_ command: LiveCommand, _ continuation: UnsafeContinuation<Void, Never>, until deadline: UInt64) {
        command.watchers.append(.init(continuation: continuation, deadline: deadline))
        startWaiting(command)
    }

    /// Lets those callers go whose time is over.
    mutating func releaseWaiters(now: UInt64, _ effects: inout BookEffects) {
        var index = 0
        while index < waited.count {
            let command = waited[index]
            for waiter in command.waiters where waiter.deadline <= now { effects.resumes.append(waiter.continuation) }
            for watcher in command.watchers where watcher.deadline <= now { effects.resumes.append(watcher.continuation) }
            command.waiters.removeAll { $0.deadline <= now }
            command.watchers.removeAll { $0.deadline <= now }
            if command.waiters.isEmpty, command.watchers.isEmpty { stopWaiting(command) } else { index += 1 }
        }
    }

    /// A watcher can see something new of the target.
    func changed(_ target: TargetReference, _ effects: inout BookEffects) {
        let command = target.command
        command.touch(target.index)
        guard !command.watchers.isEmpty else { return }
        for watcher in command.watchers { effects.resumes.append(watcher.continuation) }
        command.watchers = Few()
    }

    // MARK: Time

    /// Looks at the next commands, about `budget` targets of them, for what time has decided.
    mutating func sweep(now: UInt64, budget: Int, _ effects: inout BookEffects) {
        var left = min(budget, openTargets)
        var visited = 0
        while left > 0, visited < live.count {
            if sweepCursor >= live.count { sweepCursor = 0 }
            let command = live[sweepCursor]
            sweepCursor += 1
            visited += 1
            left -= command.targets.count
            for index in command.targets.indices where command.targets[index].machine.isOpen {
                sweep(TargetReference(command: command, index: index), now, &effects)
            }
        }
    }

    private mutating func sweep(_ target: TargetReference, _ now: UInt64, _ effects: inout BookEffects) {
        let command = target.command
        let live = command.targets[target.index]
        let entry = clients[live.client]
        if live.machine.stage == .waiting {
            if let until = command.specification.queueUntil, now >= until, !live.isMarked || live.isParked {
                apply(.expire, to: target, now, &effects)
            } else if command.specification.offline != .queue, now >= command.graceUntil, entry?.link == nil,
                live.isParked || live.isQueued,
                now >= (entry?.arriving?.since ?? entry?.awaySince ?? 0) &+ limits.returnGraceMilliseconds
            {
                let input: TargetStateMachine.Input = command.specification.offline == .skip
                    ? .skip : .refuse(code: "client-offline", message: "the client is offline")
                apply(input, to: target, now, &effects)
            }
            return
        }
        guard let entry, entry.link != nil else {
            let since = entry?.awaySince ?? live.news
            if now >= since &+ limits.lostAfterMilliseconds { apply(.lost, to: target, now, &effects) }
            return
        }
        let specification = command.specification
        var allowed = limits.overdueMilliseconds
        if !live.machine.overdueAsked {
            allowed += specification.timeoutMilliseconds + specification.killGraceMilliseconds
            if live.machine.stage == .sent { allowed += limits.startWaitMilliseconds }
        }
        if !live.isEnding, now >= live.news &+ allowed { apply(.overdue, to: target, now, &effects) }
    }
}

import AgentProtocol
import Reactor

/// Commands on one link: executions and their ends to the sink, wishes of the kernel to frames.
extension AgentConnection {
    private static var mostSettled: Int { 32 }

    // MARK: Frames of the agent

    func receiveCommand(_ link: AgentLink, _ header: FrameHeader, _ payload: borrowing RawSpan) throws(WireError) {
        switch try channels.receive(header, payload) {
        case .none: break
        case .output(let command, let stream, let offset):
            guard endpoint.sink.output(link, command, stream, at: offset, payload) else {
                throw WireError(.wrongOffset, "output of \(command) at \(offset) does not continue what is kept")
            }
        case .started(let command, let time): endpoint.sink.started(link, command, at: time)
        case .finished(let record): home.report(ReportedEnd(link: link, record: record))
        case .reportsComplete(let reports):
            reconcile(link, reports)
            try reconcileTerminals(link)
            reconcileTransfers(link)
            if link.hasUpgrades { endpoint.upgrades?.ready(link) }
        }
    }

    private func reconcile(_ link: AgentLink, _ reports: [ExecutionReport]) {
        let me = Confined(self, on: home.loop)
        let sink = endpoint.sink
        home.loop.spawn {
            let decisions = await sink.reconcile(link, reports)
            me.assumeOnLoop { $0.decide(decisions) }
        }
    }

    private func decide(_ decisions: [ResumeDecision]) {
        guard phase == .active, !decisions.isEmpty else { return }
        var refusal: CoreChannelsStateMachine.Refusal?
        // In pieces, because a sealed message and its reader are bounded.
        var next = decisions.startIndex
        while next < decisions.endIndex, refusal == nil {
            let piece = decisions[next..<min(next + 256, decisions.endIndex)]
            next = piece.endIndex
            write { writer in
                for decision in piece {
                    do throws(CoreChannelsStateMachine.Refusal) {
                        try channels.decide(decision, to: &writer)
                    } catch { refusal = error }
                }
            }
        }
        if let refusal { fail(WireError(.tooManyChannels, "the executions cannot be resumed: \(refusal)")) }
    }

    /// The command's end is durable; the agent may forget it.
    func acknowledge(_ command: CommandID) {
        guard phase == .active else { return }
        settled.append(command)
        if settled.count >= Self.mostSettled { return write { _ in } }
        guard settled.count == 1 else { return }
        debt &+= 1
        home.owe(self, debt)
    }

    /// The debt's time is up. False: it was paid with another message.
    func tellSettled(_ debt: UInt32) -> Bool {
        guard phase == .active, debt == self.debt, !settled.isEmpty else { return false }
        write { _ in }
        return true
    }

    // MARK: Wishes of the kernel, through the link

    /// Most orders are sent from where they stand.
    func send(_ command: LiveCommand) {
        send(command.secrets == nil ? command.specification.order : command.order)
    }

    func send(_ order: Order) {
        guard phase == .active, let link else { return }
        guard order.secretEnvironment.isEmpty || link.hasSecretEnvironment else {
            return refuse(order, over: link, "secrets-unsupported", "the agent of this client takes no secret variables; install a newer one")
        }
        var refusal: CoreChannelsStateMachine.Refusal?
        write { writer in
            do throws(CoreChannelsStateMachine.Refusal) {
                try channels.open(order, to: &writer)
            } catch { refusal = error }
        }
        guard let refusal else { return }
        let (code, message) =
            switch refusal {
            case .tooManyChannels(let limit):
                ("client-busy", "\(limit) executions are open on this client's connection")
            case .tooLarge(let bytes):
                ("order-too-large", "the order takes \(bytes) bytes; at most \(WireLimits.openBytes) are allowed")
            case .alreadyOpen: ("", "")
            }
        guard !code.isEmpty else { return }
        refuse(order, over: link, code, message)
    }

    private func refuse(_ order: Order, over link: AgentLink, _ code: String, _ message: String) {
        let record = ExitRecord(
            command: order.command, outcome: .refused(code: code, message: message), started: .no,
            finishedAt: unixMilliseconds())
        home.report(ReportedEnd(link: link, record: record))
    }

    func cancel(_ command: CommandID) {
        guard phase == .active else { return }
        write { channels.cancel(command, to: &$0) }
    }

    func grant(_ command: CommandID, _ stream: OutputStream, upTo offset: UInt64) {
        guard phase == .active else { return }
        write { channels.grant(command, stream, upTo: offset, to: &$0) }
    }
}

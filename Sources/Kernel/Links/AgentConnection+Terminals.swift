import AgentProtocol
import Reactor

/// The terminals of one link: made with the first of them, so that a link without any costs one word.
final class LinkTerminals {
    var machine = CoreTerminalsStateMachine()
    var channels: [UInt32: Channel] = [:]
    /// Until their end mark.
    var reports: [TerminalReport] = []
}

extension AgentConnection {
    private var terminalSink: (any TerminalSink)? { endpoint.terminals }

    private func madeTerminals() -> LinkTerminals {
        if let terminals { return terminals }
        let made = LinkTerminals()
        terminals = made
        return made
    }

    // MARK: Frames of the agent

    func receiveTerminalReport(_ payload: borrowing RawSpan) throws(WireError) {
        guard link?.hasTerminals == true, !hasReported else {
            throw WireError(.unexpected, "a terminal's report after the end of the reports, or without the feature")
        }
        let terminals = madeTerminals()
        guard terminals.reports.count < WireLimits.terminals else {
            throw WireError(.tooManyChannels, "more than \(WireLimits.terminals) terminals are reported")
        }
        terminals.reports.append(try TerminalReport(reading: payload))
    }

    /// The reports are complete: takes up what is known and turns away the rest.
    func reconcileTerminals(_ link: AgentLink) throws(WireError) {
        hasReported = true
        guard link.hasTerminals, let terminalSink else { return }
        let reports = terminals?.reports ?? []
        terminals?.reports = []
        let found = terminalSink.reconcile(link, reports)
        guard let terminals else { return }
        var failure: WireError?
        var resumed: [Channel] = []
        write { writer in
            for (report, channel) in zip(reports, found) where failure == nil {
                guard let channel else {
                    terminals.machine.forget(report.channel, to: &writer)
                    continue
                }
                var from: UInt64?
                switch channel.resumption(report) {
                case .leave: break
                case .attach(let offset): from = offset
                case .wrongInput(let sent):
                    failure = WireError(
                        .wrongOffset, "\(report.inputReceived) bytes of input are reported; \(sent) were sent")
                    continue
                }
                do throws(CoreTerminalsStateMachine.Refusal) {
                    let number = try terminals.machine.resume(report, from: from, to: &writer)
                    terminals.channels[number] = channel
                    channel.resumed(link, number)
                    resumed.append(channel)
                } catch { failure = WireError(.tooManyChannels, "\(error)") }
            }
        }
        if let failure { throw failure }
        for channel in resumed { goOn(channel) }
    }

    /// What was wanted while the channel ran over no link.
    private func goOn(_ channel: Channel) {
        let unfinished = channel.unfinished()
        if let size = unfinished.size { resizeTerminal(channel, size) }
        flushInput(channel)
        if unfinished.closes { closeTerminal(channel) }
        attachTerminal(channel)
        channel.inputTaken(upTo: 0)
    }

    func receiveTerminal(_ header: FrameHeader, _ payload: borrowing RawSpan) throws(WireError) {
        guard let terminals else {
            throw WireError(.foreignChannel, "a \(header.kind) frame for channel \(header.channel), which is not open")
        }
        let event = try terminals.machine.receive(header, payload)
        guard event != .none, let channel = terminals.channels[header.channel] else { return }
        switch event {
        case .none: break
        case .output(let number, let offset):
            if let due = channel.received(payload, at: offset) { tell(due, terminals, number) }
        case .started(_, let time): channel.started(at: time)
        case .attached(let number, let offset):
            if channel.attached(at: offset) { return }
            // Somebody else reads by now, or nobody.
            if channel.hasConsumer { attachTerminal(channel) } else {
                write { terminals.machine.detach(number, to: &$0) }
            }
        case .inputGranted(_, let limit):
            channel.inputTaken(upTo: limit - WireLimits.inputWindowBytes)
            flushInput(channel)
        case .exited(let number, let record): terminalExited(channel, number, record)
        }
    }

    private func terminalExited(_ channel: Channel, _ number: UInt32, _ record: ExitRecord) {
        guard let terminalSink else { return }
        let me = Confined(self, on: home.loop)
        home.loop.spawn {
            guard await terminalSink.exited(channel, record) else { return }
            me.assumeOnLoop { $0.acknowledgeTerminal(number) }
        }
    }

    // MARK: Wishes of the kernel, through the link

    func openTerminal(_ channel: Channel, _ order: TerminalOrder) {
        guard isActive, let link else {
            return openFailed(channel, "client-offline", "the client's connection was lost")
        }
        let terminals = madeTerminals()
        var refusal: CoreTerminalsStateMachine.Refusal?
        write { writer in
            do throws(CoreTerminalsStateMachine.Refusal) {
                let number = try terminals.machine.open(order, to: &writer)
                terminals.channels[number] = channel
                channel.opened(link, number)
            } catch { refusal = error }
        }
        switch refusal {
        case nil: goOn(channel)
        case .tooManyTerminals(let limit):
            openFailed(channel, "client-busy", "\(limit) terminals are open on this client")
        case .tooLarge(let bytes):
            openFailed(
                channel, "order-too-large", "the order takes \(bytes) bytes; at most \(WireLimits.openBytes) are allowed")
        }
    }

    private func openFailed(_ channel: Channel, _ code: String, _ message: String) {
        guard let terminalSink else { return }
        home.loop.spawn { await terminalSink.openFailed(channel, code: code, message: message) }
    }

    /// The machine and the number of a channel that runs over this link.
    private func place(of channel: Channel) -> (LinkTerminals, UInt32)? {
        guard isActive, let terminals, let link, let number = channel.number(on: link) else { return nil }
        return (terminals, number)
    }

    /// Asks for output for the present consumer, unless that has been done or an answer for another is still to come.
    func attachTerminal(_ channel: Channel) {
        guard let (terminals, number) = place(of: channel), !terminals.machine.isAttaching(number),
            let offset = channel.ask()
        else { return }
        write { terminals.machine.attach(number, from: offset, to: &$0) }
    }

    func detachTerminal(_ channel: Channel) {
        guard let (terminals, number) = place(of: channel), !channel.hasConsumer else { return }
        write { terminals.machine.detach(number, to: &$0) }
    }

    func grantOutput(_ channel: Channel) {
        guard let (terminals, number) = place(of: channel), let due = channel.creditDue() else { return }
        tell(due, terminals, number)
    }

    private func tell(_ due: Channel.Due, _ terminals: LinkTerminals, _ number: UInt32) {
        write { writer in
            if let offset = due.arrived { terminals.machine.arrived(number, upTo: offset, to: &writer) }
            if let offset = due.credit { terminals.machine.grant(number, upTo: offset, to: &writer) }
        }
    }

    /// Sends the input that the window has room for.
    func flushInput(_ channel: Channel) {
        guard let (terminals, number) = place(of: channel), let room = terminals.machine.inputRoom(number) else { return }
        link?.typing(at: home.loop.now)
        write { writer in
            channel.unsent(from: room.offset, { terminals.machine.input(number, $0, to: &writer) }, room: room.count)
            if let offset = terminals.machine.inputRoom(number)?.offset, channel.isInputOver(at: offset) {
                terminals.machine.endInput(number, to: &writer)
            }
        }
    }

    func resizeTerminal(_ channel: Channel, _ size: TerminalSize) {
        guard let (terminals, number) = place(of: channel) else { return }
        write { terminals.machine.resize(number, size, to: &$0) }
    }

    func signalTerminal(_ channel: Channel, _ signal: TerminalSignal) {
        guard let (terminals, number) = place(of: channel) else { return }
        write { terminals.machine.signal(number, signal, to: &$0) }
    }

    func closeTerminal(_ channel: Channel) {
        guard let (terminals, number) = place(of: channel) else { return }
        // It has ended, and what is left of its output is not wanted.
        if let record = channel.unclaimed(now: .max, after: 0) { return terminalExited(channel, number, record) }
        write { terminals.machine.cancel(number, to: &$0) }
    }

    func acknowledgeTerminal(_ channel: Channel) {
        guard let (_, number) = place(of: channel) else { return }
        acknowledgeTerminal(number)
    }

    private func acknowledgeTerminal(_ number: UInt32) {
        guard isActive, let terminals else { return }
        terminals.channels[number] = nil
        write { terminals.machine.acknowledge(number, to: &$0) }
    }

    /// The link is over.
    func leaveTerminals(_ link: AgentLink) {
        guard let terminals else { return }
        self.terminals = nil
        for channel in terminals.channels.values { channel.linkLost(link) }
    }
}

import AgentProtocol
import Glibc
import Program
import Reactor
import System

/// Runs terminals for real: each in a holder with a directory of its own under `A/terminals`.
///
/// Confined to one loop; files are written on one thread of its own. At most one start per terminal: the journal and the
/// lock decide, not this memory.
public final class HolderTerminals: TerminalExecutor, HolderKeeping {
    /// Terminals at the same time, ended ones that the core has not acknowledged included.
    public static let maximum = 64
    /// Looks at an end that is being written.
    private static let settleMilliseconds: UInt64 = 20

    public weak var observer: (any TerminalObserver)?

    private final class Terminal {
        enum Phase {
            /// Being journaled and started.
            case starting
            case held(TerminalLink)
            /// The link has ended; the files are being asked how.
            case settling
            case ended(ExitRecord)
        }

        let channel: ChannelID
        var phase = Phase.starting
        /// Not yet durable: may still vanish with this process, so it is not reported.
        var isAccepted = false
        var isDurable = false
        var status = TerminalStatus()
        var record: ExitRecord?
        /// End of the input that has come over any link of this process.
        var inputReceived: UInt64 = 0
        /// The attach that is wanted: told when the holder is there.
        var attachFrom: UInt64?
        var attachNumber: UInt32 = 0
        var isAttached = false
        /// End of the output that was given since.
        var position: UInt64 = 0
        /// What came before the holder was there; bounded by the window of input.
        var early: [UInt8] = []
        var earlyAt: UInt64 = 0
        var earlySize: TerminalSize?
        var inputEnded = false
        var cancelWanted = false
        var forgetWanted = false

        init(_ channel: ChannelID) { self.channel = channel }

        var link: TerminalLink? {
            if case .held(let link) = phase { return link }
            return nil
        }

        /// No holder keeps output.
        var isEnded: Bool {
            if case .ended = phase { return true }
            return false
        }
    }

    let loop: EventLoop
    private let log: Log?
    private let store: ExecutionStore
    private let files = BlockingPool(name: "agent-terminals", threads: 1, queue: 1_024)
    private var terminals: [ChannelID: Terminal] = [:]
    private let holders: HolderReaper
    private let retries: LaterRetries<ChannelID>

    /// On the loop, before the session starts: takes up what an earlier agent left.
    /// - Parameter directory: the agent's data directory `A`.
    public init(
        directory: String, on loop: EventLoop, options: HolderExecutor.Options = HolderExecutor.Options(),
        log: Log? = nil
    ) throws(SystemError) {
        loop.preconditionCurrent()
        self.loop = loop
        holders = HolderReaper(on: loop)
        retries = LaterRetries(on: loop)
        self.log = log
        let root = directory + "/terminals"
        try Files.makeDirectories(root)
        store = ExecutionStore(
            root: root, policyPath: directory + "/policy.json", bootID: Machine.bootID(),
            holderProgram: options.holderProgram, holderArguments: options.holderArguments,
            controlGroups: options.usesControlGroups ? ControlGroupParent.find(name: "client-manager") : nil,
            account: try UserAccount.current())
        for command in try store.scan() {
            let terminal = Terminal(ChannelID(sameAs: command))
            terminal.isAccepted = true
            terminal.isDurable = true
            terminals[terminal.channel] = terminal
            take(terminal, try store.inspectTerminal(command))
        }
    }

    /// Programs that run now.
    public var runningCount: Int { terminals.values.count { !$0.isEnded } }

    // MARK: Executor

    public func start(_ order: TerminalOrder) {
        loop.assertCurrent()
        let channel = order.channel
        guard terminals[channel] == nil else {
            // Known from before, by an order that was sent twice: never started again.
            attach(channel, from: 0)
            return
        }
        let terminal = Terminal(channel)
        terminals[channel] = terminal
        terminal.attachFrom = 0
        guard terminals.count <= Self.maximum else {
            return refuse(
                terminal, "agent-queue-full", "\(Self.maximum) terminals are open on this client; close one first")
        }
        let store = store
        let command = order.order.command
        let accepted = confined { (terminals: HolderTerminals, result: Result<Bool, LaunchFailure>) in
            terminals.accepted(channel, result)
        }
        let launched = confined { (terminals: HolderTerminals, result: Result<ExecutionStore.Launched, SystemError>) in
            terminals.launched(channel, result)
        }
        let isTaken = files.submit {
            do throws(LaunchFailure) { try store.accept(order) } catch { return accepted(.failure(error)) }
            accepted(.success(true))
            do throws(SystemError) { launched(.success(try store.launch(command))) } catch { launched(.failure(error)) }
        }
        if !isTaken { refuse(terminal, "agent-queue-full", "too many terminals are being started; try again") }
    }

    public func attach(_ channel: ChannelID, from offset: UInt64) {
        guard let terminal = terminals[channel] else { return }
        terminal.attachNumber &+= 1
        terminal.attachFrom = offset
        terminal.isAttached = false
        terminal.position = 0
        switch terminal.phase {
        case .held(let link): link.send(TerminalPacket(.attach, number: terminal.attachNumber, a: offset))
        case .ended: answerForNobody(terminal)
        case .starting, .settling: break
        }
    }

    /// The holder is gone and with it what it kept: output goes on at its end.
    private func answerForNobody(_ terminal: Terminal) {
        guard let from = terminal.attachFrom, let record = terminal.record, !record.hasLostOutput else { return }
        let (channel, number) = (terminal.channel, terminal.attachNumber)
        let at = max(from, record.standardOutputBytes)
        loop.post(
            confined { terminals in
                guard let terminal = terminals.terminals[channel], terminal.attachNumber == number else { return }
                terminals.observer?.terminalAttached(channel, at: at)
            })
    }

    public func detach(_ channel: ChannelID) {
        guard let terminal = terminals[channel] else { return }
        terminal.attachNumber &+= 1
        terminal.attachFrom = nil
        terminal.isAttached = false
        terminal.link?.send(TerminalPacket(.detach))
    }

    public func credit(_ channel: ChannelID, upTo offset: UInt64) {
        guard let terminal = terminals[channel], terminal.isAttached else { return }
        terminal.link?.send(TerminalPacket(.credit, a: offset))
    }

    public func arrived(_ channel: ChannelID, upTo offset: UInt64) {
        guard let terminal = terminals[channel], terminal.isAttached else { return }
        terminal.link?.send(TerminalPacket(.arrived, a: offset))
    }

    public func input(_ channel: ChannelID, at offset: UInt64, _ bytes: RawSpan) {
        guard let terminal = terminals[channel] else { return }
        terminal.inputReceived = offset + UInt64(bytes.byteCount)
        if let link = terminal.link {
            link.send(inputAt: offset, bytes)
        } else if !terminal.isEnded {
            if terminal.early.isEmpty { terminal.earlyAt = offset }
            // Invariant: the array copies before the closure ends.
            unsafe bytes.withUnsafeBytes { unsafe terminal.early.append(contentsOf: $0) }
        }
    }

    public func endInput(_ channel: ChannelID) {
        guard let terminal = terminals[channel] else { return }
        terminal.inputEnded = true
        terminal.link?.send(TerminalPacket(.inputEnd))
    }

    public func resize(_ channel: ChannelID, _ size: TerminalSize) {
        guard let terminal = terminals[channel] else { return }
        if let link = terminal.link { Self.send(size, to: link) } else { terminal.earlySize = size }
    }

    private static func send(_ size: TerminalSize, to link: TerminalLink) {
        link.send(TerminalPacket(.resize, a: UInt64(size.rows) | UInt64(size.columns) << 16))
    }

    public func signal(_ channel: ChannelID, _ signal: TerminalSignal) {
        terminals[channel]?.link?.send(TerminalPacket(.signal, a: UInt64(signal.rawValue)))
    }

    public func cancel(_ channel: ChannelID) {
        guard let terminal = terminals[channel] else { return }
        terminal.cancelWanted = true
        terminal.link?.send(TerminalPacket(.cancel))
    }

    public func forget(_ channel: ChannelID) {
        guard let terminal = terminals[channel] else { return }
        terminal.forgetWanted = true
        guard terminal.record != nil else { return cancel(channel) }
        if let link = terminal.link {
            link.send(TerminalPacket(.forget))
            link.close()
        }
        terminals[channel] = nil
        guard terminal.isDurable else { return }
        let store = store
        let log = log
        _ = files.submit {
            do throws(SystemError) { try store.forget(CommandID(sameAs: channel)) } catch {
                log?.warning("terminal.forget-failed", ["channel": .string("\(channel)"), "error": .string("\(error)")])
            }
        }
    }

    public func reports() -> [TerminalReport] {
        loop.assertCurrent()
        return terminals.values.filter { $0.isAccepted && !$0.forgetWanted }.sorted { $0.channel < $1.channel }.map {
            let received = max($0.inputReceived, $0.status.inputReceived)
            // A terminal that was never started has taken nothing, and nobody will ask.
            let taken = min($0.status.inputTaken, received)
            return TerminalReport(
                channel: $0.channel, started: $0.record?.started ?? ($0.status.startedAt > 0 ? .yes : .no),
                keptFrom: $0.status.keptFrom, outputEnd: max($0.status.outputEnd, $0.status.keptFrom),
                inputReceived: received, inputTaken: max(taken, received - min(received, WireLimits.inputWindowBytes)),
                exit: $0.record)
        }
    }

    public func linkLost() {
        for terminal in terminals.values {
            terminal.attachNumber &+= 1
            terminal.attachFrom = nil
            terminal.isAttached = false
            if let link = terminal.link {
                link.resume()
                link.send(TerminalPacket(.linkLost))
            }
        }
    }

    public func resumeOutput() {
        for terminal in terminals.values { terminal.link?.resume() }
    }

    // MARK: From order to holder

    private func accepted(_ channel: ChannelID, _ result: Result<Bool, LaunchFailure>) {
        guard let terminal = terminals[channel] else { return }
        terminal.isAccepted = true
        switch result {
        case .failure(let failure): refuse(terminal, failure.code, failure.message)
        case .success: terminal.isDurable = true
        }
    }

    private func launched(_ channel: ChannelID, _ result: Result<ExecutionStore.Launched, SystemError>) {
        guard let terminal = terminals[channel] else { return }
        switch result {
        case .failure(let error):
            complain("terminal.launch-failed", channel, error)
            settle(terminal)
        case .success(.other): settle(terminal)
        case .success(.held(let socket, let holder, let descriptor)):
            holders.reap(ChildProcess(pid: holder, descriptor: Descriptor(owning: descriptor), group: .session))
            guard socket >= 0 else { return settle(terminal) }
            hold(terminal, Descriptor(owning: socket))
        }
    }

    private func take(_ terminal: Terminal, _ state: ExecutionStore.TerminalState) {
        switch state {
        case .held(let socket, let status):
            terminal.status = status
            terminal.inputReceived = max(terminal.inputReceived, status.inputReceived)
            hold(terminal, Descriptor(owning: socket))
            if status.phase == .ended { readEnd(terminal) }
        case .ending:
            terminal.phase = .settling
            later(terminal.channel)
        case .ended(let record):
            terminal.phase = .ended(record)
            finish(terminal, record)
        }
    }

    private func hold(_ terminal: Terminal, _ socket: consuming Descriptor) {
        let link = TerminalLink(terminal.channel, socket, on: loop, owner: self)
        terminal.phase = .held(link)
        do throws(ReactorError) { try loop.add(link, writable: false) } catch {
            complain("terminal.watch-failed", terminal.channel, error)
            return settle(terminal)
        }
        if let size = terminal.earlySize { Self.send(size, to: link) }
        if let from = terminal.attachFrom {
            // A holder that broke off goes on where it was.
            link.send(TerminalPacket(.attach, number: terminal.attachNumber, a: max(from, terminal.position)))
        }
        if !terminal.early.isEmpty {
            var sent = 0
            while sent < terminal.early.count {
                let end = min(sent + WireLimits.dataBytes, terminal.early.count)
                let piece = Array(terminal.early[sent..<end])
                link.send(inputAt: terminal.earlyAt + UInt64(sent), piece.span.bytes)
                sent = end
            }
            terminal.early = []
        }
        if terminal.inputEnded { link.send(TerminalPacket(.inputEnd)) }
        if terminal.cancelWanted { link.send(TerminalPacket(.cancel)) }
    }

    // MARK: The end

    /// The holder has recorded the end and still keeps output.
    private func readEnd(_ terminal: Terminal) {
        let (channel, store) = (terminal.channel, store)
        let found = confined { (terminals: HolderTerminals, record: ExitRecord?) in
            guard let terminal = terminals.terminals[channel], terminal.record == nil else { return }
            // Damaged, which is a failed disk: asked for again when the holder has gone.
            if let record { terminals.finish(terminal, record) }
        }
        _ = files.submit { found(try? store.readExit(store.directory(CommandID(sameAs: channel)))) }
    }

    /// Asks the files how it ended.
    private func settle(_ terminal: Terminal) {
        if let record = terminal.record {
            terminal.phase = .ended(record)
            if !terminal.isAttached { answerForNobody(terminal) }
            return
        }
        terminal.phase = .settling
        let (channel, store) = (terminal.channel, store)
        let settled = confined { (terminals: HolderTerminals, result: Result<ExecutionStore.TerminalState, SystemError>) in
            guard let terminal = terminals.terminals[channel], case .settling = terminal.phase else { return }
            switch result {
            case .failure(let error):
                terminals.complain("terminal.settle-failed", channel, error)
                terminals.later(channel, milliseconds: 1_000)
            case .success(let state): terminals.take(terminal, state)
            }
        }
        let isTaken = files.submit {
            do throws(SystemError) {
                settled(.success(try store.inspectTerminal(CommandID(sameAs: channel))))
            } catch { settled(.failure(error)) }
        }
        if !isTaken { later(channel, milliseconds: 1_000) }
    }

    private func later(_ channel: ChannelID, milliseconds: UInt64 = HolderTerminals.settleMilliseconds) {
        retries.schedule(channel, afterMilliseconds: milliseconds) { [weak self] in
            guard let self, let terminal = terminals[channel] else { return }
            settle(terminal)
        }
    }

    private func refuse(_ terminal: Terminal, _ code: String, _ message: String) {
        let record = ExitRecord(
            command: CommandID(sameAs: terminal.channel), outcome: .refused(code: code, message: message), started: .no,
            finishedAt: unixMilliseconds())
        terminal.phase = .ended(record)
        // The observer must not hear of it from inside `start`.
        let channel = terminal.channel
        loop.post(
            confined { terminals in
                guard let terminal = terminals.terminals[channel], terminal.record == nil else { return }
                terminals.finish(terminal, record)
            })
    }

    private func finish(_ terminal: Terminal, _ record: ExitRecord) {
        terminal.record = record
        if let startedAt = record.startedAt, terminal.status.startedAt == 0 {
            terminal.status.startedAt = startedAt
            observer?.terminalStarted(terminal.channel, at: startedAt)
        }
        if terminal.forgetWanted { return forget(terminal.channel) }
        observer?.terminalFinished(record)
        if terminal.isEnded { answerForNobody(terminal) }
    }

    private func complain(_ event: StaticString, _ channel: ChannelID, _ error: any Error) {
        log?.warning(event, ["channel": .string("\(channel)"), "error": .string("\(error)")])
    }
}

extension HolderTerminals: TerminalLinkOwner {
    func link(_ link: TerminalLink, received packet: TerminalPacket) {
        guard let terminal = terminals[link.channel], terminal.link === link else { return }
        switch packet.kind {
        case .attached:
            guard packet.number == terminal.attachNumber, terminal.attachFrom != nil else { return }
            terminal.isAttached = true
            observer?.terminalAttached(link.channel, at: packet.a)
        case .status:
            guard let status = TerminalStatus(packet) else { return }
            let before = terminal.status
            terminal.status = status
            if before.startedAt == 0, status.startedAt > 0 {
                observer?.terminalStarted(link.channel, at: status.startedAt)
            }
            if status.inputTaken > before.inputTaken {
                observer?.terminalInputTaken(link.channel, upTo: status.inputTaken)
            }
            if status.phase == .ended, terminal.record == nil { readEnd(terminal) }
        default: break
        }
    }

    func link(_ link: TerminalLink, output bytes: RawSpan, at offset: UInt64) -> Bool {
        guard let terminal = terminals[link.channel], terminal.link === link, terminal.isAttached else { return true }
        terminal.position = offset + UInt64(bytes.byteCount)
        return observer?.terminalOutput(link.channel, at: offset, bytes) ?? true
    }

    func linkEnded(_ link: TerminalLink) {
        guard let terminal = terminals[link.channel], terminal.link === link else { return }
        settle(terminal)
    }
}

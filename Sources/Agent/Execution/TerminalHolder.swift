import AgentProtocol
import Glibc
import Reactor
import System

/// `cm-agent hold DIR` for a terminal: owns the pseudo terminal (or the stream), the kept output and the end of it all.
///
/// One thread and `poll`, like `Holder`. Several agents may be connected while one replaces the other; the newest that
/// attached is the reader. What comes in over the socket is bounded by what the agent may send, output by the reader's
/// credit, and what is kept by the ring.
final class TerminalHolder {
    private static let connections = 4
    /// A core that is away keeps its place as the reader for so long; then a lossy terminal runs on without it.
    private static let leaseMilliseconds: UInt64 = 60_000
    /// Read in one turn before the sockets are looked at again.
    private static let turnBytes = 64 << 10
    /// The longest that anything goes on without a core, whatever the order says.
    private static let longestOrphanMilliseconds: UInt64 = 7 * 24 * 3_600_000

    private struct Socket {
        var number: Int32
        var owesStatus = true
    }

    private struct Reader {
        var socket: Int32
        var sent: UInt64
        var credit: UInt64
        /// Everything below has arrived at the core.
        var arrived: UInt64
        /// The number of the attach whose answer is owed.
        var owesAnswer: UInt32?
    }

    private let files: HolderFiles
    private let terminal: TerminalOrder
    private let controlGroups: ControlGroupParent?
    private let ring: OutputRing

    private var line: Descriptor?
    private var isLineOpen = false
    private var lineNumber: Int32 { line?.number ?? -1 }
    private var group: ControlGroup?
    private var leader: pid_t = 0
    private var machine = TerminalHolderStateMachine(startedAt: 0, grace: 0, maximum: nil, idle: nil, orphan: 0)
    private var status = TerminalStatus()
    private var sockets: [Socket] = []
    private var reader: Reader?
    /// Set while the reader's core is away.
    private var leaseUntil: UInt64?
    private var isSocketFull = false
    /// Input that the program has not taken yet; `status.inputTaken` is the offset of its first byte.
    private var input: [UInt8] = []
    private var inputEnds = false
    private var toldTaken: UInt64 = 0
    /// One buffer for packets that come, one for those that go.
    private var incoming = [UInt8](repeating: 0, count: TerminalPacket.maximumBytes)
    private var outgoing: [UInt8] = []

    private var order: Order { terminal.order }

    init(_ files: HolderFiles, _ terminal: TerminalOrder, _ controlGroups: ControlGroupParent?) {
        self.files = files
        self.terminal = terminal
        self.controlGroups = controlGroups
        ring = OutputRing(capacity: Int(min(max(terminal.keptBytes, WireLimits.terminalKeptBytes.lowerBound), WireLimits.terminalKeptBytes.upperBound)))
        outgoing.reserveCapacity(TerminalPacket.maximumBytes)
    }

    // MARK: Start

    func hold() throws(SystemError) {
        if let deadline = order.startBefore, unixMilliseconds() > deadline {
            return try recordEnd(
                .refused(code: "start-deadline-passed", message: "the order came after \(deadline)"), started: .no)
        }
        var launch: Launch
        do throws(LaunchFailure) {
            launch = try Launch(terminal)
        } catch {
            return try recordEnd(.startFailed(code: error.code, message: error.message), started: .no)
        }
        do throws(LaunchFailure) {
            group = try Launch.controlGroup(order, controlGroups)
        } catch {
            return try recordEnd(.startFailed(code: error.code, message: error.message), started: .no)
        }
        launch.spawn.controlGroup = group

        killPoint("holder.start-mark.before")
        let startedAt = unixMilliseconds()
        try files.markStart(at: startedAt)
        killPoint("holder.start-mark.synced")
        let child: ChildProcess
        do throws(LaunchFailure) {
            child = try start(launch)
        } catch {
            _ = group?.remove()
            return try recordEnd(.startFailed(code: error.code, message: error.message), started: .no)
        }
        killPoint("holder.spawned")
        try files.markRunning(leader: child.pid)
        _ = consume launch
        releaseFreeMemory()

        leader = child.pid
        status.phase = .running
        status.startedAt = startedAt
        let now = monotonicNanoseconds()
        machine = TerminalHolderStateMachine(
            startedAt: now / 1_000_000, grace: order.killGraceMilliseconds, maximum: order.timeoutMilliseconds,
            idle: terminal.idleMilliseconds,
            orphan: min(terminal.orphanMilliseconds, Self.longestOrphanMilliseconds))
        // Who opened it is its reader and on the way: what a fast program writes meanwhile is not given up.
        reader = Reader(socket: -1, sent: 0, credit: 0, arrived: 0, owesAnswer: nil)
        leaseUntil = now / 1_000_000 + Self.leaseMilliseconds
        // Until the agent says otherwise nobody is there.
        try apply(.core(false), now / 1_000_000, child, now)
        try serve(child, startedAt: now)
    }

    private func start(_ launch: borrowing Launch) throws(LaunchFailure) -> ChildProcess {
        var spawn = launch.spawn
        switch terminal.form {
        case .stream:
            let pair = try Self.available { () throws(SystemError) in try StreamPair() }
            spawn.descriptors = [pair.theirs.number, pair.theirs.number, pair.theirs.number]
            let child: ChildProcess
            do throws(SpawnError) { child = try spawn.start() } catch { throw Launch.explain(error, spawn) }
            let ours = pair.takeOurs()
            _ = fcntl(ours.number, F_SETFL, O_RDWR | O_NONBLOCK)
            line = consume ours
            isLineOpen = true
            return child
        case .terminal:
            let (rows, columns) = (terminal.size.rows, terminal.size.columns)
            let pseudo = try Self.available { () throws(SystemError) in
                try PseudoTerminal(rows: rows, columns: columns)
            }
            if let owner = launch.owner, fchown(pseudo.terminal.number, owner, gid_t.max) != 0 {
                throw Self.unavailable(SystemError.last("fchown", "terminal"))
            }
            // A copy: `start` uses the value up.
            let copy = fcntl(pseudo.master.number, F_DUPFD_CLOEXEC, 0)
            guard copy >= 0 else { throw Self.unavailable(SystemError.last("fcntl", "terminal")) }
            let ours = Descriptor(owning: copy)
            let child: ChildProcess
            do throws(PseudoTerminal.TerminalError) { child = try pseudo.start(spawn).takeChild() } catch {
                switch error {
                case .spawn(let error): throw Launch.explain(error, spawn)
                case .system(let error): throw Self.unavailable(error)
                }
            }
            line = consume ours
            isLineOpen = true
            return child
        }
    }

    private static func available<Value: ~Copyable>(
        _ body: () throws(SystemError) -> Value
    ) throws(LaunchFailure) -> Value {
        do throws(SystemError) { return try body() } catch { throw unavailable(error) }
    }

    private static func unavailable(_ error: SystemError) -> LaunchFailure {
        LaunchFailure(code: "terminal-unavailable", message: "\(error)")
    }

    // MARK: While it runs

    private func serve(_ child: borrowing ChildProcess, startedAt: UInt64) throws(SystemError) {
        var items: [pollfd] = []
        var hasEnded = false
        while !machine.isOver {
            items.removeAll(keepingCapacity: true)
            items.append(pollfd(fd: hasEnded ? -1 : child.descriptor.number, events: Int16(POLLIN), revents: 0))
            items.append(pollfd(fd: files.listener.number, events: Int16(POLLIN), revents: 0))
            // Without a wish it is not asked at all: a terminal that was hung up would answer at once, again and again.
            let wish = lineEvents
            items.append(pollfd(fd: isLineOpen && wish != 0 ? lineNumber : -1, events: wish, revents: 0))
            for socket in sockets {
                let isBlocked = socket.owesStatus || (isSocketFull && socket.number == reader?.socket)
                items.append(
                    pollfd(fd: socket.number, events: Int16(isBlocked ? POLLIN | POLLOUT : POLLIN), revents: 0))
            }
            _ = poll(&items, nfds_t(items.count), timeout())

            let now = monotonicNanoseconds() / 1_000_000
            if items[2].revents & Int16(POLLOUT) != 0 { writeInput() }
            if items[2].revents & ~Int16(POLLOUT) != 0 { try readOutput(now, child, startedAt) }
            // Nobody is there any more to take it.
            if items[2].revents & Int16(POLLHUP | POLLERR) != 0 { input.removeAll() }
            for index in items.indices.dropFirst(3) where items[index].revents != 0 {
                if items[index].revents & Int16(POLLOUT) != 0, items[index].fd == reader?.socket { isSocketFull = false }
                if items[index].revents & ~Int16(POLLOUT) != 0 { try receive(items[index].fd, now, child, startedAt) }
            }
            if items[1].revents != 0 { acceptConnections() }
            if !hasEnded, items[0].revents != 0 {
                hasEnded = true
                // Not reaped yet: its number has to mean this session until everything of it is gone.
                try apply(.ended(howItEnded(child)), now, child, startedAt)
            }
            if let leaseUntil, now >= leaseUntil {
                self.leaseUntil = nil
                reader = nil
            }
            if let deadline = machine.nextDeadline, now >= deadline {
                let isLeft = machine.asksForRest && isAnythingLeft
                let isBlocked = isLineOpen && ring.room(givingUp: mayGiveUp) == 0
                try apply(.time(isAnythingLeft: isLeft, isBlocked: isBlocked), now, child, startedAt)
            }
            sendStatus()
            sendOutput()
        }
    }

    private var lineEvents: Int16 {
        var events: Int32 = 0
        if ring.room(givingUp: mayGiveUp) > 0 { events |= POLLIN }
        if !input.isEmpty || inputEnds { events |= POLLOUT }
        return Int16(events)
    }

    /// Kept output below this may make room.
    private var mayGiveUp: UInt64 {
        if let reader { return reader.arrived }
        return terminal.isLossy ? ring.end : arrived
    }

    /// What had arrived when the last reader left, for a terminal that loses nothing.
    private var arrived: UInt64 = 0

    private func timeout() -> Int32 {
        var deadline = machine.nextDeadline
        if let leaseUntil { deadline = min(deadline ?? .max, leaseUntil) }
        guard let deadline else { return -1 }
        let now = monotonicNanoseconds() / 1_000_000
        return deadline <= now ? 0 : Int32(clamping: deadline - now)
    }

    private func readOutput(
        _ now: UInt64, _ child: borrowing ChildProcess, _ startedAt: UInt64
    ) throws(SystemError) {
        let number = lineNumber
        var budget = Self.turnBytes
        while budget > 0 {
            let room = min(ring.room(givingUp: mayGiveUp), WireLimits.dataBytes)
            guard room > 0 else { return }
            let count = ring.readOnce(number, maximum: room)
            if count > 0 {
                budget -= count
                continue
            }
            if count < 0, errno == EINTR { continue }
            if count < 0, errno == EAGAIN { return }
            // EIO: the last process has closed the terminal; 0: the stream's other end is closed.
            isLineOpen = false
            return try apply(.outputEnded, now, child, startedAt)
        }
    }

    private func writeInput() {
        guard isLineOpen else { return }
        let number = lineNumber
        var done = 0
        while done < input.count {
            // Invariant: the piece lies inside the array.
            let count = input.withUnsafeBytes { unsafe write(number, $0.baseAddress! + done, $0.count - done) }
            if count > 0 { done += count } else if errno != EINTR { break }
        }
        if done > 0 {
            status.inputTaken += UInt64(done)
            if done == input.count { input.removeAll(keepingCapacity: input.capacity <= 4_096) } else { input.removeFirst(done) }
            if status.inputTaken - toldTaken >= WireLimits.inputWindowBytes / 4 {
                toldTaken = status.inputTaken
                oweStatus()
            }
        }
        if input.isEmpty, inputEnds {
            inputEnds = false
            shutdown(number, Int32(SHUT_WR))
        }
    }

    // MARK: The end

    private func howItEnded(_ child: borrowing ChildProcess) -> HolderStateMachine.Ending {
        var info = siginfo_t()
        guard waitid(P_PID, id_t(child.pid), &info, WEXITED | WNOWAIT | WNOHANG) == 0 else { return .exited(-1) }
        let value = info._sifields._sigchld.si_status
        return info.si_code == Int32(CLD_EXITED) ? .exited(value) : .signaled(value)
    }

    private var isAnythingLeft: Bool {
        if let group { return group.isPopulatedBesides(leader) }
        return Machine.signalSession(leader, mark: Launch.mark(order.command), 0) > 0
    }

    private func apply(
        _ input: TerminalHolderStateMachine.Input, _ now: UInt64, _ child: borrowing ChildProcess, _ startedAt: UInt64
    ) throws(SystemError) {
        for action in machine.receive(input, now: now) {
            switch action {
            case .terminate:
                // A shell that somebody types into ignores TERM; HUP is what a terminal that goes away says.
                for number in [SIGHUP, SIGTERM, SIGCONT] {
                    Machine.signalSession(leader, mark: Launch.mark(order.command), number)
                }
            case .kill:
                Machine.signalSession(leader, mark: Launch.mark(order.command), SIGKILL)
                _ = group?.killAll()
            case .record(let outcome):
                drain()
                let process = try child.reap()
                let micros = (monotonicNanoseconds() - startedAt) / 1_000
                try recordEnd(outcome, started: .yes, process, durationMicroseconds: micros)
                if let group { _ = group.remove() }
            case .leave: break
            }
        }
    }

    /// What lies in the terminal when the end is decided still counts, as far as there is room.
    private func drain() {
        guard isLineOpen else { return }
        let number = lineNumber
        while case let room = min(ring.room(givingUp: mayGiveUp), WireLimits.dataBytes), room > 0 {
            if ring.readOnce(number, maximum: room) <= 0 { break }
        }
        isLineOpen = false
        line = nil
    }

    private func recordEnd(
        _ outcome: Outcome, started: Started, _ process: ProcessEnd? = nil, durationMicroseconds: UInt64 = 0
    ) throws(SystemError) {
        try files.writeExit(
            ExitRecord(
                command: order.command, outcome: outcome, started: started,
                startedAt: status.startedAt == 0 ? nil : status.startedAt, finishedAt: unixMilliseconds(),
                durationMicroseconds: durationMicroseconds, userMicroseconds: process?.userMicroseconds ?? 0,
                systemMicroseconds: process?.systemMicroseconds ?? 0,
                maximumResidentBytes: process.map { HolderFiles.measured($0.maximumResidentBytes) } ?? 0,
                standardOutputBytes: ring.end))
        status.phase = .ended
        oweStatus()
    }

    // MARK: The agent

    private func acceptConnections() {
        while true {
            var accepted: Int32 = -1
            do throws(SystemError) {
                guard let socket = try PacketSocket.accept(files.listener) else { return }
                accepted = socket.release()
            } catch { return }
            if sockets.count >= Self.connections { close(accepted) } else { sockets.append(Socket(number: accepted)) }
        }
    }

    private func oweStatus() {
        for index in sockets.indices { sockets[index].owesStatus = true }
    }

    private func receive(
        _ number: Int32, _ now: UInt64, _ child: borrowing ChildProcess, _ startedAt: UInt64
    ) throws(SystemError) {
        while true {
            let socket = Descriptor(owning: number)
            var received = PacketSocket.Received.ended
            do throws(SystemError) { received = try PacketSocket.receive(socket, into: &incoming) } catch {}
            switch received {
            case .packet(let count):
                _ = socket.release()
                try take(count, from: number, now, child, startedAt)
                if machine.isOver { return }
            case .nothingYet:
                _ = socket.release()
                return
            case .ended:
                // Dropping the descriptor closes it.
                sockets.removeAll { $0.number == number }
                if reader?.socket == number { linkLost(now) }
                if sockets.isEmpty { try apply(.core(false), now, child, startedAt) }
                return
            }
        }
    }

    private func take(
        _ count: Int, from number: Int32, _ now: UInt64, _ child: borrowing ChildProcess, _ startedAt: UInt64
    ) throws(SystemError) {
        guard let packet = TerminalPacket(incoming.span.bytes.extracting(0..<count)) else { return }
        switch packet.kind {
        case .attach:
            try apply(.core(true), now, child, startedAt)
            leaseUntil = nil
            isSocketFull = false
            let from = min(max(packet.a, ring.keptFrom), ring.end)
            reader = Reader(
                socket: number, sent: from, credit: from + WireLimits.initialWindowBytes, arrived: from,
                owesAnswer: packet.number)
        case .detach:
            try apply(.core(true), now, child, startedAt)
            leaseUntil = nil
            leaveReader()
        case .linkLost:
            linkLost(now)
            try apply(.core(false), now, child, startedAt)
        case .credit:
            guard reader?.socket == number, let credit = reader?.credit, packet.a > credit else { return }
            reader?.credit = packet.a
        case .arrived:
            guard let known = reader, known.socket == number, packet.a > known.arrived else { return }
            reader?.arrived = min(packet.a, known.sent)
        case .input:
            try takeInput(at: packet.a, count, now, child, startedAt)
        case .inputEnd:
            if terminal.form == .stream { inputEnds = true }
            writeInput()
        case .resize: resize(packet.a)
        case .signal: signal(Int32(clamping: packet.a))
        case .cancel: try apply(.cancel, now, child, startedAt)
        case .forget: try apply(.forget, now, child, startedAt)
        case .status, .attached, .output: break
        }
    }

    private func linkLost(_ now: UInt64) {
        guard reader != nil, leaseUntil == nil else { return }
        // What was handed to the socket may never have arrived; the next attach says from where.
        leaseUntil = now + Self.leaseMilliseconds
        reader?.socket = -1
        reader?.owesAnswer = nil
    }

    private func leaveReader() {
        if let reader { arrived = reader.arrived }
        reader = nil
    }

    /// Exactly once: what has come before is skipped by its offset, and a gap is not taken.
    private func takeInput(
        at offset: UInt64, _ count: Int, _ now: UInt64, _ child: borrowing ChildProcess, _ startedAt: UInt64
    ) throws(SystemError) {
        let bytes = UInt64(count - TerminalPacket.headBytes)
        guard offset <= status.inputReceived, offset + bytes > status.inputReceived else { return }
        let known = Int(status.inputReceived - offset)
        guard UInt64(input.count) + bytes <= WireLimits.inputWindowBytes * 2 else { return }
        status.inputReceived = offset + bytes
        try apply(.input, now, child, startedAt)
        guard isLineOpen else { return }
        input.append(contentsOf: incoming[(TerminalPacket.headBytes + known)..<count])
        writeInput()
    }

    private func resize(_ packed: UInt64) {
        guard terminal.form == .terminal, isLineOpen else { return }
        let (rows, columns) = (UInt16(truncatingIfNeeded: packed), UInt16(truncatingIfNeeded: packed >> 16))
        let master = Descriptor(owning: lineNumber)
        do throws(SystemError) { try PseudoTerminal.resize(master, rows: rows, columns: columns) } catch {}
        _ = master.release()
    }

    private func signal(_ number: Int32) {
        guard number > 0, number < 32, status.phase == .running else { return }
        var group = leader
        if terminal.form == .terminal, isLineOpen {
            let master = Descriptor(owning: lineNumber)
            group = PseudoTerminal.foreground(master) ?? leader
            _ = master.release()
        }
        kill(-group, number)
    }

    // MARK: To the agent

    private func sendStatus() {
        guard sockets.contains(where: \.owesStatus) else { return }
        status.keptFrom = ring.keptFrom
        status.outputEnd = ring.end
        status.packet.write(to: &outgoing)
        for index in sockets.indices where sockets[index].owesStatus {
            if send(to: sockets[index].number) { sockets[index].owesStatus = false }
        }
    }

    private func sendOutput() {
        guard var reader, reader.socket >= 0, !isSocketFull else { return }
        defer { if self.reader != nil { self.reader = reader } }
        if let answer = reader.owesAnswer {
            TerminalPacket(.attached, number: answer, a: reader.sent).write(to: &outgoing)
            guard send(to: reader.socket) else {
                isSocketFull = true
                return
            }
            reader.owesAnswer = nil
        }
        while case let limit = min(ring.end, reader.credit), reader.sent < limit {
            let count = min(Int(limit - reader.sent), WireLimits.dataBytes)
            TerminalPacket(.output, a: reader.sent).write(to: &outgoing)
            ring.append(from: reader.sent, count: count, to: &outgoing)
            guard send(to: reader.socket) else {
                isSocketFull = true
                return
            }
            reader.sent += UInt64(count)
        }
    }

    /// True: sent, or nobody is there any more.
    private func send(to number: Int32) -> Bool {
        let socket = Descriptor(owning: number)
        var isSent = true
        do throws(SystemError) { isSent = try PacketSocket.send(outgoing, to: socket) } catch {}
        _ = socket.release()
        return isSent
    }
}

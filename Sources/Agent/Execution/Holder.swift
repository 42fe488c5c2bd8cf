import AgentProtocol
import Glibc
import Reactor
import System

/// `cm-agent hold DIR`: starts one program at most once, keeps its output and writes how it ended.
///
/// A process of its own in a session of its own, so that it outlives the death and the upgrade of the agent. One
/// thread and `poll`, no event loop: it has to stay under 1 MiB. Inherited from the agent: descriptor 3 is the journal,
/// locked (`flock`) from before the holder exists until it ends, so a free lock means that no holder lives or will;
/// descriptor 4 listens at `DIR/socket`, so a refused connection means the same.
public final class Holder {
    private static let connections = 4
    private static let retryMilliseconds: UInt64 = 500

    private let files: HolderFiles
    private var order: Order
    private let controlGroups: ControlGroupParent?

    /// Connected agents; true: the present state has yet to be told. Closed when the peer has ended.
    private var sockets: [Int32: Bool] = [:]
    private var status = HolderStatus()
    private var spools: [Spool] = []
    private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 16 << 10, alignment: 16)

    /// The whole life of a holder. Returns the exit status of the process.
    public static func run(directory: String, controlGroups: ControlGroupParent?) -> Int32 {
        signal(SIGPIPE, SIG_IGN)
        signal(SIGHUP, SIG_IGN)
        signal(SIGINT, SIG_IGN)
        do throws(SystemError) {
            // `nil`: the program has been started before, or its end is recorded; nothing may run.
            guard let files = try HolderFiles(directory: directory) else { return 0 }
            if let terminal = files.journal.terminal {
                try TerminalHolder(files, terminal, controlGroups).hold()
            } else {
                try Holder(files, controlGroups).hold()
            }
            return 0
        } catch {
            return 1
        }
    }

    private init(_ files: HolderFiles, _ controlGroups: ControlGroupParent?) {
        self.files = files
        self.controlGroups = controlGroups
        order = files.journal.order
    }

    deinit { buffer.deallocate() }

    private func hold() throws(SystemError) {
        if let deadline = order.startBefore, unixMilliseconds() > deadline {
            return try recordEnd(
                .refused(code: "start-deadline-passed", message: "the client's turn came after \(deadline)"), started: .no)
        }
        if !order.secretEnvironment.isEmpty {
            guard let secrets = SecretVariables.take(order.secretEnvironment.keys) else {
                return try recordEnd(.startFailed(code: "secrets-gone", message: SecretVariables.goneMessage), started: .no)
            }
            order.secretEnvironment = secrets
        }
        let output = try Pipe()
        let errors = try Pipe()
        let launch: Launch
        do throws(LaunchFailure) {
            launch = try Launch(
                order, directory: files.directory, output: output.writeEnd.number, errors: errors.writeEnd.number)
        } catch {
            return try recordEnd(.startFailed(code: error.code, message: error.message), started: .no)
        }
        try start(consume launch, output: consume output, errors: consume errors)
    }

    private func start(
        _ launch: consuming Launch, output: consuming Pipe, errors: consuming Pipe
    ) throws(SystemError) {
        let group: ControlGroup?
        do throws(LaunchFailure) { group = try Launch.controlGroup(order, controlGroups) } catch {
            return try recordEnd(.startFailed(code: error.code, message: error.message), started: .no)
        }
        launch.spawn.controlGroup = group

        killPoint("holder.start-mark.before")
        let startedAt = unixMilliseconds()
        try files.markStart(at: startedAt)
        killPoint("holder.start-mark.synced")

        let child: ChildProcess
        do throws(SpawnError) { child = try launch.spawn.start() } catch {
            _ = group?.remove()
            let failure = Launch.explain(error, launch.spawn)
            return try recordEnd(.startFailed(code: failure.code, message: failure.message), started: .no)
        }
        killPoint("holder.spawned")
        try files.markRunning(leader: child.pid)
        killPoint("holder.running-mark.written")

        status.phase = .running
        status.startedAt = startedAt
        spools = [
            try spool(.standardOutput, output.takeReadEnd()), try spool(.standardError, errors.takeReadEnd()),
        ]
        // The order's texts and the script are no longer needed and may have been large.
        _ = consume launch
        order.secretEnvironment = [:]
        releaseFreeMemory()
        let end = watch(child, group)
        try recordEnd(end.outcome, started: .yes, end)
        if let group { _ = group.remove() }
    }

    private func spool(_ stream: OutputStream, _ pipe: consuming Descriptor) throws(SystemError) -> Spool {
        try pipe.setNonBlocking()
        return Spool(stream, pipe: pipe, path: ExecutionFiles.spool(files.directory, stream))
    }

    // MARK: While the program runs

    private struct End {
        var outcome = Outcome.interrupted(reason: "holder-failed")
        var process: ProcessEnd?
        var durationMicroseconds: UInt64 = 0
    }

    private func watch(_ child: borrowing ChildProcess, _ group: ControlGroup?) -> End {
        let startedAt = monotonicNanoseconds()
        var machine = HolderStateMachine(
            startedAt: startedAt / 1_000_000, timeout: order.timeoutMilliseconds, grace: order.killGraceMilliseconds)
        var end = End()
        var items: [pollfd] = []
        while !machine.finished {
            items.removeAll(keepingCapacity: true)
            items.append(pollfd(fd: end.process == nil ? child.descriptor.number : -1, events: Int16(POLLIN), revents: 0))
            items.append(pollfd(fd: files.listener.number, events: Int16(POLLIN), revents: 0))
            for spool in spools {
                items.append(pollfd(fd: spool.wantsInput ? spool.pipeNumber : -1, events: Int16(POLLIN), revents: 0))
            }
            for (socket, stale) in sockets {
                items.append(pollfd(fd: socket, events: Int16(stale ? POLLIN | POLLOUT : POLLIN), revents: 0))
            }
            _ = poll(&items, nfds_t(items.count), pollTimeout(machine))

            let now = monotonicNanoseconds() / 1_000_000
            var inputs: [HolderStateMachine.Input] = []
            readOutput(now, &inputs)
            if items[1].revents != 0 { acceptConnections() }
            if serveConnections(items.dropFirst(4)) { inputs.append(.cancel) }
            if end.process == nil, items[0].revents != 0 {
                var process: ProcessEnd?
                do throws(SystemError) { process = try child.reap() } catch {}
                if let process {
                    end.process = process
                    end.durationMicroseconds = (monotonicNanoseconds() - startedAt) / 1_000
                    switch process.how {
                    case .exited(let code): inputs.append(.ended(.exited(code)))
                    case .signaled(let signal): inputs.append(.ended(.signaled(signal)))
                    }
                }
            }
            if let deadline = machine.nextDeadline, now >= deadline {
                inputs.append(.time(groupExists: group?.isPopulated ?? child.groupExists))
            }
            for input in inputs {
                for action in machine.receive(input, now: now) {
                    switch action {
                    case .terminateGroup: child.signalGroup(SIGTERM)
                    case .killGroup:
                        child.signalGroup(SIGKILL)
                        _ = group?.killAll()
                    case .finish(let outcome): end.outcome = outcome
                    }
                }
            }
            sendStatus()
        }
        drainPipes()
        return end
    }

    private func pollTimeout(_ machine: HolderStateMachine) -> Int32 {
        var deadline = machine.nextDeadline
        let now = monotonicNanoseconds() / 1_000_000
        if spools.contains(where: \.isStalled) { deadline = min(deadline ?? .max, now + Self.retryMilliseconds) }
        guard let deadline else { return -1 }
        return deadline <= now ? 0 : Int32(clamping: deadline - now)
    }

    private var kept: UInt64 { spools.reduce(0) { $0 + $1.length } }

    private func readOutput(_ now: UInt64, _ inputs: inout [HolderStateMachine.Input]) {
        for spool in spools where spool.isOpen {
            if spool.isStalled { spool.retry(now: now) }
            guard spool.wantsInput else { continue }
            _ = spool.readOnce(buffer, allowance: order.outputLimitBytes - min(kept, order.outputLimitBytes), now: now)
            if !spool.isOpen { inputs.append(.streamEnded(spool.stream)) }
        }
        noteLengths()
    }

    /// What lies in the pipes when the end is decided still counts, up to the size of a pipe.
    private func drainPipes() {
        let now = monotonicNanoseconds() / 1_000_000
        for spool in spools {
            var budget = 1 << 20
            while budget > 0, spool.wantsInput,
                let count = spool.readOnce(
                    buffer, allowance: order.outputLimitBytes - min(kept, order.outputLimitBytes), now: now)
            { budget -= max(count, 1) }
        }
        noteLengths()
    }

    private func noteLengths() {
        guard spools.count == 2 else { return }
        let lengths = (spools[0].length, spools[1].length)
        guard lengths != (status.standardOutputBytes, status.standardErrorBytes) else { return }
        (status.standardOutputBytes, status.standardErrorBytes) = lengths
        for socket in sockets.keys { sockets[socket] = true }
    }

    // MARK: The agent

    private func acceptConnections() {
        while true {
            var accepted: Int32 = -1
            do throws(SystemError) {
                guard let socket = try PacketSocket.accept(files.listener) else { return }
                accepted = socket.release()
            } catch { return }
            if sockets.count >= Self.connections { close(accepted) } else { sockets[accepted] = true }
        }
    }

    /// True when somebody asked for the end.
    private func serveConnections(_ items: ArraySlice<pollfd>) -> Bool {
        var cancel = false
        var packet = [UInt8](repeating: 0, count: 64)
        for item in items where item.revents & Int16(POLLIN | POLLHUP | POLLERR) != 0 {
            receiving: while true {
                let socket = Descriptor(owning: item.fd)
                var received = PacketSocket.Received.ended
                do throws(SystemError) { received = try PacketSocket.receive(socket, into: &packet) } catch {}
                switch received {
                case .packet(let count):
                    if HolderRequest(packet[..<count]) == .cancel { cancel = true }
                    _ = socket.release()
                case .nothingYet:
                    _ = socket.release()
                    break receiving
                case .ended:
                    sockets[item.fd] = nil
                    break receiving  // dropping the descriptor closes it
                }
            }
        }
        return cancel
    }

    private func sendStatus() {
        for (number, stale) in sockets where stale {
            let socket = Descriptor(owning: number)
            var sent = false
            do throws(SystemError) { sent = try PacketSocket.send(status.bytes, to: socket) } catch { sent = true }
            if sent { sockets[number] = false }
            _ = socket.release()
        }
    }

    // MARK: The end

    private func recordEnd(_ outcome: Outcome, started: Started, _ end: End = End()) throws(SystemError) {
        for spool in spools { try spool.sync() }
        let record = ExitRecord(
            command: order.command, outcome: outcome, started: started,
            startedAt: status.startedAt == 0 ? nil : status.startedAt, finishedAt: unixMilliseconds(),
            durationMicroseconds: end.durationMicroseconds, userMicroseconds: end.process?.userMicroseconds ?? 0,
            systemMicroseconds: end.process?.systemMicroseconds ?? 0,
            maximumResidentBytes: end.process.map { HolderFiles.measured($0.maximumResidentBytes) } ?? 0,
            standardOutputBytes: status.standardOutputBytes, standardErrorBytes: status.standardErrorBytes,
            truncated: spools.contains(where: \.dropped))
        try files.writeExit(record)
        status.phase = .finished
        // An agent that connects or reads too late learns it from the file, when the socket closes.
        for socket in sockets.keys { sockets[socket] = true }
        sendStatus()
        killPoint("holder.exit.told")
    }
}

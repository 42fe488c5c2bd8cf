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
    static let journalNumber: Int32 = 3
    static let listenerNumber: Int32 = 4
    private static let connections = 4
    private static let retryMilliseconds: UInt64 = 500

    private let directory: String
    private let journalFile: Descriptor
    private let listener: Descriptor
    private let order: Order
    private let controlGroups: ControlGroupParent?
    private let exitFile: Descriptor

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
            guard let holder = try Holder(directory: directory, controlGroups: controlGroups) else { return 0 }
            try holder.hold()
            return 0
        } catch {
            return 1
        }
    }

    /// `nil`: the program has been started before, or its end is recorded; nothing may run.
    private init?(directory: String, controlGroups: ControlGroupParent?) throws(SystemError) {
        let path = directory + "/journal"
        var inherited = stat()
        let named = try Files.status(path)
        guard fstat(Self.journalNumber, &inherited) == 0, UInt64(inherited.st_ino) == named.inode,
            fcntl(Self.listenerNumber, F_GETFD) >= 0
        else { throw SystemError("hold", directory, code: EINVAL) }
        journalFile = Descriptor(owning: Self.journalNumber)
        listener = Descriptor(owning: Self.listenerNumber)
        _ = fcntl(Self.journalNumber, F_SETFD, FD_CLOEXEC)
        _ = fcntl(Self.listenerNumber, F_SETFD, FD_CLOEXEC)
        self.directory = directory
        self.controlGroups = controlGroups

        let journal: ExecutionJournal
        do throws(ExecutionJournal.Damage) {
            journal = try ExecutionJournal(parsing: try Self.readJournal(path))
        } catch { throw SystemError("journal", path, code: EBADMSG) }
        order = journal.order
        if journal.startMark != nil || Files.exists(directory + "/exit") { return nil }

        // Room for the end is taken before the beginning: a full disk cannot keep it from being recorded.
        exitFile = try Descriptor.open(directory + "/exit.new", O_WRONLY | O_CREAT | O_TRUNC)
        try exitFile.reserve(Int64(ExitFile.maximumBytes))
    }

    deinit { buffer.deallocate() }

    private static func readJournal(_ path: String) throws(ExecutionJournal.Damage) -> [UInt8] {
        do throws(SystemError) { return try Files.read(path, limit: ExecutionJournal.maximumBytes) } catch {
            throw .unreadableOrder("\(error)")
        }
    }

    private func hold() throws(SystemError) {
        if let deadline = order.startBefore, unixMilliseconds() > deadline {
            return try recordEnd(
                .refused(code: "start-deadline-passed", message: "the client's turn came after \(deadline)"), started: .no)
        }
        let output = try Pipe()
        let errors = try Pipe()
        let launch: Launch
        do throws(LaunchFailure) {
            launch = try Launch(
                order, directory: directory, output: output.writeEnd.number, errors: errors.writeEnd.number)
        } catch {
            return try recordEnd(.startFailed(code: error.code, message: error.message), started: .no)
        }
        try start(consume launch, output: consume output, errors: consume errors)
    }

    private func start(
        _ launch: consuming Launch, output: consuming Pipe, errors: consuming Pipe
    ) throws(SystemError) {
        let group: ControlGroup?
        do throws(LaunchFailure) { group = try makeControlGroup() } catch {
            return try recordEnd(.startFailed(code: error.code, message: error.message), started: .no)
        }
        launch.spawn.controlGroup = group

        killPoint("holder.start-mark.before")
        let startedAt = unixMilliseconds()
        try append(ExecutionJournal.startMarkRecord(at: startedAt))
        try journalFile.syncData(subject: directory)
        killPoint("holder.start-mark.synced")

        let child: ChildProcess
        do throws(SpawnError) { child = try launch.spawn.start() } catch {
            _ = group?.remove()
            let failure = Launch.explain(error, launch.spawn)
            return try recordEnd(.startFailed(code: failure.code, message: failure.message), started: .no)
        }
        killPoint("holder.spawned")
        try append(ExecutionJournal.runningRecord(leader: child.pid))
        killPoint("holder.running-mark.written")

        status.phase = .running
        status.startedAt = startedAt
        spools = [
            try spool(.standardOutput, output.takeReadEnd()), try spool(.standardError, errors.takeReadEnd()),
        ]
        // The order's texts and the script are no longer needed and may have been large.
        _ = consume launch
        releaseFreeMemory()
        let end = watch(child, group)
        try recordEnd(end.outcome, started: .yes, end)
        if let group { _ = group.remove() }
    }

    private func spool(_ stream: OutputStream, _ pipe: consuming Descriptor) throws(SystemError) -> Spool {
        try pipe.setNonBlocking()
        return Spool(stream, pipe: pipe, path: ExecutionFiles.spool(directory, stream))
    }

    private func makeControlGroup() throws(LaunchFailure) -> ControlGroup? {
        let limited = order.memoryLimitBytes != nil || order.processorLimitMillis != nil
        guard let controlGroups else {
            guard !limited else {
                throw LaunchFailure(
                    code: "limits-unavailable",
                    message: "this agent may not make control groups (version 2), so it cannot limit memory or CPU")
            }
            return nil
        }
        guard order.memoryLimitBytes == nil || controlGroups.limitsMemory,
            order.processorLimitMillis == nil || controlGroups.limitsProcessor
        else {
            throw LaunchFailure(
                code: "limits-unavailable",
                message: "the control group \(controlGroups.path) has no memory or cpu controller handed down to it")
        }
        do throws(SystemError) {
            let group = try controlGroups.make("\(order.command)")
            if let bytes = order.memoryLimitBytes { try group.limitMemory(bytes) }
            if let millis = order.processorLimitMillis { try group.limitProcessor(millis) }
            return group
        } catch {
            guard limited else { return nil }
            throw LaunchFailure(code: "limits-unavailable", message: "control group: \(error)")
        }
    }

    private func append(_ record: [UInt8]) throws(SystemError) {
        try journalFile.write(record.span.bytes, subject: directory + "/journal")
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
            items.append(pollfd(fd: listener.number, events: Int16(POLLIN), revents: 0))
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
                guard let socket = try PacketSocket.accept(listener) else { return }
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

    /// Until exec the child lived in the holder's memory, and the kernel counts that as the child's. A peak that is not
    /// above the holder's own says nothing about the program: 0, not known. The holder's own is VmHWM, because its
    /// ru_maxrss in turn counts the agent's memory from before the holder's exec.
    private static func measured(_ peak: UInt64) -> UInt64 {
        guard let status = try? Files.read("/proc/self/status", limit: 16 << 10) else { return 0 }
        for line in status.split(separator: 0x0A) where line.starts(with: "VmHWM:".utf8) {
            var kibibytes: UInt64 = 0
            for byte in line where byte >= 0x30 && byte <= 0x39 { kibibytes = kibibytes &* 10 &+ UInt64(byte - 0x30) }
            return peak > kibibytes &* 1_024 ? peak : 0
        }
        return 0
    }

    private func recordEnd(_ outcome: Outcome, started: Started, _ end: End = End()) throws(SystemError) {
        for spool in spools { try spool.sync() }
        let record = ExitRecord(
            command: order.command, outcome: outcome, started: started,
            startedAt: status.startedAt == 0 ? nil : status.startedAt, finishedAt: unixMilliseconds(),
            durationMicroseconds: end.durationMicroseconds, userMicroseconds: end.process?.userMicroseconds ?? 0,
            systemMicroseconds: end.process?.systemMicroseconds ?? 0,
            maximumResidentBytes: end.process.map { Self.measured($0.maximumResidentBytes) } ?? 0,
            standardOutputBytes: status.standardOutputBytes, standardErrorBytes: status.standardErrorBytes,
            truncated: spools.contains(where: \.dropped))
        killPoint("holder.exit.write.before")
        try exitFile.write(ExitFile.encode(record).span.bytes, at: 0, subject: directory + "/exit.new")
        try exitFile.sync(subject: directory + "/exit.new")
        killPoint("holder.exit.synced")
        try Files.rename(directory + "/exit.new", to: directory + "/exit")
        killPoint("holder.exit.renamed")
        try Files.syncDirectory(directory)
        status.phase = .finished
        // An agent that connects or reads too late learns it from the file, when the socket closes.
        for socket in sockets.keys { sockets[socket] = true }
        sendStatus()
        killPoint("holder.exit.told")
    }
}

import AgentProtocol
import Glibc
import Reactor
import System

/// The agent's executions on disk. Everything here blocks and belongs on a pool's thread (or before the loops start);
/// calls for one command do not overlap.
struct ExecutionStore: Sendable {
    /// `A/executions`.
    let root: String
    let policyPath: String
    let bootID: String
    /// The holder's program and the arguments before its directory.
    let holderProgram: String
    let holderArguments: [String]
    let controlGroups: ControlGroupParent?
    /// The agent's own user, for the environment of programs that run as it.
    let account: UserAccount

    /// New orders are refused below this, so that exit records and running output have room.
    static let freeSpaceBytes: UInt64 = 32 << 20

    enum State: Sendable {
        /// Journaled, not started, nobody holds it.
        case waiting(Order)
        /// A holder lives; its socket. The receiver closes it.
        case held(socket: Int32)
        /// A holder lives but takes no connection any more: it is about to end.
        case ending
        case ended(ExitRecord)
    }

    enum Launched: Sendable {
        /// The socket, and the holder as our child; the receiver closes both descriptors.
        case held(socket: Int32, holder: pid_t, holderDescriptor: Int32)
        case other(State)
    }

    func directory(_ command: CommandID) -> String { "\(root)/\(command)" }

    // MARK: Taking an order

    /// Makes the order durable. When this returns, it will have exactly one end, whatever dies.
    func accept(_ order: Order) throws(LaunchFailure) -> LocalPolicy {
        let policy = LocalPolicy.load(policyPath)
        if let refusal = policy.refusal(of: order) { throw LaunchFailure(code: "agent-policy", message: refusal) }
        // The journal says that there are secrets, and which; their values stay in memory.
        var written = order
        written.secretEnvironment = order.secretEnvironment.mapValues { _ in "" }
        try journal(order.command, ExecutionJournal.orderRecord(written, bootID: bootID))
        return policy
    }

    /// The same for a terminal.
    func accept(_ terminal: TerminalOrder) throws(LaunchFailure) {
        if let refusal = LocalPolicy.load(policyPath).refusal(of: terminal) {
            throw LaunchFailure(code: "agent-policy", message: refusal)
        }
        try journal(terminal.order.command, ExecutionJournal.orderRecord(terminal, bootID: bootID))
    }

    private func journal(_ command: CommandID, _ record: [UInt8]) throws(LaunchFailure) {
        do throws(SystemError) {
            if try Files.freeSpace(root) < Self.freeSpaceBytes {
                throw SystemError("accept", root, code: ENOSPC)
            }
            try write(command, record)
        } catch {
            let fresh = "\(root)/\(ExecutionFiles.newPrefix)\(command)"
            do throws(SystemError) { try Files.removeTree(fresh) } catch {}
            throw LaunchFailure(
                code: error.isOutOfSpace ? "agent-disk-full" : "agent-storage-failed",
                message: "the order could not be journaled: \(error)")
        }
    }

    private func write(_ command: CommandID, _ record: [UInt8]) throws(SystemError) {
        let fresh = "\(root)/\(ExecutionFiles.newPrefix)\(command)"
        try Files.removeTree(fresh)
        try Files.makeDirectory(fresh)
        let path = ExecutionFiles.journal(fresh)
        let journal = try Descriptor.open(path, O_WRONLY | O_CREAT | O_EXCL)
        killPoint("agent.order.write.before")
        try journal.write(record.span.bytes, subject: path)
        try journal.sync(subject: path)
        killPoint("agent.order.synced")
        try Files.syncDirectory(fresh)
        try Files.rename(fresh, to: directory(command))
        killPoint("agent.order.renamed")
        try Files.syncDirectory(root)
        killPoint("agent.order.accepted")
    }

    // MARK: Looking

    /// Every execution on disk, oldest first; what was half made or half removed is cleared away.
    func scan() throws(SystemError) -> [CommandID] {
        var commands: [CommandID] = []
        for name in try Files.list(root) {
            if let command = CommandID(name) {
                commands.append(command)
            } else if name.hasPrefix(ExecutionFiles.newPrefix) || name.hasPrefix(ExecutionFiles.gonePrefix) {
                try Files.removeTree(root + "/" + name)
            }
        }
        return commands.sorted()
    }

    /// How an execution stands. One whose holder is dead gets its `interrupted` record here.
    func inspect(_ command: CommandID) throws(SystemError) -> State {
        let directory = directory(command)
        if let record = try readExit(directory) { return .ended(record) }
        let path = ExecutionFiles.journal(directory)
        let file: Descriptor
        do throws(SystemError) { file = try Descriptor.open(path, O_RDWR | O_APPEND) } catch {
            guard error.isMissing else { throw error }
            return .ended(try interrupt(command, directory, "journal-damaged", .maybe, nil))
        }
        do throws(SystemError) { try file.lock(subject: path) } catch {
            guard error.wouldBlock else { throw error }
            do throws(SystemError) { return .held(socket: try connect(directory)) } catch { return .ending }
        }
        // The lock is ours: no holder lives, and none can come while we have it.
        if let record = try readExit(directory) { return .ended(record) }
        let journal: ExecutionJournal
        let bytes = try Files.read(path, limit: ExecutionJournal.maximumBytes)
        do throws(ExecutionJournal.Damage) { journal = try ExecutionJournal(parsing: bytes) } catch {
            return .ended(try interrupt(command, directory, "journal-damaged", .maybe, nil))
        }
        let rebooted = journal.bootID != bootID
        if journal.startMark == nil, !rebooted { return .waiting(journal.order) }
        if !rebooted, let leader = journal.leader {
            _ = Machine.killSession(leader, mark: Launch.mark(command))
            if let controlGroups {
                let group = ControlGroup(existing: "\(controlGroups.path)/\(command)")
                _ = group.killAll()
                _ = group.remove()
            }
        }
        let kept = length(directory, .standardOutput) + length(directory, .standardError)
        let started: Started = journal.started == .maybe && kept > 0 ? .yes : journal.started
        return .ended(
            try interrupt(command, directory, rebooted ? "reboot" : "holder-died", started, journal.startMark))
    }

    func readExit(_ directory: String) throws(SystemError) -> ExitRecord? {
        guard let bytes = try Files.readIfPresent(ExecutionFiles.exit(directory), limit: ExitFile.maximumBytes) else {
            return nil
        }
        // A damaged record (it was synced before the rename) is a failed disk: as if the holder had died.
        return ExitFile.decode(bytes)
    }

    func length(_ directory: String, _ stream: OutputStream) -> UInt64 {
        do throws(SystemError) { return try Files.status(ExecutionFiles.spool(directory, stream)).size } catch { return 0 }
    }

    func connect(_ directory: String) throws(SystemError) -> Int32 {
        let place = try Descriptor.open(directory, O_RDONLY | O_DIRECTORY)
        return try PacketSocket.connect(in: place, name: ExecutionFiles.socket).release()
    }

    // MARK: Ending without a holder

    private func interrupt(
        _ command: CommandID, _ directory: String, _ reason: String, _ started: Started, _ startedAt: UInt64?
    ) throws(SystemError) -> ExitRecord {
        let record = ExitRecord(
            command: command, outcome: .interrupted(reason: reason), started: started, startedAt: startedAt,
            finishedAt: unixMilliseconds(), standardOutputBytes: length(directory, .standardOutput),
            standardErrorBytes: length(directory, .standardError))
        try writeExit(record, directory)
        return record
    }

    /// The end of an execution that waits: cancelled, too late, no holder to be had.
    func end(_ command: CommandID, _ outcome: Outcome) throws(SystemError) -> ExitRecord {
        let record = ExitRecord(command: command, outcome: outcome, started: .no, finishedAt: unixMilliseconds())
        try writeExit(record, directory(command))
        return record
    }

    private func writeExit(_ record: ExitRecord, _ directory: String) throws(SystemError) {
        let path = directory + "/exit.new"
        // Not truncated: a holder may have reserved its blocks, and the disk may be full.
        let file = try Descriptor.open(path, O_WRONLY | O_CREAT)
        killPoint("agent.exit.write.before")
        for stream in OutputStream.allCases {
            do throws(SystemError) {
                try Descriptor.open(ExecutionFiles.spool(directory, stream), O_RDONLY).syncData()
            } catch { if !error.isMissing { throw error } }
        }
        try file.write(ExitFile.encode(record).span.bytes, at: 0, subject: path)
        try file.sync(subject: path)
        try Files.rename(path, to: ExecutionFiles.exit(directory))
        killPoint("agent.exit.renamed")
        try Files.syncDirectory(directory)
    }

    // MARK: Starting a holder

    /// - Parameter secrets: the order's secret variables; they reach the holder as a file in memory.
    func launch(_ command: CommandID, secrets: [String: String] = [:]) throws(SystemError) -> Launched {
        let directory = directory(command)
        let path = ExecutionFiles.journal(directory)
        let journal = try Descriptor.open(path, O_RDWR | O_APPEND)
        do throws(SystemError) { try journal.lock(subject: path) } catch {
            guard error.wouldBlock else { throw error }
            return .other(try inspect(command))
        }
        if let record = try readExit(directory) { return .other(.ended(record)) }
        let place = try Descriptor.open(directory, O_RDONLY | O_DIRECTORY)
        let listener = try PacketSocket.listen(in: place, name: ExecutionFiles.socket)

        var spawn = Spawn(program: holderProgram, arguments: holderArguments + [directory] + controlGroupArguments)
        spawn.group = .session
        spawn.descriptors = [-1, -1, -1, journal.number, listener.number]
        var memory: Descriptor?
        if !secrets.isEmpty { memory = try SecretVariables.write(secrets) }
        if let number = memory?.number { spawn.descriptors.append(number) }
        spawn.environment = [
            "PATH": spawn.searchPath, "USER": account.name, "HOME": account.home, "SHELL": account.shell,
        ]
        for name in ["CM_KILL_AT", "CM_KILL_POINTS"] {
            if let value = getenv(name) { spawn.environment[name] = String(cString: value) }
        }
        killPoint("agent.holder.spawn.before")
        let holder: ChildProcess
        do throws(SpawnError) { holder = try spawn.start() } catch {
            return .other(
                .ended(
                    try end(
                        command,
                        .startFailed(code: "holder-failed", message: "the agent could not start a holder: \(error)"))))
        }
        // The holder has its own.
        memory = nil
        killPoint("agent.holder.spawn.after")
        var socket: Int32 = -1
        do throws(SystemError) {
            socket = try PacketSocket.connect(in: place, name: ExecutionFiles.socket).release()
        } catch {
            // Only when the listener is gone: it has ended already, and `inspect` will tell how.
        }
        let (pid, descriptor) = holder.release()
        return .held(socket: socket, holder: pid, holderDescriptor: descriptor)
    }

    private var controlGroupArguments: [String] {
        guard let controlGroups else { return [] }
        return [controlGroups.path] + (controlGroups.limitsMemory ? ["memory"] : [])
            + (controlGroups.limitsProcessor ? ["cpu"] : [])
    }

    // MARK: Forgetting

    /// First out of sight under another name, so that a crash never leaves half an execution.
    func forget(_ command: CommandID) throws(SystemError) {
        let gone = "\(root)/\(ExecutionFiles.gonePrefix)\(command)"
        killPoint("agent.forget.before")
        do throws(SystemError) { try Files.rename(directory(command), to: gone) } catch {
            if error.isMissing { return }
            throw error
        }
        killPoint("agent.forget.renamed")
        try Files.removeTree(gone)
        if let controlGroups { _ = ControlGroup(existing: "\(controlGroups.path)/\(command)").remove() }
    }

    // MARK: Terminals

    enum TerminalState: Sendable {
        /// A holder lives; its socket, which the receiver closes, and what it told first.
        case held(socket: Int32, TerminalStatus)
        case ending
        case ended(ExitRecord)
    }

    /// How a terminal stands. Its holder may outlive the end for the output that it keeps.
    func inspectTerminal(_ command: CommandID) throws(SystemError) -> TerminalState {
        do throws(SystemError) {
            let socket = Descriptor(owning: try connect(directory(command)))
            let status = try Self.firstStatus(socket)
            return .held(socket: socket.release(), status)
        } catch {
            // Nobody listens, or who did is about to end.
        }
        switch try inspect(command) {
        case .waiting:
            // The agent died between the order and the holder. The core was told nothing of it and waits for nothing.
            return .ended(
                try end(command, .startFailed(code: "holder-failed", message: "the agent was stopped before the start")))
        case .held(let socket):
            _ = Descriptor(owning: socket)
            return .ending
        case .ending: return .ending
        case .ended(let record): return .ended(record)
        }
    }

    /// A holder tells how it stands as soon as it is connected to.
    private static func firstStatus(_ socket: borrowing Descriptor) throws(SystemError) -> TerminalStatus {
        var packet = [UInt8](repeating: 0, count: TerminalPacket.maximumBytes)
        for _ in 0..<4 {
            switch try PacketSocket.receive(socket, into: &packet) {
            case .packet(let count):
                if let head = TerminalPacket(packet.span.bytes.extracting(0..<count)), let status = TerminalStatus(head) {
                    return status
                }
            case .nothingYet:
                var item = pollfd(fd: socket.number, events: Int16(POLLIN), revents: 0)
                guard poll(&item, 1, 2_000) > 0 else { throw SystemError("poll", "holder", code: ETIMEDOUT) }
            case .ended: throw SystemError("recv", "holder", code: ECONNRESET)
            }
        }
        throw SystemError("recv", "holder", code: EBADMSG)
    }
}

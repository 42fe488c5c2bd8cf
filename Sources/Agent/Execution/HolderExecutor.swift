import AgentProtocol
import Glibc
import Program
import Reactor
import System

/// Runs orders for real: each in a holder process with a directory of its own, queued beyond a bound.
///
/// Confined to one loop. Files are written on two threads of its own: one journals orders (in their order), one starts
/// holders, settles ends and forgets. At most one start per command: the journal and the lock decide, not this memory.
public final class HolderExecutor: Executor, HolderKeeping {
    public struct Options: Sendable {
        /// Programs at the same time.
        public var running = 64
        /// Orders that wait for a place.
        public var queued = 1_024
        /// Executions that the core has not yet acknowledged, ended ones included.
        public var known = WireLimits.reports
        /// Spools that are kept open between reads.
        public var openSpools = 64
        public var holderProgram = "/proc/self/exe"
        public var holderArguments = ["cm-agent", "hold"]
        public var usesControlGroups = true

        public init() {}
    }

    /// Holders that may die before the start mark until the order is given up.
    private static let launches = 3

    public weak var observer: (any ExecutorObserver)?

    let loop: EventLoop
    private let options: Options
    private let log: Log?
    private let store: ExecutionStore
    private let journaling = BlockingPool(name: "agent-journal", threads: 1, queue: 4_096)
    private let starting = BlockingPool(name: "agent-starts", threads: 1, queue: 8_192)

    private var executions: [CommandID: Execution] = [:]
    /// Waiting commands, first in first out; those that left by a cancel are skipped.
    private var queue: [CommandID] = []
    private var queueHead = 0
    private var waiting = 0
    private var running = 0
    private var runningLimit: Int
    private var openSpools = 0
    private let holders: HolderReaper
    private let retries: LaterRetries<CommandID>

    /// On the loop, before the session starts: takes up what an earlier agent left. Blocks for as many small files.
    /// - Parameter directory: the agent's data directory `A`.
    public init(directory: String, on loop: EventLoop, options: Options = Options(), log: Log? = nil) throws(SystemError)
    {
        loop.preconditionCurrent()
        self.loop = loop
        holders = HolderReaper(on: loop)
        retries = LaterRetries(on: loop)
        self.options = options
        self.log = log
        let root = directory + "/executions"
        try Files.makeDirectories(root)
        store = ExecutionStore(
            root: root, policyPath: directory + "/policy.json", bootID: Machine.bootID(),
            holderProgram: options.holderProgram, holderArguments: options.holderArguments,
            controlGroups: options.usesControlGroups ? ControlGroupParent.find(name: "client-manager") : nil,
            account: try UserAccount.current())
        let policy = LocalPolicy.load(store.policyPath)
        runningLimit = min(options.running, policy.maximumRunning ?? options.running)

        for command in try store.scan() {
            let execution = Execution(command)
            execution.durable = true
            executions[command] = execution
            let state = try store.inspect(command)
            // What waits was taken before the policy may have changed.
            if case .waiting(let order) = state, let refusal = policy.refusal(of: order) {
                finish(execution, try store.end(command, .refused(code: "agent-policy", message: refusal)))
            } else if case .waiting(let order) = state, !order.secretEnvironment.isEmpty {
                finish(
                    execution,
                    try store.end(command, .startFailed(code: "secrets-gone", message: SecretVariables.goneMessage)))
            } else {
                take(execution, state)
            }
        }
        pump()
    }

    /// Programs that run now.
    public var runningCount: Int { running }

    // MARK: Executor

    public func start(_ order: Order) {
        loop.assertCurrent()
        let command = order.command
        if executions[command] != nil {
            loop.post(confined { $0.tellState(of: command) })
            return
        }
        let execution = Execution(command)
        guard executions.count < options.known else {
            return refuse(
                execution, "agent-backlog-full",
                "\(options.known) executions of this client wait for the core's acknowledgement")
        }
        executions[command] = execution
        execution.secrets = order.secretEnvironment
        guard waiting < options.queued else {
            return refuse(
                execution, "agent-queue-full",
                "\(runningLimit) commands run and \(options.queued) wait on this client; send it later")
        }
        waiting += 1
        let store = store
        // What ran stands in the journal; a log line says only that something did, and for which request of the core.
        let correlation = order.correlation
        let accepted = confined { (executor: HolderExecutor, result: Result<LocalPolicy, LaunchFailure>) in
            if case .success = result {
                executor.log?.info(
                    "execution.accepted", ["command": .string("\(command)"), "correlation": .string(correlation)])
            }
            executor.accepted(command, result)
        }
        let taken = journaling.submit {
            do throws(LaunchFailure) { accepted(.success(try store.accept(order))) } catch { accepted(.failure(error)) }
        }
        if !taken {
            waiting -= 1
            refuse(execution, "agent-queue-full", "too many orders are being journaled; send it later")
        }
    }

    public func cancel(_ command: CommandID) {
        loop.assertCurrent()
        guard let execution = executions[command] else { return }
        switch execution.phase {
        case .accepting, .launching, .settling: execution.cancelWanted = true
        case .waiting: endWaiting(execution, .cancelled)
        case .held(let link): link.cancel()
        case .ended: break
        }
    }

    public func reports() -> [ExecutionReport] {
        loop.assertCurrent()
        let known = executions.values.filter { execution in
            // An order that is not yet journaled may still vanish with this process: not promised, not reported.
            if case .accepting = execution.phase { return false }
            return true
        }
        return known.sorted { $0.command < $1.command }.prefix(WireLimits.reports).map { execution in
            ExecutionReport(
                command: execution.command, started: execution.exit?.started ?? (execution.startedAt > 0 ? .yes : .no),
                standardOutputBytes: execution.lengths[0], standardErrorBytes: execution.lengths[1],
                exit: execution.exit)
        }
    }

    public func read(
        _ command: CommandID, _ stream: OutputStream, at offset: UInt64, into buffer: inout OutputRawSpan
    ) -> Int {
        loop.assertCurrent()
        guard let execution = executions[command] else { return 0 }
        let before = execution.hasOpenFiles
        let count = execution.read(
            stream, at: offset, path: { ExecutionFiles.spool(store.directory(command), stream) }, into: &buffer)
        let atEnd = offset + UInt64(count) >= execution.length(stream)
        if !before, execution.hasOpenFiles { openSpools += 1 }
        if openSpools > options.openSpools || (atEnd && execution.exit != nil) { closeFiles(execution) }
        return count
    }

    public func forget(_ command: CommandID) {
        loop.assertCurrent()
        guard let execution = executions[command] else { return }
        guard execution.exit != nil else {
            // The core does not know it or has written it off: it must not go on unattended.
            execution.forgetWanted = true
            cancel(command)
            return
        }
        killPoint("agent.exit.acknowledged")
        closeFiles(execution)
        executions[command] = nil
        guard execution.durable else { return }
        let store = store
        let log = log
        // If the queue is full it is reported at the next connect and forgotten then.
        _ = starting.submit {
            do throws(SystemError) { try store.forget(command) } catch {
                log?.warning("execution.forget-failed", ["command": .string("\(command)"), "error": .string("\(error)")])
            }
        }
    }

    // MARK: From order to holder

    private func accepted(_ command: CommandID, _ result: Result<LocalPolicy, LaunchFailure>) {
        guard let execution = executions[command] else { return }
        switch result {
        case .failure(let failure):
            waiting -= 1
            refuse(execution, failure.code, failure.message)
        case .success(let policy):
            runningLimit = min(options.running, policy.maximumRunning ?? options.running)
            execution.durable = true
            execution.phase = .waiting
            queue.append(command)
            if execution.cancelWanted { endWaiting(execution, .cancelled) }
            pump()
        }
    }

    private func pump() {
        while running < runningLimit, queueHead < queue.count {
            let command = queue[queueHead]
            queueHead += 1
            if queueHead == queue.count || queueHead >= 256 {
                queue.removeFirst(queueHead)
                queueHead = 0
            }
            guard let execution = executions[command], case .waiting = execution.phase else { continue }
            waiting -= 1
            running += 1
            execution.phase = .launching
            execution.launches += 1
            launch(command)
        }
    }

    private func launch(_ command: CommandID) {
        let store = store
        let secrets = executions[command]?.secrets ?? [:]
        let launched = confined { (executor: HolderExecutor, result: Result<ExecutionStore.Launched, SystemError>) in
            executor.launched(command, result)
        }
        let taken = starting.submit {
            do throws(SystemError) { launched(.success(try store.launch(command, secrets: secrets))) } catch { launched(.failure(error)) }
        }
        if !taken { retry(command) { $0.launch(command) } }
    }

    private func launched(_ command: CommandID, _ result: Result<ExecutionStore.Launched, SystemError>) {
        guard let execution = executions[command] else { return }
        switch result {
        case .failure(let error):
            complain("execution.launch-failed", command, error)
            retry(command) { $0.launch(command) }
        case .success(.other(let state)):
            running -= 1
            take(execution, state)
            pump()
        case .success(.held(let socket, let holder, let descriptor)):
            holders.reap(ChildProcess(pid: holder, descriptor: Descriptor(owning: descriptor), group: .session))
            guard socket >= 0 else { return settle(execution) }
            attach(execution, Descriptor(owning: socket))
        }
    }

    /// Takes up an execution as it was found; the caller has counted nothing for it yet.
    private func take(_ execution: Execution, _ state: ExecutionStore.State) {
        switch state {
        case .waiting:
            execution.phase = .waiting
            waiting += 1
            queue.append(execution.command)
            if execution.cancelWanted {
                endWaiting(execution, .cancelled)
            } else if execution.launches >= Self.launches {
                endWaiting(
                    execution,
                    .startFailed(code: "holder-failed", message: "\(execution.launches) holders died before the start"))
            }
        case .held(let socket):
            running += 1
            execution.lengths = OutputStream.allCases.map { store.length(store.directory(execution.command), $0) }
            attach(execution, Descriptor(owning: socket))
        case .ending:
            running += 1
            settle(execution)
        case .ended(let record): finish(execution, record)
        }
    }

    private func attach(_ execution: Execution, _ socket: consuming Descriptor) {
        let command = execution.command
        let link = HolderLink(
            socket, on: loop,
            received: { [weak self] status in self?.received(command, status) },
            ended: { [weak self] in
                guard let self, let execution = executions[command] else { return }
                settle(execution)
            })
        execution.phase = .held(link)
        do throws(ReactorError) { try loop.add(link) } catch {
            complain("execution.watch-failed", command, error)
            return settle(execution)
        }
        if execution.cancelWanted { link.cancel() }
    }

    private func received(_ command: CommandID, _ status: HolderStatus) {
        guard let execution = executions[command], execution.link != nil else { return }
        if execution.startedAt == 0, status.startedAt > 0 {
            execution.startedAt = status.startedAt
            execution.secrets = [:]
            observer?.executionStarted(command, at: status.startedAt)
        }
        for (stream, length) in [
            (OutputStream.standardOutput, status.standardOutputBytes),
            (OutputStream.standardError, status.standardErrorBytes),
        ] where length > execution.length(stream) {
            execution.lengths[Int(stream.rawValue) - 1] = length
            observer?.executionHasOutput(command, stream, length: length)
        }
        if status.phase == .finished, let link = execution.link {
            link.close()
            settle(execution)
        }
    }

    // MARK: The end

    /// Asks the files how it ended.
    private func settle(_ execution: Execution) {
        execution.phase = .settling
        let command = execution.command
        let store = store
        let settled = confined { (executor: HolderExecutor, result: Result<ExecutionStore.State, SystemError>) in
            executor.settled(command, result)
        }
        let taken = starting.submit {
            do throws(SystemError) { settled(.success(try store.inspect(command))) } catch { settled(.failure(error)) }
        }
        if !taken { retry(command) { executor in executor.executions[command].map(executor.settle) } }
    }

    private func settled(_ command: CommandID, _ result: Result<ExecutionStore.State, SystemError>) {
        guard let execution = executions[command] else { return }
        let again: (HolderExecutor) -> Void = { executor in executor.executions[command].map(executor.settle) }
        switch result {
        case .failure(let error):
            complain("execution.settle-failed", command, error)
            retry(command, again)
        case .success(.ending): retry(command, milliseconds: 20, again)
        case .success(let state):
            running -= 1
            take(execution, state)
            pump()
        }
    }

    private func endWaiting(_ execution: Execution, _ outcome: Outcome) {
        waiting -= 1
        running += 1  // `settled` gives it back; an end costs no place for longer than a write.
        execution.phase = .settling
        let command = execution.command
        let store = store
        let settled = confined { (executor: HolderExecutor, result: Result<ExecutionStore.State, SystemError>) in
            executor.settled(command, result)
        }
        let taken = starting.submit {
            do throws(SystemError) { settled(.success(.ended(try store.end(command, outcome)))) } catch {
                settled(.failure(error))
            }
        }
        if !taken {
            waiting += 1
            running -= 1
            execution.phase = .waiting
            retry(command) { executor in
                guard let execution = executor.executions[command], case .waiting = execution.phase else { return }
                executor.endWaiting(execution, outcome)
            }
        }
    }

    private func refuse(_ execution: Execution, _ code: String, _ message: String) {
        let record = ExitRecord(
            command: execution.command, outcome: .refused(code: code, message: message), started: .no,
            finishedAt: unixMilliseconds())
        // The observer must not hear of it from inside `start`.
        let command = execution.command
        execution.phase = .ended(record)
        execution.secrets = [:]
        loop.post(
            confined { executor in
                executor.observer?.executionFinished(record)
                if executor.executions[command]?.forgetWanted == true { executor.forget(command) }
            })
    }

    private func finish(_ execution: Execution, _ record: ExitRecord) {
        execution.lengths = [record.standardOutputBytes, record.standardErrorBytes]
        execution.phase = .ended(record)
        if let startedAt = record.startedAt { execution.startedAt = startedAt }
        log?.info(
            "execution.ended",
            ["command": .string("\(record.command)"), "duration_us": .integer(Int64(clamping: record.durationMicroseconds))])
        if !execution.forgetWanted { observer?.executionFinished(record) }
        if execution.forgetWanted { forget(record.command) }
    }

    private func tellState(of command: CommandID) {
        guard let execution = executions[command], let observer else { return }
        if let record = execution.exit { return observer.executionFinished(record) }
        if execution.startedAt > 0 { observer.executionStarted(command, at: execution.startedAt) }
        for stream in OutputStream.allCases where execution.length(stream) > 0 {
            observer.executionHasOutput(command, stream, length: execution.length(stream))
        }
    }

    // MARK: Small things

    private func closeFiles(_ execution: Execution) {
        if execution.hasOpenFiles { openSpools -= 1 }
        execution.closeFiles()
    }

    /// After a failed disk or a full queue: the same again, later.
    private func retry(_ command: CommandID, milliseconds: UInt64 = 1_000, _ again: @escaping (HolderExecutor) -> Void) {
        retries.schedule(command, afterMilliseconds: milliseconds) { [weak self] in self.map(again) }
    }

    private func complain(_ event: StaticString, _ command: CommandID, _ error: any Error) {
        log?.warning(event, ["command": .string("\(command)"), "error": .string("\(error)")])
    }
}

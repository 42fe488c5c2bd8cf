import AgentProtocol
import Crypto
import Glibc
import JSON
import Program
import Reactor
import Synchronization
import System
import Transport

/// `cm-agent run`: one loop with the session and the executor, until SIGTERM or SIGINT. What was started runs on under
/// its holders.
enum RunCommand {
    static let flags: [Flag] = [
        .option("server", "URL[*WEIGHT][,…]", "the core, or several with weights; https:// or wss://"),
        .option("data-dir", "DIR", "identity, journal and output of this agent (mode 0700); one agent per directory"),
        .option("enroll-token", "T", "for the first connection; else CM_ENROLL_TOKEN, else DIR/enroll-token"),
        .option("pin", "FINGERPRINT", "of the core's identity key or of a key in its chain", repeated: true),
        .option("fact", "K=V", "reported beside the agent's own facts", repeated: true),
        .option("facts-dir", "DIR", "files of further facts, one `key=value` a line"),
        .option("release-key", "FILE", "PEM of the public key whose releases may replace this program; without it none may"),
        .option("proxy", "URL", "http:// or socks5:// to go through; CM_PROXY keeps a password off the command line"),
        .option("max-running", "N", "commands at the same time, 64 by default"),
        .option("max-queued", "N", "commands that wait for a place, 1024 by default"),
        .option("log-level", "LEVEL", "debug, info (default), warning or error"),
        .toggle("via-proxy", "a proxy ends TLS in front of the core (the core has to be set likewise)"),
        .toggle("no-cgroups", "do not put commands into control groups"),
        .toggle("help", "this text"),
    ]

    static func main(_ arguments: [String]) -> Int32 {
        let plan: Plan
        do throws(FlagError) {
            let parsed = try Flags(parsing: arguments, allowed: flags)
            if parsed.has("help") {
                AgentProgram.say("usage: cm-agent run --server URL --data-dir DIR [flags]\n\n" + Flags.help(flags))
                return 0
            }
            plan = try Plan(parsed, words: arguments)
        } catch { return AgentProgram.fail("\(error)", status: 2) }
        return run(plan)
    }

    /// Everything that the command line says, checked.
    struct Plan: Sendable {
        var dataDirectory: String
        var session: AgentSessionOptions
        var executor = HolderExecutor.Options()
        var facts: FactsCollector
        var upgrades: UpgradeInstaller.Options
        var logLevel = LogLevel.info
        /// As they came, for the programs that this process becomes in an upgrade.
        let words: [String]

        init(_ flags: Flags, words: [String]) throws(FlagError) {
            self.words = words
            if let word = flags.words.first ?? flags.rest?.first { throw FlagError("'\(word)' belongs to no flag") }
            guard let server = flags.value("server") else { throw FlagError("--server URL is missing") }
            guard let directory = flags.value("data-dir"), !directory.isEmpty else {
                throw FlagError("--data-dir DIR is missing")
            }
            dataDirectory = AgentProgram.absolute(directory)
            let servers: ServerList
            do throws(TransportError) { servers = try ServerList(server) } catch { throw FlagError("--server: \(error)") }
            session = AgentSessionOptions(
                servers: servers, bootID: Machine.bootID(), agentVersion: BuildID.version, hostname: Measures.hostname())
            session.viaProxy = flags.has("via-proxy")
            session.token = try Self.token(flags, dataDirectory)
            for pin in flags.values("pin") {
                let digits = pin.lowercased()
                guard digits.utf8.count == 64, digits.utf8.allSatisfy({ (48...57).contains($0) || (97...102).contains($0) })
                else { throw FlagError("--pin \(pin): a fingerprint has 64 hexadecimal digits") }
                session.pins.append(digits)
            }
            do throws(TransportError) {
                // The handshake inside proves the core and is bound to the TLS connection: who ends TLS is no matter.
                session.connection.tls = try TLSContext.client(.handshakeInside)
            } catch { throw FlagError("TLS: \(error)") }
            if let text = flags.value("proxy") ?? getenv("CM_PROXY").map({ String(cString: $0) }) {
                do throws(TransportError) { session.connection.proxy = try ClientProxy(text) } catch {
                    throw FlagError("--proxy: \(error)")
                }
            }
            do throws(IdentityError) {
                facts = try FactsCollector(
                    extra: flags.values("fact"), directory: flags.value("facts-dir"), agentVersion: BuildID.version)
            } catch { throw FlagError("\(error)") }
            upgrades = UpgradeInstaller.Options(dataDirectory: dataDirectory)
            upgrades.version = ReleaseVersion(BuildID.version)
            upgrades.releaseKey = try flags.value("release-key").map { (path) throws(FlagError) in try ReleaseKeyFile.read(path) }
            executor.running = try flags.integer("max-running", in: 1...4_096) ?? executor.running
            executor.queued = try flags.integer("max-queued", in: 0...4_096) ?? executor.queued
            executor.usesControlGroups = !flags.has("no-cgroups")
            if let text = flags.value("log-level") {
                guard let level = LogLevel(name: text) else {
                    throw FlagError("--log-level \(text): expected debug, info, warning or error")
                }
                logLevel = level
            }
        }

        private static func token(_ flags: Flags, _ directory: String) throws(FlagError) -> EnrollmentToken? {
            var text = flags.value("enroll-token") ?? getenv("CM_ENROLL_TOKEN").map { String(cString: $0) }
            if text == nil {
                do throws(SystemError) {
                    text = try Files.readIfPresent(AgentProgram.tokenPath(directory), limit: 4_096).map {
                        String(decoding: $0.filter { $0 > 0x20 }, as: UTF8.self)
                    }
                } catch { throw FlagError("\(error)") }
            }
            guard let text else { return nil }
            guard let token = EnrollmentToken(text) else {
                throw FlagError("the enrollment token has not the form cmt1.SECRET.FINGERPRINT")
            }
            return token
        }
    }

    private static func run(_ plan: Plan) -> Int32 {
        limitMemoryArenas()
        keepFreeMemory(upTo: 1 << 20)
        signal(SIGPIPE, SIG_IGN)
        Signals.block([SIGTERM, SIGINT, SIGHUP])
        let start = UpgradeStart()
        let files = UpgradeFiles(dataDirectory: plan.dataDirectory)
        let lock: DirectoryLock
        let found: UpgradeStateMachine?
        do throws(SystemError) {
            try Files.makeDirectories(plan.dataDirectory)
            lock = try start.lock(plan.dataDirectory)
            if start.trialDescriptor == nil, try files.isWatched() {
                return AgentProgram.fail("an upgrade of the agent on \(plan.dataDirectory) is on trial", status: 1)
            }
            found = try start.recover(files)
        } catch {
            return AgentProgram.fail(
                error.wouldBlock ? "another agent runs on \(plan.dataDirectory)" : "\(error)", status: 1)
        }
        let events = LogWriter(descriptor: STDOUT_FILENO, limit: 256 << 10)
        let lines = LogWriter()
        let log = Log(level: plan.logLevel) { lines.write($0) }
        let outcome = Outcome()
        do throws(ReactorError) {
            let loop = try EventLoop.start(name: "agent")
            loop.post { begin(plan, loop, events, log, outcome, start, found) }
            loop.join()
        } catch { outcome.failed("\(error)") }
        events.close()
        lines.close()
        // What follows in this process closes it, with all other descriptors.
        defer { withExtendedLifetime(lock) {} }
        if let failure = outcome.failure { return AgentProgram.fail(failure, status: 1) }
        guard outcome.isToWatch else { return 0 }
        // If this fails the journal says trial, and the next start writes that off.
        let failure = Spawn.become(
            "/proc/self/exe", ["cm-agent", "watch-upgrade", plan.dataDirectory, "--", "run"] + plan.words)
        return AgentProgram.fail("\(failure)", status: 1)
    }

    /// On the loop.
    private static func begin(
        _ plan: Plan, _ loop: EventLoop, _ events: LogWriter, _ log: Log, _ outcome: Outcome, _ start: UpgradeStart,
        _ found: UpgradeStateMachine?
    ) {
        do {
            let identity = try IdentityFiles(dataDirectory: plan.dataDirectory)
            let executor = try HolderExecutor(
                directory: plan.dataDirectory, on: loop, options: plan.executor, log: log)
            let terminals = try HolderTerminals(
                directory: plan.dataDirectory, on: loop, options: plan.executor, log: log)
            let files = try AgentFiles(
                directory: plan.dataDirectory, proxy: plan.session.connection.proxy, on: loop, log: log)
            let collector = plan.facts
            let pool = BlockingPool(name: "agent-facts", threads: 1, queue: 4)
            start.adoptChildren(on: loop)
            let stopping = Stopping(loop)
            var options = plan.upgrades
            options.isTrial = start.trialDescriptor != nil
            options.program = UpgradeStart.program()
            let upgrades = UpgradeInstaller(options, found: found, on: loop, log: log) {
                outcome.watch()
                stopping.stop()
            }
            let session = AgentSession(
                loop: loop, options: plan.session, identity: identity, executor: executor,
                terminals: terminals, files: files,
                privateFiles: PrivateFiles(directory: plan.dataDirectory, on: loop, log: log), upgrades: upgrades,
                facts: {
                    do { return try await pool.run { collector.collect() } } catch { return Array("{}".utf8) }
                },
                measure: { Measures.now(runningExecutions: executor.runningCount) })
            let teller = EventTeller(events, log, dataDirectory: plan.dataDirectory, start)
            session.observer = teller
            stopping.session = session
            stopping.kept = teller
            let signals = try Signals([SIGTERM, SIGINT, SIGHUP]) { number in
                guard number != SIGHUP else { return }
                log.info("agent.stopping")
                stopping.stop()
            }
            try loop.add(signals)
            session.start()
        } catch {
            outcome.failed("\(error)")
            loop.stop()
        }
    }
}


/// Why the agent does not go on; crosses from the loop to the main thread.
private final class Outcome: Sendable {
    private let text = Mutex<String?>(nil)
    private let toWatch = Atomic(false)
    var failure: String? { text.withLock { $0 } }
    func failed(_ reason: String) { text.withLock { $0 = reason } }
    /// The process is to become the watcher of a new program.
    var isToWatch: Bool { toWatch.load(ordering: .relaxed) }
    func watch() { toWatch.store(true, ordering: .relaxed) }
}

/// Ends session and loop, once. On the loop.
private final class Stopping {
    private let loop: EventLoop
    private var isStopped = false
    var session: AgentSession?
    /// The session knows its observer weakly.
    var kept: EventTeller?

    init(_ loop: EventLoop) { self.loop = loop }

    func stop() {
        guard !isStopped else { return }
        isStopped = true
        session?.stop()
        // One turn more, so that the farewell is flushed.
        let loop = loop
        loop.schedule(Timer { withExtendedLifetime(self) { loop.stop() } }, afterMilliseconds: 50)
    }
}

/// One JSON line on standard output for each change of the session. On the agent's loop.
private final class EventTeller: AgentSessionObserver {
    private let writer: LogWriter
    private let log: Log
    private let dataDirectory: String
    private let start: UpgradeStart

    init(_ writer: LogWriter, _ log: Log, dataDirectory: String, _ start: UpgradeStart) {
        self.start = start
        self.writer = writer
        self.log = log
        self.dataDirectory = dataDirectory
    }

    func sessionOnline(_ client: ClientID) {
        tell(["event": "online", "id": .string("\(client)"), "pid": .integer(Int64(getpid()))])
        log.info("agent.online", ["id": .string("\(client)")])
        start.sayOnline(client)
        // The token has served; a secret that nobody needs is not kept.
        unlink(AgentProgram.tokenPath(dataDirectory))
    }

    func sessionOffline(code: String, message: String, retryMilliseconds: UInt64) {
        tell([
            "event": "offline", "code": .string(code), "message": .string(message),
            "retry_ms": .integer(Int64(clamping: retryMilliseconds)),
        ])
        log.warning("agent.offline", ["code": .string(code), "message": .string(message)])
    }

    func sessionPending(enrollment: String, agentFingerprint: String, coreFingerprint: String) {
        tell([
            "event": "pending", "enrollment": .string(enrollment), "agent_fingerprint": .string(agentFingerprint),
            "core_fingerprint": .string(coreFingerprint),
        ])
        log.warning("agent.pending", ["enrollment": .string(enrollment)])
    }

    private func tell(_ object: JSONObject) { writer.write(JSONValue.object(object).serialized() + [0x0A]) }
}

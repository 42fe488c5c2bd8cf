import AgentProtocol
import Crypto
import JSON
import Program
import Reactor
import Synchronization
import System

/// The core's business in one piece, opened once and handed to the layers above.
///
/// Services are opened in the order of their dependence and closed the other way. The kernel knows neither HTTP routes
/// nor plugins.
public final class Kernel: Sendable {
    public struct Options: Sendable {
        /// The data directory; made if it is missing.
        public var directory: String
        public var store = StoreOptions()
        public var auditSinks: [AuditSinkTarget] = []
        public var clients = Clients.Options()
        public var security = Security.Options()
        public var commands = CommandLimits()
        public var jobs = JobLimits()
        public var schedules = ScheduleLimits()
        public var outputs = OutputLimits()
        public var files = FileStore.Options()
        public var links = AgentEndpointOptions()
        /// Tables of the layers above, in the same database.
        public var migrations: [Migration] = []
        /// Seals private keys and other secrets on disk; by default they are plain files, mode 0600.
        public var safe = KeySafe()
        /// DNS names and addresses that the core's own certificate is valid for; at least one.
        public var certificateNames: [String]

        public init(directory: String, certificateNames: [String]) {
            self.directory = directory
            self.certificateNames = certificateNames
        }

        func names() throws(Problem) -> [CertificateName] {
            var names: [CertificateName] = []
            for text in certificateNames {
                guard let name = CertificateName(text) else {
                    throw .invalid("tls.names: \"\(text)\" is neither a DNS name nor an address")
                }
                names.append(name)
            }
            return names
        }
    }

    public let directory: String
    public let log: Log
    public let metrics: Metrics
    public let store: Store
    public let events: Events
    public let settings: Settings
    public let audit: Audit
    public let outbox: Outbox
    private let auditSinks: AuditSinks
    public let auditArchive: AuditArchive
    public let identity: IdentityService
    public let security: Security
    public let clients: Clients
    public let enrollment: Enrollment
    public let outputs: OutputStore
    public let files: FileStore
    public let templates: Templates
    public let commands: Commands
    public let outputArchive: OutputArchive
    public let jobs: Jobs
    public let schedules: Schedules
    public let channels: Channels
    public let transfers: Transfers
    public let privateFiles: PrivateFiles
    public let upgrades: Upgrades
    public let links: AgentEndpoint

    /// Of every area; the order is that of their first release.
    public static let migrations =
        Clients.migrations + Security.migrations + Settings.migrations + Commands.migrations + Templates.migrations
        + Outbox.migrations + Jobs.migrations + Schedules.migrations + Channels.migrations
        + FileStore.migrations + Transfers.migrations + Upgrades.migrations

    /// Opens everything that is durable; agents and requests may come when this returns. Call it on a loop.
    public static func open(_ options: Options, log: Log, metrics: Metrics) async throws(Problem) -> Kernel {
        let safe = options.safe
        let store = try Store.open(
            directory: options.directory,
            migrations: migrations + options.migrations,
            options: options.store, safe: safe,
            failed: { problem in
                log.error("store.failed", ["code": .string(problem.code), "detail": .string(problem.detail)])
            })
        do throws(Problem) {
            return try await Kernel(options, store, safe, log: log, metrics: metrics)
        } catch {
            store.close()
            throw error
        }
    }

    private init(
        _ options: Options, _ store: Store, _ safe: KeySafe, log: Log, metrics: Metrics
    ) async throws(Problem) {
        directory = options.directory
        self.store = store
        self.log = log
        self.metrics = metrics
        let events = Events()
        self.events = events
        settings = try await Settings.load(store: store, events: events)
        audit = Audit(store: store, settings: settings)
        let identity = try IdentityService.open(
            directory: options.directory + "/keys", safe: safe, names: try options.names(), now: unixMilliseconds())
        self.identity = identity
        security = try await Security.load(
            store: store, directory: options.directory, safe: safe, options: options.security)
        let departures = Departures()
        clients = try await Clients.load(store: store, options: options.clients) { event in
            events.publish(Event(kind: event.kind, client: event.client, data: event.data))
            departures.note(event)
        }
        auditSinks = AuditSinks(store: store, audit: audit, targets: options.auditSinks)
        auditArchive = AuditArchive(store: store, audit: audit, settings: settings, events: events, metrics: metrics)
        outbox = try await Outbox.load(
            store: store, events: events, audit: audit, safe: safe, sender: HTTPWebhookSender()
        ) { [clients] selector, client in
            (try? clients.matches(Selector(parsing: selector), client)) ?? false
        }
        enrollment = try await Enrollment.load(clients: clients, fingerprint: { identity.fingerprint }) { link in
            await link.challenge(timeoutMilliseconds: 2_000)
        }
        do throws(SystemError) {
            outputs = try OutputStore(directory: options.directory + "/output", limits: options.outputs)
        } catch {
            throw Problem(500, "output-store-unusable", "the output store cannot be opened: \(error)")
        }
        files = try await FileStore.open(
            directory: options.directory + "/files", store: store, settings: settings, events: events, options: options.files
        ) { [security] principal, right in
            // Files come from any client and go to any: those of others are for whoever has the right on all of them.
            let scope = security.scope(of: principal, for: right)
            return scope.allowed.contains(.everything) && scope.denied.isEmpty
        }
        templates = try await Templates.open(store)
        var parts = Commands.Parts(
            store: store, outputs: outputs, authority: CommandAdmission(clients: clients, security: security),
            templates: templates)
        parts.limits = options.commands
        parts.observers = CommandMetrics(metrics, events, log).observers
        parts.observers.answeredForOthers = { [enrollment] client, command in
            enrollment.answeredForOthers(client, command)
        }
        commands = try await Commands.open(parts)
        outputArchive = OutputArchive(store: store, commands: commands, settings: settings, events: events, metrics: metrics)
        jobs = try await Jobs.open(
            store: store, events: events, owners: JobOwners(security), limits: options.jobs,
            report: { problem in
                log.error("jobs.failed", ["code": .string(problem.code), "detail": .string(problem.detail)])
            })
        schedules = Schedules(
            jobs: jobs, limits: options.schedules,
            report: { problem in
                log.error("schedules.failed", ["code": .string(problem.code), "detail": .string(problem.detail)])
            })
        channels = try await Channels.open(
            store: store, clients: clients, security: security,
            report: { problem in
                log.error("channels.failed", ["code": .string(problem.code), "detail": .string(problem.detail)])
            })
        privateFiles = PrivateFiles(store: store, clients: clients, security: security)
        transfers = try await Transfers.open(
            store: store, clients: clients, security: security, files: files, events: events, settings: settings,
            report: { problem in
                log.error("transfers.failed", ["code": .string(problem.code), "detail": .string(problem.detail)])
            })
        upgrades = Upgrades(
            store: store, files: files, clients: clients, jobs: jobs, security: security, events: events,
            report: { problem in
                log.error("upgrades.failed", ["code": .string(problem.code), "detail": .string(problem.detail)])
            })
        departures.services.withLock { [commands, channels, transfers] in $0 = (commands, channels, transfers) }
        links = AgentEndpoint(
            options: options.links, identity: { identity.forHandshake(at: unixMilliseconds()) }, authority: enrollment,
            sink: commands, channels: channels, transfers: transfers, upgrades: upgrades)
        registerMetrics()
        applySettings()
    }

    /// Starts what happens by itself: sweeps, deadlines, retention.
    public func start(on loop: EventLoop) {
        clients.start(on: loop)
        enrollment.start(on: loop)
        commands.start(on: loop)
        jobs.start(on: loop)
        schedules.start(on: loop)
        channels.start(on: loop)
        transfers.start(on: loop)
        files.start(on: loop) { [log] problem in
            log.error("files.failed", ["code": .string(problem.code), "detail": .string(problem.detail)])
        }
        outbox.start(on: loop) { [log] problem in
            log.error("outbox.failed", ["code": .string(problem.code), "detail": .string(problem.detail)])
        }
        auditSinks.start(on: loop) { [log] problem in
            log.error("audit.sink-failed", ["code": .string(problem.code), "detail": .string(problem.detail)])
        }
        auditArchive.start(on: loop) { [log] problem in
            log.warning("audit.archive-failed", ["code": .string(problem.code), "detail": .string(problem.detail)])
        }
        outputArchive.start(on: loop) { [log] problem in
            log.warning("output.archive-failed", ["code": .string(problem.code), "detail": .string(problem.detail)])
        }
        audit.start(on: loop) { [log] problem in
            log.error("audit.failed", ["code": .string(problem.code), "detail": .string(problem.detail)])
        }
        loop.spawn { [security] in
            // Ends with the loop: a timer of a loop that has stopped never fires.
            while true {
                await loop.sleep(milliseconds: 60_000)
                await security.tick()
            }
        }
    }

    /// Closes links, writes what is owed, closes the store. After this nothing is acknowledged any more.
    public func close() async {
        schedules.stop()
        jobs.stop()
        commands.stop()
        channels.stop()
        transfers.stop()
        await links.stop()
        await transfers.settleAll(on: EventLoop.current)
        do throws(Problem) {
            try await clients.flush()
        } catch {
            log.error("registry.flush-failed", ["code": .string(error.code), "detail": .string(error.detail)])
        }
        outputs.stop()
        outbox.stop()
        auditSinks.stop()
        auditArchive.stop()
        outputArchive.stop()
        await audit.stop()
        // Closing joins the store's threads, which a loop must not wait for; the pool's thread may.
        let pool = BlockingPool(name: "closing", threads: 1, queue: 1)
        _ = try? await pool.run { [store] in store.close() }
    }

    /// A client that is revoked or forgotten ends its unfinished commands, its channels and its transfers. The registry is opened before the commands,
    /// so the way from one to the other is tied afterwards.
    private final class Departures: Sendable {
        let services = Mutex<(commands: Commands, channels: Channels, transfers: Transfers)?>(nil)

        func note(_ event: RegistryEvent) {
            guard event.kind == "client.revoked" || event.kind == "client.forgotten", let client = event.client,
                let services = services.withLock({ $0 })
            else { return }
            let code = event.kind == "client.revoked" ? "client-revoked" : "client-forgotten"
            EventLoop.current?.spawn {
                await services.commands.clientGone(client, code: code)
                await services.channels.clientGone(client, code: code)
                await services.transfers.clientGone(client, code: code)
            }
        }
    }

    private func applySettings() {
        let security = security
        let settings = settings
        let stop: @Sendable (JSONValue) -> Void = { _ in
            security.stopCommands(
                exceptRoles: settings.bool(.commandsStopped) ? settings.strings(.commandsStoppedExempt) : nil)
        }
        stop(.null)
        settings.observe(.commandsStopped, stop)
        settings.observe(.commandsStoppedExempt, stop)
        clients.follow(settings)
        commands.follow(settings)
        let log = log
        settings.observe(.logLevel) { value in
            if let level = value.string.flatMap({ LogLevel(name: $0) }) { log.level = level }
        }
    }
}

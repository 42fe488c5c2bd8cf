import API
import Glibc
import JSON
import Kernel
import PluginHost
import Program
import Reactor
import Synchronization
import System
import Transport
import Web

/// `client-manager serve`: loops, kernel, server, signals; from the first line to the exit status.
final class CoreProcess: Sendable {
    private let directory: String
    private let configuration: Configuration
    private let isSafe: Bool
    private let loops: [EventLoop]
    private let writer = LogWriter()
    private let log: Log
    private let metrics = Metrics()
    private let status = Atomic<Int32>(0)
    private let isStopping = Atomic<Bool>(false)
    /// How earlier processes on this data directory were ended by faults, as far as no start has read it before.
    private let crashes: [CrashRecord]

    /// Returns when the core has stopped.
    static func serve(directory: String, configuration: Configuration, isSafe: Bool = false) -> Int32 {
        Signals.block([SIGTERM, SIGINT, SIGHUP])
        signal(SIGPIPE, SIG_IGN)
        let process: CoreProcess
        do {
            process = try CoreProcess(directory: directory, configuration: configuration, isSafe: isSafe)
        } catch {
            return CoreCommandLine.fail("\(error)", status: 1)
        }
        process.loops[0].spawn { await process.run() }
        for loop in process.loops { loop.join() }
        process.writer.close()
        return process.status.load(ordering: .relaxed)
    }

    private init(directory: String, configuration: Configuration, isSafe: Bool) throws {
        self.directory = directory
        self.isSafe = isSafe
        self.configuration = configuration
        let level = configuration[CoreConfiguration.logLevel].level
        log = Log(level: level) { [writer] line in writer.write(line) }
        try Files.makeDirectories(directory)
        let run = directory + "/run"
        try Files.makeDirectories(run, mode: 0o755)
        let crashed = CrashRecords.take(run)
        crashes = crashed.records
        try CrashRecords.install(run)
        for crash in crashes { log.error("core.crashed", crash.logFields) }
        if crashed.unreadable > 0 { log.warning("core.crash-unreadable", ["count": .integer(Int64(crashed.unreadable))]) }
        loops = try (0..<CoreProcess.loopCount(configuration)).map { try EventLoop.start(name: "loop-\($0)") }
    }

    static func loopCount(_ configuration: Configuration) -> Int {
        let wanted = configuration[CoreConfiguration.loops]
        return wanted > 0 ? wanted : max(1, min(16, sysconf(Int32(_SC_NPROCESSORS_ONLN))))
    }

    private func run() async {
        for warning in configuration.warnings { log.warning("configuration.warning", ["detail": .string(warning)]) }
        do {
            let ready = try ReadyFile(directory: directory)
            let kernel = try await Kernel.open(try kernelOptions(), log: log, metrics: metrics)
            try registerCommandJobs(kernel)
            try registerUpgradeJobs(kernel)
            let tls = try ServerTLS(kernel.identity, configuration)
            let table = RouteTable(version: BuildID.version)
            let plugins = try await PluginHost.open(
                CorePlugins.options(configuration, data: directory, isSafe: isSafe), kernel: kernel, routes: table, loop: loops[0],
                forms: .api, crashes: crashes)
            try CoreRoutes.fill(table, kernel, plugins, docs: configuration[CoreConfiguration.docs])
            let server = try await listen(kernel, tls?.context, table)
            kernel.start(on: loops[0])
            tls?.keepFresh(on: loops[0], kernel, log)
            MemoryRelief.start(on: loops[0], log: log)
            try watchSignals(kernel, server, table, tls, ready, plugins)
            try await plugins.start()
            let url = "\(tls == nil ? "http" : "https")://\(server.address)"
            try ready.announce(url: url, fingerprint: kernel.identity.fingerprint)
            log.info("core.ready", ["url": .string(url), "version": .string(BuildID.description)])
        } catch {
            fail("\((error as? Problem)?.detail ?? "\(error)")")
        }
    }

    private func fail(_ text: String) {
        _ = CoreCommandLine.fail(text, status: 1)
        status.store(1, ordering: .relaxed)
        for loop in loops { loop.stop() }
    }

    private func kernelOptions() throws -> Kernel.Options {
        let names = ["localhost", "127.0.0.1", "::1"] + configuration[CoreConfiguration.tlsNames]
        var options = Kernel.Options(directory: directory, certificateNames: names)
        options.store.synchronous = configuration[CoreConfiguration.synchronous]
        let (file, syslog) = (configuration[CoreConfiguration.auditFile], configuration[CoreConfiguration.auditSyslog])
        options.auditSinks = (file.isEmpty ? [] : [.file(file)]) + (syslog.isEmpty ? [] : [.syslog(syslog)])
        options.security = try CoreSecrets.options(configuration)
        options.safe = try CoreSecrets.safe(configuration)
        options.links.coreVersion = BuildID.version
        options.migrations = PluginHost.migrations
        return options
    }

    private func listen(_ kernel: Kernel, _ tls: TLSContext?, _ table: RouteTable) async throws -> HTTPServer {
        let address = try CoreProcess.listenAddress(configuration)
        let sockets = try Respawn.inherited() ?? ListeningSocket.openAll(at: address, count: loops.count)
        let pipeline = CoreRoutes.pipeline(kernel, configuration, table, log)
        var settings = HTTPServerConfiguration()
        settings.refuseWithProblems()
        settings.unauthenticatedPerAddress = configuration[CoreConfiguration.strangersPerAddress]
        settings.connectionsPerLoop = configuration[CoreConfiguration.connections]
        settings.trustedProxies = configuration[CoreConfiguration.trustedProxies].compactMap { AddressRange($0) }
        return try await HTTPServer.start(
            sockets.descriptors, at: sockets.address, on: loops, configuration: settings, tls: tls
        ) { loop in
            WebService(pipeline: pipeline, loop: loop, takeovers: ["/agent": { kernel.links.accept($0) }])
        }
    }

    static func listenAddress(_ configuration: Configuration) throws(Problem) -> SocketAddress {
        let text = configuration[CoreConfiguration.listen]
        guard let address = SocketAddress(text) else {
            throw Problem(400, "invalid", "listen = \(text): it must be ADDRESS:PORT, for example 127.0.0.1:8443")
        }
        if configuration[CoreConfiguration.tlsMode] == .off, !address.ip.isLoopback {
            throw Problem(400, "invalid", "tls.mode off is allowed on loopback addresses only, and \(text) is none")
        }
        return address
    }

    private func watchSignals(
        _ kernel: Kernel, _ server: HTTPServer, _ table: RouteTable, _ tls: ServerTLS?, _ ready: ReadyFile,
        _ plugins: PluginHost
    ) throws {
        let signals = try Signals([SIGTERM, SIGINT, SIGHUP]) { [self] signal in
            guard signal != SIGHUP else { return reload(kernel, tls) }
            guard !isStopping.exchange(true, ordering: .relaxed) else { return }
            log.info("core.stopping", ["signal": .integer(Int64(signal))])
            loops[0].spawn { [self] in await stop(kernel, server, table, ready, plugins) }
        }
        try loops[0].add(signals)
    }

    /// What SIGHUP does: certificate files and the keys of outside issuers are read again.
    private func reload(_ kernel: Kernel, _ tls: ServerTLS?) {
        loops[0].spawn { [log, configuration] in
            do {
                try tls?.reload()
                try await CoreSecrets.reload(configuration, kernel)
                log.info("core.reloaded")
            } catch {
                log.error("core.reload-failed", ["detail": .string("\(error)")])
            }
        }
    }

    /// The address is given up first, then open requests may end, then what is owed is written.
    private func stop(
        _ kernel: Kernel, _ server: HTTPServer, _ table: RouteTable, _ ready: ReadyFile, _ plugins: PluginHost
    ) async {
        try? ready.remove()
        let seconds = configuration[CoreConfiguration.drainSeconds]
        let limit = Timer { server.stop() }
        loops[0].schedule(limit, afterMilliseconds: UInt64(seconds) * 1_000)
        kernel.schedules.stop()
        kernel.jobs.stop()
        kernel.commands.stop()
        table.stop()
        await kernel.links.stop()
        await server.drain()
        loops[0].cancel(limit)
        await plugins.stop()
        await kernel.close()
        log.info("core.stopped")
        for loop in loops { loop.stop() }
    }
}

extension CrashRecord {
    var logFields: JSONObject {
        var fields: JSONObject = [
            "signal": .string(signalName), "pid": .integer(Int64(process)), "thread": .string(threadName),
            "program_counter": .string("0x" + String(programCounter, radix: 16)),
            "fault_address": .string("0x" + String(faultAddress, radix: 16)), "at": .integer(Int64(clamping: unixSeconds)),
        ]
        if let blamed { fields["plugin"] = .string(blamed) }
        if image != nil { fields["image_offset"] = .string("0x" + String(imageOffset, radix: 16)) }
        return fields
    }
}

import JSON
import PluginKit

/// What a run has from the core and the plugin.
struct Surroundings: Sendable {
    let enrollment: Enrollment
    let clients: Clients
    let executor: Executor
    let settings: Settings
    let keys: HostKeys
}

/// One attempt at one host, from the first connection to the verdict. On a worker's thread.
///
/// What it changes on the host it can take back: `undo` says what that takes, and until the agent is online a failure of any kind
/// leads there.
final class Run {
    private enum Undo { case nothing, remove, restore }

    private let attempt: JobAttempt
    private let world: Surroundings
    private let connector: Connector
    private let plan: Plan
    private let watch: Watch
    private let rollbackWatch: Watch
    private let changed: (Installation) -> Void
    private(set) var record: Installation
    private var undo = Undo.nothing
    /// The agent that was there before is expected to come back.
    private var wasOnline = false

    init(
        _ attempt: JobAttempt, _ record: Installation, _ secrets: Secrets, _ world: Surroundings, watch: Watch,
        rollbackWatch: Watch, changed: @escaping (Installation) -> Void
    ) {
        self.attempt = attempt
        self.record = record
        self.world = world
        self.watch = watch
        self.rollbackWatch = rollbackWatch
        self.changed = changed
        plan = record.plan
        let keys = world.keys
        connector = Connector(
            plan: plan, secrets: secrets, agentSocket: world.settings.agentSocket,
            kept: { (name) throws(Failure) in try keys.kept(name) },
            keep: { (name, text) throws(Failure) in try keys.keep(name, text) })
    }

    /// - Returns: why it failed; `nil`: all is well.
    func perform() -> Failure? {
        do throws(Failure) {
            try work()
            return nil
        } catch {
            say("failed: \(error.text)")
            return rollBack(after: error)
        }
    }

    private func work() throws(Failure) {
        step(20, "connecting to \(plan.destination.user)@\(plan.destination.name)")
        let (session, key) = try connector.connect(watch)
        record.hostKey = key.fingerprint
        say("logged in; host key \(key.fingerprint)")
        let host = remote(session)
        let platform = Platform(try host.run(Platform.script).values)
        say("host: \(platform.summary)")
        try host.becomeRoot(isRoot: platform.isRoot, hasSudo: platform.hasSudo)
        var found = try examine(host)
        if plan.action != .uninstall, found.isUnfinished {
            found = try clearUp(host, found)
        }
        try mayTouch(found)
        switch plan.action {
        case .install: try install(host, platform, found)
        case .repair: try repair(host, platform, found)
        case .upgrade: try upgrade(host, platform, found)
        case .uninstall: try uninstall(host, found)
        }
    }

    private func remote(_ session: SSHSession) -> RemoteHost {
        RemoteHost(
            session, user: plan.destination.user, sudoPassword: connector.secrets.host.sudoPassword.isEmpty
                ? connector.secrets.host.password : connector.secrets.host.sudoPassword, mark: record.id)
    }

    // MARK: What is there

    private func examine(_ host: RemoteHost) throws(Failure) -> Found {
        Found(try host.must("host-unreadable", "looking at what is there", Scripts.examine).values)
    }

    /// An earlier attempt was cut off: what it has left goes first.
    private func clearUp(_ host: RemoteHost, _ found: Found) throws(Failure) -> Found {
        say("an earlier attempt (\(found.marker.isEmpty ? "unknown" : found.marker)) was cut off here: taking back what it left")
        if found.marker.hasPrefix(Action.install.rawValue) {
            try host.must("clear-up-failed", "taking back", Scripts.remove)
        } else {
            try host.must("clear-up-failed", "taking back", found.hasPrevious ? Scripts.restorePrevious : Scripts.finish)
        }
        return try examine(host)
    }

    /// An agent that is a client of this core belongs to those who may see that client.
    private func mayTouch(_ found: Found) throws(Failure) {
        guard plan.action != .install, let client = found.client else { return }
        record.client = client
        do throws(PluginError) {
            _ = try world.clients.get(client)
        } catch where error.status == .notFound {
            say("the agent there is client \(client), which this core does not know")
            record.client = nil
            return
        } catch { throw Failure("core", "\(error)") }
        do throws(PluginError) {
            _ = try world.clients.get(client, as: .job(attempt))
        } catch {
            throw Failure("forbidden", "the agent there is client \(client): this needs the right \"client.read\" on it")
        }
    }

    // MARK: Actions

    private func install(_ host: RemoteHost, _ platform: Platform, _ found: Found) throws(Failure) {
        guard !found.hasAgent else {
            throw Failure(
                "already-installed",
                "there is an agent already (\(found.description)): upgrade, repair or uninstall it")
        }
        let program = try program(platform, found)
        undo = .remove
        try host.must("install-failed", "beginning", Scripts.begin("install \(record.id)"))
        try put(host, program)
        try bringUp(host, platform, previous: nil)
    }

    private func repair(_ host: RemoteHost, _ platform: Platform, _ found: Found) throws(Failure) {
        let program = try program(platform, found)
        undo = found.hasAgent ? .restore : .remove
        try host.must("install-failed", "beginning", Scripts.begin("\(found.hasAgent ? "repair" : "install") \(record.id)"))
        try host.must("install-failed", "keeping what is there", Scripts.keepPrevious)
        try put(host, program)
        try bringUp(host, platform, previous: found.hasIdentity ? record.client : nil)
    }

    private func upgrade(_ host: RemoteHost, _ platform: Platform, _ found: Found) throws(Failure) {
        guard found.program != nil, found.hasUnit || !platform.hasSystemd else {
            throw Failure("not-installed", "there is no agent to upgrade: install or repair it")
        }
        guard let client = record.client else {
            throw Failure("not-a-client", "the agent there is no client of this core: repair it, so that it becomes one")
        }
        let program = try program(platform, found)
        if found.program == program.sha256 {
            record.version = program.version
            step(1_000, "the agent there is \(program.version) already")
            return
        }
        undo = .restore
        try host.must("upgrade-failed", "beginning", Scripts.begin("upgrade \(record.id)"))
        try host.must("upgrade-failed", "keeping the present program", Scripts.keepPrevious)
        try put(host, program)
        let epoch = try epoch(of: client)
        wasOnline = world.clients.isOnline(client)
        step(700, "starting \(program.version)")
        try host.must("upgrade-failed", "the start of the new program", Scripts.swapProgram)
        try waitOnline(host, expecting: client, after: epoch, seconds: plan.waitSeconds, watch)
        try finish(host)
    }

    private func uninstall(_ host: RemoteHost, _ found: Found) throws(Failure) {
        guard found.isAnything else {
            step(1_000, "there is nothing to remove")
            return
        }
        step(500, "removing the agent")
        let result = try host.root(Scripts.remove)
        guard result.status == 0 else {
            throw Failure("left-behind", "not everything could be removed:\(result.values["left"] ?? " ") \(result.complaint)")
        }
        step(1_000, "nothing is left of it" + (record.client.map { "; client \($0) stays in the registry until it is forgotten" } ?? ""))
    }

    // MARK: Steps

    private func program(_ platform: Platform, _ found: Found) throws(Failure) -> Enrollment.AgentProgram {
        let program = try core { () throws(PluginError) in try world.enrollment.agentProgram() }
        try platform.check(program)
        let needed = program.bytes * 3 / 1_024 + 8_192
        guard found.freeKiB >= needed else {
            throw Failure("host-full", "\(found.freeKiB) KiB are free where the program goes, \(needed) are needed")
        }
        return program
    }

    private func put(_ host: RemoteHost, _ program: Enrollment.AgentProgram) throws(Failure) {
        step(100, "sending the agent's program \(program.version), \(program.bytes >> 10) KiB")
        let enrollment = world.enrollment
        var sent: UInt64 = 0
        let result = try host.must("upload-failed", "the upload", Scripts.receiveProgram) { [self] () throws(Failure) in
            let piece = try core { () throws(PluginError) in try enrollment.read(program, from: sent) }
            sent += UInt64(piece.count)
            attempt.progress(UInt32(100 + 450 * min(sent, program.bytes) / max(program.bytes, 1)), record.step)
            return piece
        }
        guard result.values["sha256"] == program.sha256 else {
            throw Failure("upload-damaged", "what arrived has another SHA-256 (\(result.values["sha256"] ?? "none")) than what was sent (\(program.sha256))")
        }
        say("arrived whole: sha256 \(program.sha256)")
        let trial = try host.must("program-does-not-run", "the agent's program", Scripts.tryProgram)
        say("it runs: \(trial.values["version"] ?? "")")
        record.version = program.version
    }

    /// Token, pin, unit and start; then it has to come online.
    private func bringUp(_ host: RemoteHost, _ platform: Platform, previous: String?) throws(Failure) {
        step(600, "a one-time token for the agent")
        let pin = try core { () throws(PluginError) in try world.enrollment.core() }.fingerprint
        let seconds = plan.waitSeconds + 300
        let token = try core { () throws(PluginError) in
            try world.enrollment.createToken(
                seconds: seconds, description: "SSH installation of \(plan.destination.host)".prefixed(255), labels: plan.labels,
                as: .job(attempt))
        }
        record.token = token.id
        changed(record)
        try host.must("install-failed", "placing the token", Scripts.receiveToken, input: once(Array((token.text + "\n").utf8)))
        if let key = plan.releaseKey {
            say("placing the key whose releases the agent takes")
            try host.must("install-failed", "placing the release key", Scripts.receiveReleaseKey, input: once(Array(key.utf8)))
        }
        var common = ["--server", plan.server, "--data-dir", Places.directory, "--pin", pin]
        for (key, value) in plan.facts { common += ["--fact", "\(key)=\(value)"] }
        let user = plan.runAs.map { ["--user", $0] } ?? []
        let epoch = try previous.map { (client) throws(Failure) in try self.epoch(of: client) } ?? 0
        wasOnline = previous.map { world.clients.isOnline($0) } ?? false
        step(700, platform.hasSystemd ? "installing the systemd unit, and starting" : "starting (no systemd runs here: the agent does not start by itself after a reboot)")
        try host.must(
            "install-failed", "the installation",
            Scripts.install(
                common + ["--program", Places.program] + user,
                plain: [Places.program, "run"] + common + ["--log-level", "warning"], runsAs: plan.runAs))
        try waitOnline(host, expecting: previous, after: epoch, seconds: plan.waitSeconds, watch)
        try finish(host)
    }

    private func finish(_ host: RemoteHost) throws(Failure) {
        // From here on nothing is taken back: the agent is online.
        undo = .nothing
        try host.must("clear-up-failed", "clearing up", Scripts.finish)
        endToken()
        step(1_000, "online as client \(record.client ?? "?")")
    }

    /// A token that nobody used lets nobody in any more.
    func endToken() {
        guard let token = record.token else { return }
        do throws(PluginError) {
            try world.enrollment.revokeToken(token, as: .job(attempt))
            record.token = nil
        } catch { say("the token \(token) could not be ended: \(error.text); it ends by itself") }
    }

    private func epoch(of client: String) throws(Failure) -> Int64 {
        try core { () throws(PluginError) in try world.clients.get(client) }["epoch"]?.integer ?? 0
    }

    /// Until the agent has a link that is newer than what was before.
    private func waitOnline(
        _ host: RemoteHost, expecting known: String?, after epoch: Int64, seconds: Int, _ watch: Watch
    ) throws(Failure) {
        let deadline = Deadline(seconds: Double(seconds))
        var deaths = 0
        /// What systemd has counted before: only what comes from now on says something of this program.
        var countedBefore: Int?
        while true {
            let values = try host.must("host-unreadable", "looking at the agent", Scripts.look).values
            if let client = values["client"].flatMap({ $0.isEmpty ? nil : $0 }) {
                record.client = client
                let before = client == known ? epoch : 0
                // The host needs to be asked no more: the core knows when the link comes.
                if try cameOnline(client, after: before, watch, deadline) { return }
            }
            // A program that ends at once is started again by systemd, and not at all without it.
            deaths = values["alive"] == "yes" ? 0 : deaths + 1
            let counted = Int(values["restarts"] ?? "")
            countedBefore = countedBefore ?? counted
            let restarts = (counted ?? 0) - (countedBefore ?? 0)
            guard deaths < 3 || counted != nil, restarts < 3 else {
                throw Failure("agent-ended", "the agent ends as soon as it is started" + lastLines(host))
            }
            guard !deadline.isOver else {
                throw Failure("agent-not-online", "the agent was not online within \(seconds) s" + lastLines(host))
            }
            try watch.wait(-1, 0, until: deadline, atMost: 200)
        }
    }

    private func cameOnline(_ client: String, after epoch: Int64, _ watch: Watch, _ deadline: Deadline) throws(Failure) -> Bool {
        // Not for long: that the program has died only the host can say.
        for _ in 0..<20 {
            if world.clients.isOnline(client) {
                do throws(PluginError) {
                    if (try world.clients.get(client)["epoch"]?.integer ?? 0) > epoch { return true }
                } catch where error.status == .notFound {} catch { throw Failure("core", "\(error)") }
            }
            guard !deadline.isOver else { return false }
            try watch.wait(-1, 0, until: deadline, atMost: 50)
        }
        return false
    }

    private func lastLines(_ host: RemoteHost) -> String {
        guard let result = try? host.root(Scripts.lastLines) else { return "" }
        let lines = String(decoding: result.output, as: UTF8.self).split(whereSeparator: \.isNewline).suffix(12)
        for line in lines { say("agent: \(line)") }
        return lines.last.map { "; it said last: \($0.suffix(200))" } ?? ""
    }

    // MARK: Back

    /// Over a connection of its own: the first one may be what broke. Cancelling does not end it.
    private func rollBack(after failure: Failure) -> Failure {
        endToken()
        guard undo != .nothing else { return failure }
        step(900, undo == .remove ? "taking everything back" : "going back to the program that was there")
        do throws(Failure) {
            let (session, _) = try connector.connect(rollbackWatch)
            let host = remote(session)
            let platform = Platform(try host.run(Platform.script).values)
            try host.becomeRoot(isRoot: platform.isRoot, hasSudo: platform.hasSudo)
            if undo == .remove {
                try host.must("rollback-failed", "taking back", Scripts.remove)
                record.client = nil
                say("nothing is left on the host")
            } else {
                let client = record.client
                let epoch = try client.map { (client) throws(Failure) in try self.epoch(of: client) } ?? 0
                try host.must("rollback-failed", "going back", Scripts.restorePrevious)
                if let client, wasOnline {
                    try waitOnline(host, expecting: client, after: epoch, seconds: 30, rollbackWatch)
                    say("the program that was there is online again")
                }
                try host.must("rollback-failed", "clearing up", Scripts.finish)
            }
            return Failure(failure.code, failure.text + "; rolled back")
        } catch {
            say("rolling back failed: \(error.text)")
            return Failure("rollback-failed", "\(failure.text); and rolling back failed: \(error.text)")
        }
    }

    // MARK: Words

    private func step(_ permille: UInt32, _ text: String) {
        record.step = text
        attempt.progress(permille, text)
        say(text)
        changed(record)
    }

    private func say(_ line: String) { attempt.log(line.prefixed(2_000)) }

    private func core<Value>(_ call: () throws(PluginError) -> Value) throws(Failure) -> Value {
        do throws(PluginError) { return try call() } catch {
            throw Failure(error.code.isEmpty ? "core" : error.code, error.text)
        }
    }
}

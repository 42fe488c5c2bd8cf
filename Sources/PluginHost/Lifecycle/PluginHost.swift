import CLinux
import JSON
import Kernel
import Program
import Reactor
import Synchronization
import System
import Web

/// Loads what stands in the plugin directory, and brings the plugins of this process to what directory, flags and
/// operators say. All of it happens on the control thread, one change after the other.
public final class PluginHost: Sendable {
    let options: PluginOptions
    let environment: HostEnvironment
    let decisions: PluginDecisions
    let records = PluginRecords()
    let routes: RouteTable
    private let state: Confinement
    private let control: Mutex<ControlThread?>
    private let scanWaits = Atomic<Bool>(false)

    /// Tables of the host's own, to be applied when the store is opened.
    public static var migrations: [Migration] { PluginDecisions.migrations + [PluginStore.migration] }

    /// Call it before anything is served; nothing is loaded yet.
    /// - Parameter crashes: what earlier processes of this core left; those that are blamed on a plugin count against it.
    public static func open(
        _ options: PluginOptions, kernel: Kernel, routes: RouteTable, loop: EventLoop, forms: CoreForms,
        crashes: [CrashRecord] = []
    ) async throws(Problem) -> PluginHost {
        let decisions = try await PluginDecisions.load(kernel.store)
        for crash in crashes { try await decisions.count(crash) }
        do throws(SystemError) {
            try Files.makeDirectories(options.directory)
        } catch {
            throw Problem(500, "plugin-directory", "the plugin directory cannot be made: \(error)")
        }
        // Until the first look is over nobody knows which filters there are.
        kernel.commands.filters.close()
        return PluginHost(options, decisions, try HostEnvironment(kernel: kernel, loop: loop, forms: forms, options), routes)
    }

    private init(_ options: PluginOptions, _ decisions: PluginDecisions, _ environment: HostEnvironment, _ routes: RouteTable) {
        self.options = options
        self.decisions = decisions
        self.environment = environment
        self.routes = routes
        state = Confinement(directory: PluginDirectory(path: options.directory, trustedKeys: options.trustedKeys))
        control = Mutex(nil)
    }

    /// Loads what is there, and watches the directory from now on. Returns when the first look is done, or after `milliseconds`:
    /// a slow plugin does not hold up the core.
    public func start(waitingMilliseconds milliseconds: UInt64 = 10_000) async throws(Problem) {
        defer { environment.kernel.commands.filters.open() }
        guard !options.isSafe else {
            environment.log.warning("plugins.safe", ["detail": "started with --safe: no plugin is loaded"])
            return
        }
        let thread: ControlThread
        do throws(SystemError) {
            thread = try ControlThread(name: "plugins") { [self] in tick() }
            let watch = Confined(
                try DirectoryWatch(options.directory) { [weak self] in self?.directoryChanged() }, on: environment.loop)
            environment.loop.onLoop { [log = environment.log] in
                watch.assumeOnLoop { watch in
                    if (try? watch.loopAdd()) == nil { log.error("plugins.watch-failed") }
                }
            }
        } catch {
            throw Problem(500, "plugin-directory", "the plugin directory cannot be watched: \(error)")
        }
        control.withLock { $0 = thread }
        environment.serveCore()
        // First look: without waiting for files to settle, which were there before the core.
        let first = FirstLook()
        thread.post { [self] in
            reconcile()
            first.end()
        }
        await first.wait(on: environment.loop, milliseconds: milliseconds)
    }

    /// Stops all plugins, newest first. Call it on a loop, before the kernel closes.
    public func stop() async {
        guard let thread = control.withLock({ $0.take() }) else { return }
        environment.kernel.commands.filters.close()
        _ = await thread.run { [self] in stopAll() }
        let pool = BlockingPool(name: "closing", threads: 1, queue: 1)
        _ = try? await pool.run { thread.stop() }
    }

    // MARK: For API and readiness

    public var list: [JSONValue] { records.all.map { $0.json(environment.services) } }

    public func show(_ id: String) throws(Problem) -> JSONValue {
        guard let record = records[id] else { throw .notFound("there is no plugin \"\(id.prefix(64))\"") }
        return record.json(environment.services)
    }

    /// Plugins whose flag is on and that do not run, in a sentence each; empty: ready.
    public var notReady: [String] {
        records.all.filter { options.flags[$0.id] == true && $0.state != .running }.map { record in
            "plugin \(record.id) is \(record.state.rawValue)" + (record.refusal.map { ": \($0)" } ?? "")
        }
    }

    /// Grants what the file that stands there asks for. Holds for id, capabilities and signing key; an unsigned file's for its
    /// hash.
    public func approve(_ id: String, by principal: Principal) async throws(Problem) {
        guard let record = records[id], let file = record.replacement ?? record.file else { throw .notFound("there is no plugin \"\(id.prefix(64))\"") }
        let wanted = extra(file)
        guard !wanted.isEmpty else {
            throw .conflict("plugin-nothing-to-approve", "\(id) asks for nothing beyond what every plugin is granted")
        }
        let approval = PluginDecisions.Approval(file, wanted)
        let act = AuditRecord(
            principal: principal, action: "plugin.approve", target: id,
            detail: ["capabilities": .string(approval.capabilities), "sha256": .string(file.sha256), "signer": .string(approval.signer)])
        try await decisions.approve(approval, at: unixMilliseconds(), act)
        await reconcileNow()
    }

    /// Takes all approvals of the id back; what needed them stops.
    public func revoke(_ id: String, by principal: Principal) async throws(Problem) {
        guard records[id] != nil else { throw .notFound("there is no plugin \"\(id.prefix(64))\"") }
        try await decisions.revoke(id, AuditRecord(principal: principal, action: "plugin.revoke", target: id))
        await reconcileNow()
    }

    /// Switches a plugin off or on; "on" also forgives crashes and failures.
    public func setEnabled(_ id: String, _ isOn: Bool, by principal: Principal) async throws(Problem) {
        guard records[id] != nil || decisions[id].isOff else { throw .notFound("there is no plugin \"\(id.prefix(64))\"") }
        let decision = PluginDecisions.Decision(isOff: !isOn, reason: isOn ? "" : "switched off by \(principal.id)", crashes: 0)
        try await decisions.set(
            id, decision, AuditRecord(principal: principal, action: isOn ? "plugin.enable" : "plugin.disable", target: id))
        if isOn { await onControl { $0.failed[id] = nil } }
        await reconcileNow()
    }

    /// Removes the plugin's file (also of one that cannot be loaded), and so the plugin.
    public func uninstall(_ id: String, by principal: Principal) async throws(Problem) {
        guard let record = records[id], let path = (record.replacement ?? record.file)?.path else { throw .notFound("there is no file of a plugin \"\(id.prefix(64))\"") }
        let act = AuditRecord(principal: principal, action: "plugin.uninstall", target: id)
        try await environment.kernel.store.write { (transaction) throws(StoreError) in try transaction.audit(act) }
        do throws(SystemError) {
            try Files.remove(path)
            try Files.remove(path + ".sig")
        } catch {
            throw Problem(500, "plugin-directory", "the file cannot be removed: \(error)")
        }
        await reconcileNow()
    }

    /// Looks at everything anew and returns when that is done.
    public func reconcileNow() async {
        guard let thread = control.withLock({ $0 }) else { return }
        _ = await thread.run { [self] in reconcile() }
    }

    // MARK: The control thread

    /// What only the control thread touches.
    ///
    /// `@unchecked Sendable`: reached only in work posted to the control thread, and before that starts.
    final class Confinement: @unchecked Sendable {
        let directory: PluginDirectory
        /// Hash of the file that failed, by id, and why: not tried again before one of the two changes.
        var failed: [String: (sha256: String, refusal: PluginRefusal, isFenced: Bool)] = [:]
        var retirements: [Retirement] = []
        var images: [String: Int] = [:]
        var generation: UInt64 = 0
        /// When a changed directory is looked at; files are given a moment to become whole.
        var lookAt: UInt64?

        init(directory: PluginDirectory) { self.directory = directory }
    }

    private func onControl(_ body: @escaping @Sendable (Confinement) -> Void) async {
        guard let thread = control.withLock({ $0 }) else { return }
        _ = await thread.run { [state] in body(state) }
    }

    var confined: Confinement { state }

    private func directoryChanged() {
        guard let thread = control.withLock({ $0 }) else { return }
        thread.post { [state] in state.lookAt = Deadline(milliseconds: 100).nanoseconds }
    }

    /// - Returns: milliseconds until the next look; `nil`: when something is asked for.
    private func tick() -> Int? {
        if let lookAt = state.lookAt, monotonicNanoseconds() >= lookAt {
            state.lookAt = nil
            reconcile()
        }
        for retirement in state.retirements where retirement.advance() { retired(retirement) }
        state.retirements.removeAll { $0.stage == .done }
        let running = records.all.compactMap(\.instance)
        for instance in running { watch(instance) }
        if state.lookAt != nil || !state.retirements.isEmpty { return 20 }
        return running.isEmpty ? nil : 500
    }

    /// A callback that does not come back: the plugin is given up.
    private func watch(_ instance: PluginInstance) {
        guard instance.phase == .running, let stuck = instance.thread.stuck(now: monotonicNanoseconds()),
            stuck.nanoseconds > UInt64(options.callMilliseconds) * 1_000_000
        else { return }
        let refusal = PluginRefusal(
            "plugin-stuck", "its callback \(stuck.function) has not returned for \(stuck.nanoseconds / 1_000_000_000) s",
            remedy: "correct it (work that takes long belongs on cm.executor's `blocking`), replace the file and restart the core")
        fence(instance, refusal)
    }

    func fence(_ instance: PluginInstance, _ refusal: PluginRefusal) {
        environment.log.error(
            "plugin.fenced", ["plugin": .string(instance.id), "version": .string(instance.note.version.description), "reason": .string(refusal.description)])
        state.failed[instance.id] = (instance.sha256, refusal, true)
        removeRoutes(of: instance.id)
        instance.phase = .fenced
        retire(instance, isFenced: true)
        records.change(instance.id) { record in
            if record.instance === instance { record.instance = nil }
            record.state = .fenced
            record.refusal = refusal
        }
        reconcile()
    }

    func retire(_ instance: PluginInstance, isFenced: Bool = false) {
        instance.withdrawOutputFilter()
        state.retirements.append(Retirement(instance, isFenced: isFenced))
    }

    private func retired(_ retirement: Retirement) {
        let instance = retirement.instance
        if !retirement.heldUntilRevoked.isEmpty {
            environment.log.warning(
                "plugin.leases-revoked", ["plugin": .string(instance.id), "holders": .array(retirement.heldUntilRevoked.map { .string($0) })])
        }
        if retirement.isStuck {
            environment.log.error("plugin.stop-stuck", ["plugin": .string(instance.id), "detail": "its stop did not return: its thread is given up"])
        } else {
            environment.log.info("plugin.stopped", ["plugin": .string(instance.id), "version": .string(instance.note.version.description)])
        }
        environment.kernel.events.publish(Event(kind: "plugin.stopped", subject: instance.id, data: ["version": .string(instance.note.version.description)]))
    }

    private func stopAll() {
        for record in records.all.sorted(by: { ($0.instance?.generation ?? 0) > ($1.instance?.generation ?? 0) }) {
            if let instance = record.instance { takeDown(instance) }
        }
        let deadline = Deadline(milliseconds: 15_000)
        while !state.retirements.isEmpty, deadline.millisecondsLeft > 0 {
            for retirement in state.retirements where retirement.advance() { retired(retirement) }
            state.retirements.removeAll { $0.stage == .done }
            pause(milliseconds: 2)
        }
    }

    private func pause(milliseconds: Int) {
        Monitor(()).wait(until: Deadline(milliseconds: milliseconds).nanoseconds) { _ -> Void? in nil }
    }
}

extension DirectoryWatch {
    fileprivate func loopAdd() throws(ReactorError) {
        try EventLoop.current?.add(self)
    }
}

/// The end of the first look, for the task that starts the core.
private final class FirstLook: Sendable {
    private let state = Mutex<(isOver: Bool, waiter: UnsafeContinuation<Void, Never>?)>((false, nil))

    func end() {
        state.withLock { state in
            state.isOver = true
            return state.waiter.take()
        }?.resume()
    }

    func wait(on loop: EventLoop, milliseconds: UInt64) async {
        await withUnsafeContinuation { (continuation: UnsafeContinuation<Void, Never>) in
            let isOver = state.withLock { state in
                if !state.isOver { state.waiter = continuation }
                return state.isOver
            }
            if isOver { return continuation.resume() }
            loop.onLoop { loop.schedule(Timer { self.end() }, afterMilliseconds: milliseconds) }
        }
    }
}

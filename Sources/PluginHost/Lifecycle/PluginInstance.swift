import CLinux
import CPluginABI
import Glibc
import JSON
import Kernel
import Program
import Reactor
import Synchronization
import System

/// One loaded version of a plugin: its code, its thread, and everything that the core keeps for it. Lives as long as the
/// process, because the plugin may hold its host pointer as long.
final class PluginInstance: Sendable {
    enum Phase: UInt8, Sendable, AtomicRepresentable {
        case loading, loaded, starting, running, quiescing, stopping, stopped
        /// Stuck or misbehaving: nothing more is called, what it held is taken back.
        case fenced
    }

    let note: PluginNote
    let sha256: String
    /// Counts the loads of this process; tells two versions of one plugin apart.
    let generation: UInt64
    let grants: Set<Capability>
    /// `plugins.settings.ID` as JSON.
    let configuration: JSONValue
    let image: PluginImage
    let thread: PluginThread
    let environment: HostEnvironment
    let accounting: PluginAccounting
    let workers: BlockingPool
    private let phaseValue = Atomic<Phase>(.loading)
    private let resources = Mutex<[cm_handle: any PluginResource]>([:])
    private let reported = Mutex<Set<String>>([])
    let logLimit = SecondLimit(perSecond: 200)
    let eventLimit = SecondLimit(perSecond: 1_000)
    let pending = PendingRegistrations()
    let privateFiles = PrivateFilesUnderWay()
    /// Requests about files of clients that are under way.
    let clientFileCalls = Atomic<Int>(0)
    /// Requests, WebSockets and job attempts under way: what a stop lets finish first.
    let underway = Atomic<Int>(0)

    init(
        _ file: PluginFile, _ image: PluginImage, generation: UInt64, grants: Set<Capability>, configuration: JSONValue,
        environment: HostEnvironment
    ) throws(SystemError) {
        note = file.note
        sha256 = file.sha256
        self.image = image
        self.generation = generation
        self.grants = grants
        self.configuration = configuration
        self.environment = environment
        accounting = environment.accounting(of: file.note)
        thread = try PluginThread(name: "p:" + file.note.shortName)
        workers = BlockingPool(name: "w:" + file.note.shortName, threads: 8, queue: 256)
    }

    var id: String { note.id }

    var phase: Phase {
        get { phaseValue.load(ordering: .acquiring) }
        set { phaseValue.store(newValue, ordering: .releasing) }
    }
    var isOver: Bool { phase == .stopped || phase == .fenced }

    /// The host context that the plugin passes back: this object, which is never freed.
    var context: OpaquePointer { OpaquePointer(Unmanaged.passUnretained(self).toOpaque()) }

    // MARK: Calls into the plugin

    /// Runs `body`, which calls one of the plugin's functions, on the plugin's thread. False when its queue is full or it is
    /// over: then nothing was called.
    @discardableResult
    func call(_ function: StaticString, _ body: @escaping @Sendable () -> Void) -> Bool {
        guard !isOver else { return false }
        let taken = thread.post { [self] in enter(function, body) }
        if !taken { accounting.refusedForBounds.wrappingAdd(1, ordering: .relaxed) }
        return taken
    }

    /// The same without a bound on the queue: for calls that a plugin must not miss (ends, last calls).
    func callAlways(_ function: StaticString, _ body: @escaping @Sendable () -> Void) {
        guard phase != .fenced else { return }
        _ = thread.postAlways { [self] in enter(function, body) }
    }

    /// Runs `body` there and waits; `nil` when the deadline passed or the thread is gone.
    func callAndWait<Result: Sendable>(
        _ function: StaticString, _ deadline: Deadline, _ body: @escaping @Sendable () -> Result
    ) -> Result? {
        let answer = Monitor<Result?>(nil)
        let taken = thread.postAlways { [self] in
            enter(function) {
                let result = body()
                answer.update { $0 = result }
            }
        }
        return taken ? answer.wait(until: deadline.nanoseconds) { $0 } : nil
    }

    /// Runs `body` here, on a loop of the core: for plugins with the capability "inline". False when it is over.
    func callInline(_ function: StaticString, on loop: EventLoop, _ body: () -> Void) -> Bool {
        guard !isOver else { return false }
        let former = cm_crash_enter(generation)
        let spent = environment.inline.inside(generation, on: loop, body)
        cm_crash_leave(former)
        accounting.call(nanoseconds: spent)
        if spent > InlineWatch.budgetNanoseconds { misuse(function, "an inline callback took longer than 5 ms") }
        return true
    }

    private func enter(_ function: StaticString, _ body: () -> Void) {
        guard phase != .fenced else { return }
        let begin = monotonicNanoseconds()
        let former = cm_crash_enter(generation)
        thread.inside(function, body)
        cm_crash_leave(former)
        accounting.call(nanoseconds: monotonicNanoseconds() - begin)
    }

    // MARK: What the core keeps for it

    func keep(_ resource: any PluginResource) -> cm_handle {
        let handle = environment.handles.next()
        resources.withLock { $0[handle] = resource }
        return handle
    }

    func keep(_ resource: any PluginResource, as handle: cm_handle) { resources.withLock { $0[handle] = resource } }

    func resource<Resource: PluginResource>(_ handle: cm_handle, _: Resource.Type) -> Resource? {
        resources.withLock { $0[handle] } as? Resource
    }

    @discardableResult
    func forget(_ handle: cm_handle) -> (any PluginResource)? { resources.withLock { $0.removeValue(forKey: handle) } }

    /// Whoever stands behind the handle.
    func acting(_ handle: cm_handle) -> (any ActingResource)? { resources.withLock { $0[handle] } as? any ActingResource }

    /// Forgets it and gives it to one caller only.
    func take<Resource: PluginResource>(_ handle: cm_handle, _: Resource.Type) -> Resource? {
        resources.withLock { resources in
            guard let resource = resources[handle] as? Resource else { return nil }
            resources[handle] = nil
            return resource
        }
    }

    func count<Resource: PluginResource>(of _: Resource.Type) -> Int {
        resources.withLock { $0.values.count { $0 is Resource } }
    }

    func resources<Resource: PluginResource>(of _: Resource.Type) -> [Resource] {
        resources.withLock { $0.values.compactMap { $0 as? Resource } }
    }

    /// The plugin is on its way out: job attempts hear of it.
    func askAttemptsToEnd() {
        let attempts = resources.withLock { $0.compactMap { entry in (entry.value as? JobAttempt).map { ($0, entry.key) } } }
        for (attempt, handle) in attempts { attempt.ask(handle) }
    }

    var resourceCount: Int { resources.withLock { $0.count } }

    /// Takes everything back, as `stop` and a failed load do: one way for both.
    func retireAll() {
        let all = resources.withLock { resources in
            defer { resources = [:] }
            return resources
        }
        for (handle, resource) in all.sorted(by: { $0.key > $1.key }) { resource.retire(handle, of: self) }
    }

    // MARK: Misuse

    /// Says once per function what the plugin did wrong; counts each time.
    func misuse(_ function: StaticString, _ what: String) {
        accounting.misuses.wrappingAdd(1, ordering: .relaxed)
        let text = "\(function): \(what)"
        guard reported.withLock({ $0.count < 64 && $0.insert(text).inserted }) else { return }
        environment.log.warning(
            "plugin.misuse", ["plugin": .string(id), "version": .string(note.version.description), "function": .string("\(function)"), "detail": .string(what)])
    }

    var misuses: [String] { reported.withLock { $0.sorted() } }
}

/// Something that the core keeps for a plugin under a handle: a route, a timer, a lease, a request under way.
protocol PluginResource: Sendable {
    /// The plugin is over, or its load failed: let go of it, and end its context.
    func retire(_ handle: cm_handle, of instance: PluginInstance)
}

/// Handles are never used twice in one process.
final class Handles: Sendable {
    private let last = Atomic<UInt64>(0)
    func next() -> cm_handle { last.wrappingAdd(1, ordering: .relaxed).newValue }
}

/// So many things a second of one plugin; what is over is counted, and said once with the next that is let through.
final class SecondLimit: Sendable {
    private struct State {
        var second: UInt64 = 0
        var count = 0
        var suppressed: UInt64 = 0
    }
    private let limit: Int
    private let state = Mutex(State())

    init(perSecond limit: Int) { self.limit = limit }

    /// Whether this one may pass, and how many were left out before it.
    func admit(now milliseconds: UInt64) -> (admitted: Bool, suppressed: UInt64) {
        state.withLock { state in
            let second = milliseconds / 1_000
            var left: UInt64 = 0
            if second != state.second {
                state.second = second
                state.count = 0
                left = state.suppressed
                state.suppressed = 0
            }
            state.count += 1
            guard state.count <= limit else {
                state.suppressed += 1
                return (false, 0)
            }
            return (true, left)
        }
    }
}

import CPluginABI
import Glibc
import PluginHost

/// Where a function of the core may be called, as the header's tags say.
enum ThreadTag {
    case own, any, wait
}

/// A core that is only played, for one plugin in one process of its own: it takes registrations, plays requests and jobs,
/// and notices each misuse by the name of the function.
///
/// The thread that runs the check is the plugin's own thread.
///
/// Unchecked: `state` is touched only inside `with`, under the lock, which is never held while the plugin is called.
final class PlayedHost: @unchecked Sendable {
    struct Registration {
        let kind: Kind
        /// What it is called in messages: "GET /api/v1/hello/{name}".
        let name: String
        let context: UnsafeMutableRawPointer?
        let destroy: (@convention(c) (UnsafeMutableRawPointer?) -> Void)?
        var callbacks = Callbacks.none
        var isInline = false
        var pattern = ""
        var method = ""
        var streamsBody = false
    }

    enum Kind { case route, socket, job, subscription, sink, watch, lease, timer, command, metric, filter }

    enum Callbacks {
        case none
        case route(cm_route_callbacks)
        case socket(cm_websocket_callbacks)
        case job(cm_job_callbacks)
        case events(cm_event_callbacks)
        case sink(cm_audit_callbacks)
        case filter(cm_output_filter_callbacks)
        case watch(cm_service_callbacks)
        case timer(@convention(c) (UnsafeMutableRawPointer?) -> Void)
        case lease(cm_lease_callbacks, UnsafeMutablePointer<UInt32>)
    }

    struct Published {
        let service: String
        let table: UnsafeRawPointer
        let context: UnsafeMutableRawPointer?
        var isWithdrawn = false
    }

    /// One played request or job attempt.
    struct PlayedCall {
        var name: String
        var isOver = false
        var hasBegun = false
        var parameters: [String: String] = [:]
        var socketRegistration: UInt64 = 0
    }

    enum Phase: String { case before, loading, loaded, starting, running, stopping, stopped }

    struct State {
        var phase = Phase.before
        var registrations: [UInt64: Registration] = [:]
        var published: [Published] = []
        /// What the plugins of `--with` publish.
        var foreign: [Published] = []
        var tasks: [UInt64: PlayedCall] = [:]
        var next: UInt64 = 1
        var misuse: [String] = []
        /// Calls that can fail, counted; the one with this number fails.
        var calls = 0
        var failing = 0
        var failed: String?
        var values: [String: [UInt8]] = [:]
        var transactions: Set<UInt64> = []
        /// By id.
        var files: [String: PlayedFile] = [:]
        var fileReaders: [UInt64: [UInt8]] = [:]
        var queue: [Work] = []
        var workers = 0
    }

    struct Work {
        let function: (@convention(c) (UnsafeMutableRawPointer?) -> Void)?
        let destroy: (@convention(c) (UnsafeMutableRawPointer?) -> Void)?
        let context: UnsafeMutableRawPointer?
    }

    let note: PluginNote
    let own = pthread_self()
    private var state = State()
    private let lock: UnsafeMutablePointer<pthread_mutex_t>
    /// True on a thread that plays a loop of the core.
    static let inlineKey: pthread_key_t = {
        var key = pthread_key_t()
        pthread_key_create(&key, nil)
        return key
    }()

    init(_ note: PluginNote, failing: Int) {
        self.note = note
        lock = .allocate(capacity: 1)
        lock.initialize(to: pthread_mutex_t())
        state.failing = failing
    }

    func with<Result>(_ body: (inout State) -> Result) -> Result {
        pthread_mutex_lock(lock)
        defer { pthread_mutex_unlock(lock) }
        return body(&state)
    }

    // MARK: What every function of the core does first

    /// - Returns: a status with which the function ends at once, or `nil`.
    func enter(_ function: StaticString, _ tag: ThreadTag, canFail: Bool = true) -> cm_status? {
        let name = "\(function)"
        if with({ $0.phase == .stopped }) {
            misuse("\(name) was called after stop")
            return CM_E_GONE
        }
        let isOwn = pthread_equal(pthread_self(), own) != 0
        let isInline = pthread_getspecific(Self.inlineKey) != nil
        switch tag {
        case .own where !isOwn:
            misuse("\(name) is [own], and was called on another thread than the plugin's own")
            return CM_E_THREAD
        case .wait where isInline:
            misuse("\(name) is [wait], and was called inside an [inline] callback")
            return CM_E_THREAD
        default: break
        }
        guard canFail else { return nil }
        return with { (state) -> cm_status? in
            state.calls += 1
            guard state.calls == state.failing else { return nil }
            state.failed = name
            return CM_E_UNAVAILABLE
        }
    }

    func misuse(_ text: String) {
        with { state in
            if state.misuse.count < 64, !state.misuse.contains(text) { state.misuse.append(text) }
        }
    }

    // MARK: Registrations

    func register(_ registration: Registration) -> UInt64 {
        with { state in
            let handle = state.next
            state.next += 1
            state.registrations[handle] = registration
            return handle
        }
    }

    /// Forgets one and tells the plugin so, once.
    func forget(_ handle: UInt64, _ kind: Kind, _ function: StaticString) -> cm_status {
        let found = with { (state) -> Registration? in
            guard let registration = state.registrations[handle], registration.kind == kind else { return nil }
            state.registrations[handle] = nil
            return registration
        }
        guard let found else {
            misuse("\(function): no such handle \(handle); it was given back already, or never given out")
            return CM_E_NOT_FOUND
        }
        if case .lease(_, let valid) = found.callbacks { cm_word_store(valid, 0) }
        at("destroy of \(found.name)")
        found.destroy?(found.context)
        return CM_OK
    }

    func handle() -> UInt64 {
        with { state in
            defer { state.next += 1 }
            return state.next
        }
    }

    // MARK: Work for the own thread

    func post(_ work: Work) { with { $0.queue.append(work) } }

    /// Runs on the own thread what waits there until `isDone` or the time is over.
    func run(milliseconds: Int, until isDone: (State) -> Bool) -> Bool {
        var end = now() + UInt64(milliseconds)
        while true {
            var work: Work?
            var done = false
            with { state in
                done = state.queue.isEmpty && isDone(state)
                if !state.queue.isEmpty { work = state.queue.removeFirst() }
            }
            if done { return true }
            if let work {
                work.function?(work.context)
                work.destroy?(work.context)
            } else if now() >= end {
                return false
            } else {
                usleep(500)
            }
            if with({ $0.phase == .stopped }) { end = 0 }
        }
    }

    func now() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1000 + UInt64(time.tv_nsec) / 1_000_000
    }
}

/// The host that the C functions of this process play. Set before the plugin is loaded, never changed after.
nonisolated(unsafe) var played: PlayedHost?

/// Says to the parent what is about to happen, so that a crash or a hang has a name.
func at(_ what: String) { say("at \(what)") }

/// One line of the child's report; short enough that a pipe takes it whole.
func say(_ line: String) {
    let bytes = Array((line.replacingLineBreaks + "\n").utf8)
    _ = bytes.withUnsafeBytes { write(STDOUT_FILENO, $0.baseAddress, $0.count) }
}

extension String {
    fileprivate var replacingLineBreaks: String { String(map { $0.isNewline ? " " : $0 }) }
}

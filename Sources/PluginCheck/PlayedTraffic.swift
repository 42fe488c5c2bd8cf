import CPluginABI
import Glibc

/// What the played core does with a plugin that has started: each route gets a request, each kind of job an attempt, each
/// timer, watch, subscription and sink a call.
extension PlayedHost {
    func playTraffic(milliseconds: Int) {
        let registrations = with { $0.registrations.sorted { $0.key < $1.key } }
        for (handle, registration) in registrations {
            switch registration.callbacks {
            case .route(let callbacks): playRequest(registration, callbacks, milliseconds)
            case .job(let callbacks): playAttempt(registration, callbacks, milliseconds)
            case .timer(let function):
                at("timer")
                function(registration.context)
            case .watch(let callbacks):
                let isThere = with { state in state.foreign.contains { $0.service == registration.pattern } }
                at("changed of \(registration.name)")
                registration.pattern.withPlayedText { callbacks.changed?(registration.context, $0, isThere ? 1 : 0) }
            case .events(let callbacks):
                at("event of \(registration.name)")
                "client.online".withPlayedText { kind in
                    #"{"kind":"client.online","client":"check","time_ms":1}"#.withPlayedText {
                        callbacks.event?(registration.context, kind, $0)
                    }
                }
                callbacks.missed?(registration.context, 3)
            case .sink(let callbacks):
                at("record of the audit sink")
                #"{"sequence":1,"action":"check.play","outcome":"allowed"}"#.withPlayedText {
                    _ = callbacks.record?(registration.context, 1, $0)
                }
            case .filter(let callbacks): playOutput(registration, callbacks)
            case .none, .socket, .lease: break
            }
            _ = handle
        }
        // Timers that ran once are forgotten, as the core does.
        _ = run(milliseconds: milliseconds) { $0.workers == 0 }
    }

    /// The publishers are about to stop: each lease is asked back. They come again at once, as in an upgrade.
    func recallLeases(milliseconds: Int) {
        let leases = with { $0.registrations.filter { $0.value.kind == .lease } }
        for (handle, registration) in leases {
            guard case .lease(let callbacks, _) = registration.callbacks else { continue }
            at("recalled of \(registration.name)")
            callbacks.recalled?(registration.context, handle)
            if !run(milliseconds: milliseconds, until: { $0.registrations[handle] == nil }) {
                misuse("\(registration.name) was not given back within \(milliseconds) ms of its recall")
            }
        }
        for (_, registration) in with({ $0.registrations.sorted { $0.key < $1.key } }) {
            guard case .watch(let callbacks) = registration.callbacks,
                with({ state in state.foreign.contains { $0.service == registration.pattern } })
            else { continue }
            for available in [0, 1] as [UInt32] {
                at("changed of \(registration.name)")
                registration.pattern.withPlayedText { callbacks.changed?(registration.context, $0, available) }
            }
        }
    }

    private func playRequest(_ route: Registration, _ callbacks: cm_route_callbacks, _ milliseconds: Int) {
        var task = PlayedCall(name: route.name)
        let parts = route.pattern.split(separator: "/", omittingEmptySubsequences: false)
        for part in parts where part.hasPrefix("{") { task.parameters[String(part)] = "Ada" }
        task.parameters["method"] = route.method
        task.parameters["path"] = parts.map { $0.hasPrefix("{") ? "Ada" : String($0) }.joined(separator: "/")
        let handle = self.handle()
        with { $0.tasks[handle] = task }
        let body = ["POST", "PUT", "PATCH"].contains(route.method) && !route.streamsBody ? Array("{}".utf8) : []
        at("request of \(route.name)")
        onLoop(route.isInline) {
            body.withPlayedBytes { callbacks.request?(route.context, handle, $0) }
            if route.streamsBody {
                at("body of \(route.name)")
                Array("{}".utf8).withPlayedBytes { callbacks.body?(route.context, handle, $0, 1) }
            }
        }
        let isAnswered = run(milliseconds: milliseconds) { $0.tasks[handle]?.isOver ?? true }
        guard isAnswered else {
            misuse("\(route.name) was not answered within \(milliseconds) ms")
            at("gone of \(route.name)")
            with { $0.tasks[handle]?.isOver = true }
            onLoop(route.isInline) { callbacks.gone?(route.context, handle) }
            return
        }
        let socket = with { $0.tasks[handle]?.socketRegistration ?? 0 }
        if let registration = with({ $0.registrations[socket] }), case .socket(let callbacks) = registration.callbacks {
            at("message of \(route.name)")
            onLoop(route.isInline) {
                Array("{}".utf8).withPlayedBytes { callbacks.message?(registration.context, socket, CM_MESSAGE_TEXT, $0) }
            }
            _ = run(milliseconds: 50) { $0.workers == 0 }
            at("closed of \(route.name)")
            with { _ = $0.registrations.removeValue(forKey: socket) }
            onLoop(route.isInline) { "".withPlayedText { callbacks.closed?(registration.context, socket, 1001, $0) } }
            at("destroy of \(route.name)'s WebSocket")
            registration.destroy?(registration.context)
        }
    }

    private func playAttempt(_ kind: Registration, _ callbacks: cm_job_callbacks, _ milliseconds: Int) {
        let handle = self.handle()
        with { $0.tasks[handle] = PlayedCall(name: kind.name) }
        at("run of \(kind.name)")
        #"{"id":"check-job","attempt":1,"fence":1,"arguments":{}}"#.withPlayedText { job in
            [UInt8]().withPlayedBytes { callbacks.run?(kind.context, handle, job, $0) }
        }
        if run(milliseconds: milliseconds, until: { $0.tasks[handle]?.isOver ?? true }) { return }
        at("cancel of \(kind.name)")
        callbacks.cancel?(kind.context, handle)
        if !run(milliseconds: milliseconds, until: { $0.tasks[handle]?.isOver ?? true }) {
            misuse("\(kind.name) was not finished within \(milliseconds) ms of its cancel")
            with { $0.tasks[handle]?.isOver = true }
        }
    }

    /// Runs `body` on a thread that plays a loop of the core, and waits for it; or here, on the plugin's own thread.
    func onLoop(_ isInline: Bool, _ body: () -> Void) {
        guard isInline else { return body() }
        withoutActuallyEscaping(body) { body in
            let box = Unmanaged.passRetained(LoopWork(body))
            var thread = pthread_t()
            if pthread_create(&thread, nil, runOnLoop, box.toOpaque()) == 0 {
                pthread_join(thread, nil)
            } else {
                box.release()
            }
        }
    }
}

private final class LoopWork {
    let body: () -> Void
    init(_ body: @escaping () -> Void) { self.body = body }
}

private func runOnLoop(_ raw: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
    guard let raw else { return nil }
    let work = Unmanaged<LoopWork>.fromOpaque(raw).takeRetainedValue()
    pthread_setspecific(PlayedHost.inlineKey, raw)
    work.body()
    return nil
}

extension String {
    /// At an address of its own, so that a plugin which keeps it is not saved by chance.
    func withPlayedText(_ body: (cm_text) -> Void) {
        Array(utf8).withUnsafeBytes { bytes in
            body(cm_text(data: bytes.baseAddress?.assumingMemoryBound(to: CChar.self), size: UInt64(bytes.count)))
        }
    }
}

extension [UInt8] {
    func withPlayedBytes(_ body: (cm_bytes) -> Void) {
        withUnsafeBufferPointer { body(cm_bytes(data: $0.baseAddress, size: UInt64($0.count))) }
    }
}

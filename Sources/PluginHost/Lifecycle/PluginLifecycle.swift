import CPluginABI
import Glibc

/// The calls of a plugin's life, each on its own thread and bounded in time.
extension PluginInstance {
    private var callMilliseconds: Int { environment.callMilliseconds }

    /// - Returns: why it failed; `nil`: it went well.
    func load() -> PluginRefusal? {
        guard let function = image.table.load else { return nil }
        let host = makeHost(for: self).pointer
        let foreign = Foreign(image.table.context)
        let hostPointer = Foreign(UnsafeMutableRawPointer(mutating: host))
        let refusal = outcome(of: "load") { error in
            guard let host = hostPointer.pointer else { return CM_E_INTERNAL }
            return function(foreign.pointer, UnsafeRawPointer(host).assumingMemoryBound(to: cm_host.self), error)
        }
        if refusal == nil { phase = .loaded }
        return refusal
    }

    func start() -> PluginRefusal? {
        phase = .starting
        guard let function = image.table.start else { return nil }
        let foreign = Foreign(image.table.context)
        let refusal = outcome(of: "start") { function(foreign.pointer, $0) }
        if refusal == nil { phase = .running }
        return refusal
    }

    func quiesce() -> PluginRefusal? {
        phase = .quiescing
        if let function = image.table.quiesce {
            let foreign = Foreign(image.table.context)
            if let refusal = outcome(of: "quiesce", { function(foreign.pointer, $0) }) { return refusal }
        }
        // Only now: the plugin must be able to tell this from an operator's cancel.
        askAttemptsToEnd()
        return nil
    }

    func resume() -> PluginRefusal? {
        phase = .running
        guard let function = image.table.resume else { return nil }
        let foreign = Foreign(image.table.context)
        return outcome(of: "resume") { function(foreign.pointer, $0) }
    }

    /// Begins the last call; `done` is called on the plugin's thread when it has returned.
    func beginStop(done: @escaping @Sendable () -> Void) {
        phase = .stopping
        let foreign = Foreign(image.table.context)
        guard let function = image.table.stop else { return done() }
        callAlways("stop") {
            function(foreign.pointer)
            done()
        }
    }

    /// After `stop`, or when it is fenced: everything is taken back, the thread ends.
    func end(as last: Phase) {
        environment.services.withdraw(self)
        if last == .fenced {
            phase = .fenced
            thread.abandon()
        }
        retireAll()
        // Idempotent ones begin again where their kind is offered next.
        let (jobs, id, generation) = (environment.kernel.jobs, id, generation)
        environment.loop.spawn { await jobs.endAttempts(of: id, instance: generation, reason: "the plugin \(id) went away") }
        if last == .stopped {
            // Last calls of contexts still run; they are the plugin's own code and may not call the core.
            phase = .stopped
            thread.close()
        }
    }

    private struct Answer: Sendable {
        let status: cm_status
        let code: String
        let text: String
    }

    private func outcome(
        of name: StaticString, _ body: @escaping @Sendable (UnsafeMutablePointer<cm_error>) -> cm_status
    ) -> PluginRefusal? {
        let answer: Answer? = callAndWait(name, Deadline(milliseconds: callMilliseconds)) {
            var error = cm_error()
            let status = body(&error)
            let described = error.described
            return Answer(status: status, code: described.code, text: described.text)
        }
        guard let answer else {
            return PluginRefusal(
                "plugin-stuck", "\(name) did not return within \(callMilliseconds / 1_000) s",
                remedy: "the plugin's thread is given up; restart the core after the plugin was corrected")
        }
        guard answer.status >= 0 else {
            let why = answer.text.isEmpty ? "status \(answer.status) without a reason" : answer.text
            return PluginRefusal(
                "plugin-\(name)-failed", "\(name) failed: \(why)" + (answer.code.isEmpty ? "" : " (\(answer.code))"),
                remedy: "correct the cause, then replace the file or say: cmctl plugins enable \(id)")
        }
        return nil
    }
}

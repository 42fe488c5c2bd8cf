import JSON
import PluginKit

/// What all parts of the plugin work with. May be used from every thread.
final class Cloud: Sendable {
    let host: Host
    let settings: Settings
    let executor: Executor
    let store: Store
    let crypto: Crypto
    let audit: Audit
    /// Short work: one or a few exchanges.
    let calls = Pool(threads: 8, queue: 256)
    /// Work that moves content, as long as its reader or writer takes.
    let streams: Pool
    /// Parts of uploads; never waits for other work.
    let parts = Pool(threads: 16, queue: 256)
    /// Copies between stores: each of `movers` writes, and waits for one of `readers` alone.
    let movers = Pool(threads: 8, queue: 256)
    let readers = Pool(threads: 8, queue: 8)
    let budget: Budget
    /// Names of uploads that calls of this start have under way, see `JobUploads.watched`.
    let uploads = Monitor<Set<String>>([])
    /// The plugin stops.
    let stopping = Cancellation()

    init(_ host: Host, _ settings: Settings) throws(PluginError) {
        self.host = host
        self.settings = settings
        executor = try host.executor()
        store = try host.store()
        crypto = try host.crypto()
        audit = try host.audit()
        streams = Pool(threads: settings.streams, queue: 64)
        budget = Budget(settings.memoryBytes)
    }

    /// Ends what runs and waits for it.
    func stop() {
        stopping.cancel()
        for pool in [calls, streams, movers, readers, parts] { pool.stop() }
    }

    func random() -> String { Text.hex((try? crypto.random(8)) ?? []) }

    /// Before the act: what is not recorded is not done.
    func record(
        _ action: String, as actor: Actor, _ target: String, _ outcome: Audit.Outcome = .allowed, reason: String = "", detail: JSONObject = [:]
    ) throws(CloudError) {
        // A target has at most 1 KiB.
        let target = String(decoding: target.utf8.prefix(1_000), as: UTF8.self)
        let reason = String(decoding: reason.utf8.prefix(1_000), as: UTF8.self)
        try CloudError.kept { () throws(PluginError) in
            try audit.write(action, as: actor, target: target, outcome, reason: reason, detail: detail)
        }
    }
}

extension CloudError {
    /// Runs a call into the core; its refusal becomes one of ours.
    static func kept<Value>(_ body: () throws(PluginError) -> Value) throws(CloudError) -> Value {
        do throws(PluginError) {
            return try body()
        } catch {
            var failure = CloudError(error.status == .notFound ? .notFound : .internal, error.text)
            failure.core = (error.code, Int(error.httpStatus))
            throw failure
        }
    }
}

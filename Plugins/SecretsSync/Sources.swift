import CPluginABI
import JSON
import PluginKit
import SecretServices

/// Secrets whose values another plugin brings, through the service client-manager.secret-source/1. On the plugin's own thread;
/// the source is asked on a worker, one secret at a time.
final class Sources {
    private struct State {
        var checkedAt: UInt64 = 0
        var dueAt: UInt64 = 0
        var failures = 0
        var code = ""
        var reason = ""
    }
    private enum Fetched: Sendable {
        case value([UInt8])
        case failed(code: String, reason: String)
    }

    private let host: Host
    private let executor: Executor
    private let audit: Audit
    private let vault: Vault
    private let rotations: Rotations
    private let deliveries: Deliveries
    private var lease: Lease<cm_secret_source>?
    private var isRecalled = false
    private var isUnderway = false
    private var isQuiet = false
    private var states: [String: State] = [:]

    private static let longestPause: UInt64 = 300_000

    init(_ host: Host, _ vault: Vault, _ rotations: Rotations, _ deliveries: Deliveries) throws(PluginError) {
        self.host = host
        executor = try host.executor()
        audit = try host.audit()
        self.vault = vault
        self.rotations = rotations
        self.deliveries = deliveries
    }

    func begin() throws(PluginError) {
        isQuiet = false
        _ = try host.services().watch(CM_SERVICE_SECRET_SOURCE) { [self] isThere in if isThere { acquire() } }
        try executor.timer(after: 500, every: 1_000) { [self] in look() }
    }

    func quiesce() { isQuiet = true }
    func resume() { isQuiet = false }

    func stop() {
        if let lease { try? host.services().release(lease) }
        lease = nil
    }

    private func acquire() {
        guard lease == nil else { return }
        do throws(PluginError) {
            isRecalled = false
            lease = try host.services().acquire(CM_SERVICE_SECRET_SOURCE, as: cm_secret_source.self) { [self] _ in
                isRecalled = true
                if !isUnderway { giveBack() }
            }
            for name in states.keys { states[name]?.dueAt = 0 }
        } catch {
            host.log.warning("secrets.source-unusable", ["reason": .string(error.text)])
        }
    }

    /// Not while it is asked something.
    private func giveBack() {
        guard let lease else { return }
        self.lease = nil
        try? host.services().release(lease)
    }

    /// What the API shows beside the reference.
    func state(of name: String) -> JSONValue {
        var shown: JSONObject = ["available": .bool(lease != nil)]
        if let state = states[name], state.checkedAt > 0 {
            shown["checked_ms"] = .integer(Int64(clamping: state.checkedAt))
            if !state.code.isEmpty {
                shown["code"] = .string(state.code)
                shown["reason"] = .string(state.reason)
            }
        }
        return .object(shown)
    }

    /// Asks at the next look instead of at its time.
    func refreshSoon(_ name: String) {
        states[name, default: State()].dueAt = 0
        look()
    }

    private func look() {
        guard !isQuiet, !isUnderway, let lease, lease.isValid, !isRecalled else { return }
        let now = executor.now
        let secrets = vault.all.filter { $0.source != nil }
        states = states.filter { state in secrets.contains { $0.name == state.key } }
        guard let secret = secrets.first(where: { (states[$0.name]?.dueAt ?? 0) <= now }), let source = secret.source else { return }
        isUnderway = true
        let name = secret.name
        do throws(PluginError) {
            try executor.blocking({ Self.fetch(lease, source.reference) }, then: Confined(self, on: executor)) { sources, fetched in
                sources.came(name, source, fetched)
            }
        } catch {
            isUnderway = false
        }
    }

    private func came(_ name: String, _ source: Secret.Source, _ fetched: Fetched) {
        isUnderway = false
        if isRecalled { giveBack() }
        let now = executor.now
        var state = states[name] ?? State()
        state.checkedAt = now
        (state.code, state.reason) = ("", "")
        switch fetched {
        case .value(let value):
            do throws(PluginError) {
                try take(value, name, source, now)
            } catch {
                (state.code, state.reason) = (error.code.isEmpty ? "source-failed" : error.code, error.text)
            }
        case .failed(let code, let reason): (state.code, state.reason) = (code, reason)
        }
        state.failures = state.code.isEmpty ? 0 : state.failures + 1
        let pause = UInt64(source.refreshSeconds) * 1_000
        state.dueAt = now + (state.failures == 0 ? pause : min(pause, Self.longestPause, 2_000 << UInt64(min(state.failures - 1, 16))))
        states[name] = state
        look()
    }

    private func take(_ value: [UInt8], _ name: String, _ source: Secret.Source, _ now: UInt64) throws(PluginError) {
        // Changed or gone while it was asked for.
        guard let secret = vault.find(name), secret.source == source else { return }
        guard (1...Settings.valueBytes).contains(value.count) else {
            throw PluginError(.tooLarge, "the source gave \(value.count) bytes; a value has 1 to \(Settings.valueBytes)", code: "secret-size")
        }
        if secret.current != 0, try vault.value(name, secret.current) == value { return }
        try rotations.requireNone(name)
        try audit.write(
            "secrets.add", target: name,
            detail: ["version": .integer(Int64(secret.nextNumber)), "bytes": .integer(Int64(value.count)), "source": .string(source.reference)])
        try vault.add(value, to: name, by: "source", now: now, isCurrent: true)
        deliveries.reconcileSoon()
    }

    /// On a worker thread.
    private static func fetch(_ lease: Lease<cm_secret_source>, _ reference: String) -> Fetched {
        var reference = reference
        var room = 4_096
        for _ in 0..<2 {
            guard lease.isValid, let fetch = lease.table.pointee.fetch else { return .failed(code: "source-gone", reason: "the source has gone") }
            var error = cm_error()
            var status = CM_E_INTERNAL
            var size = 0
            let value = [UInt8](unsafeUninitializedCapacity: room) { memory, count in
                var buffer = cm_buffer(data: memory.baseAddress, capacity: UInt64(room), size: 0)
                status = reference.withUTF8 { text in
                    text.withMemoryRebound(to: CChar.self) {
                        fetch(lease.context, cm_text(data: $0.baseAddress, size: UInt64($0.count)), &buffer, &error)
                    }
                }
                size = Int(clamping: buffer.size)
                count = status == CM_OK ? min(size, room) : 0
            }
            switch status {
            case CM_OK: return .value(value)
            case CM_E_TOO_SMALL where size > room && size <= Settings.valueBytes: room = size
            case CM_E_TOO_SMALL: return .failed(code: "secret-size", reason: "the source has \(size) bytes; a value has at most \(Settings.valueBytes)")
            case CM_E_NOT_FOUND: return .failed(code: "source-not-found", reason: "the source has nothing under this reference")
            case CM_E_GONE: return .failed(code: "source-gone", reason: "the source has gone")
            default: return .failed(code: "source-failed", reason: "the source answered \(status)")
            }
        }
        return .failed(code: "source-failed", reason: "the source's value grew while it was read")
    }
}

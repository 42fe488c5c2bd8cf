import CObjectStore
import CPluginABI
import Glibc
import JSON
import PluginKit
import Synchronization

/// Recordings on their way to a remote of the object store, one at a time, by the service that the cloud plugin publishes. Which
/// are still to go is durable; where the service or the store is away they wait. On the plugin's own thread.
final class RecordingCopies {
    /// What the service said in the end, on a thread of its own.
    private final class Ending: Sendable {
        struct Outcome: Sendable {
            let status: cm_status
            let text: String
        }
        private let value = Mutex<Outcome?>(nil)
        var outcome: Outcome? { value.withLock { $0 } }
        func finish(_ outcome: Outcome) { value.withLock { $0 = outcome } }
    }
    private struct Running {
        let id: String
        let key: String
        let writer: UInt64
        let size: UInt64
        let ending: Ending
        var offset: UInt64 = 0
        var isEnded = false
    }

    private static let prefix = "copy/"
    private static let piece = 512 << 10
    private static let pauseMilliseconds: UInt64 = 60_000

    private let host: Host
    private let store: Store
    private let executor: Executor
    private let remote: String
    private var lease: Lease<cm_object_store>?
    private var running: Running?
    /// False: nothing waits, and nobody has to look.
    private var mayWait = true
    private var pausedUntil: UInt64 = 0

    init(_ host: Host, remote: String) throws(PluginError) {
        self.host = host
        self.remote = remote
        store = try host.store()
        executor = try host.executor()
    }

    func start() throws(PluginError) {
        _ = try host.services().watch(CM_OBJECT_STORE) { [unowned self] isThere in
            if isThere, lease == nil { acquire() }
        }
    }

    private func acquire() {
        do throws(PluginError) {
            lease = try host.services().acquire(CM_OBJECT_STORE, as: cm_object_store.self) { [unowned self] _ in letGo() }
            // What it could not do before it may be able to do now.
            pausedUntil = 0
        } catch {
            host.log.warning("recording.no-object-store", ["reason": .string(error.text)])
        }
    }

    /// Gives the service back, after its last word about what is under way.
    private func letGo() {
        guard let held = lease else { return }
        if let running {
            _ = held.table.pointee.writer_abort?(held.context, running.writer)
            for _ in 0..<4_000 where running.ending.outcome == nil { usleep(5_000) }
            self.running = nil
            mayWait = true
        }
        lease = nil
        try? host.services().release(held)
    }

    func stop() { letGo() }

    /// Part of the transaction that makes a recording known.
    func add(_ id: String, _ transaction: Store.Transaction) throws(PluginError) {
        try transaction.put(Self.prefix + id, [])
        mayWait = true
    }

    /// Every half second.
    func tick() {
        guard let held = lease, held.isValid else { return }
        do throws(PluginError) {
            if let current = running {
                if let outcome = current.ending.outcome {
                    running = nil
                    try finish(current, outcome)
                } else {
                    try pump(held)
                }
            } else if mayWait, executor.now >= pausedUntil {
                try begin(held)
            }
        } catch {
            pausedUntil = executor.now + Self.pauseMilliseconds
            host.log.warning("recording.copy-failed", ["reason": .string(error.text)])
        }
    }

    private func begin(_ held: Lease<cm_object_store>) throws(PluginError) {
        guard let name = try store.list(prefix: Self.prefix, limit: 1).items.first else {
            mayWait = false
            return
        }
        let id = String(name.dropFirst(Self.prefix.count))
        guard let size = try store.size("recordings/\(id).cast") else {
            // Removed before it could go.
            return try store.transaction { (transaction) throws(PluginError) in try transaction.remove(name) }
        }
        let key = "recordings/\(id).cast"
        let ending = Ending()
        let context = Unmanaged.passRetained(ending).toOpaque()
        var writer: UInt64 = 0
        let status = Self.texts([remote, key, "application/x-asciicast"]) { texts in
            held.table.pointee.writer_begin?(held.context, texts[0], texts[1], texts[2], &writer, copyEnded, context) ?? CM_E_UNSUPPORTED
        }
        guard status == CM_OK else {
            Unmanaged<Ending>.fromOpaque(context).release()
            throw PluginError(.unavailable, "the object store did not take \(key): \(status)")
        }
        running = Running(id: id, key: key, writer: writer, size: size, ending: ending)
        try pump(held)
    }

    /// As much as the store takes now.
    private func pump(_ held: Lease<cm_object_store>) throws(PluginError) {
        guard var current = running, !current.isEnded else { return }
        defer { running = current }
        for _ in 0..<8 where current.offset < current.size {
            let bytes = try store.read("recordings/\(current.id).cast", from: current.offset, limit: Self.piece)
            guard !bytes.isEmpty else { break }
            let status = bytes.withUnsafeBufferPointer {
                held.table.pointee.writer_write?(held.context, current.writer, cm_bytes(data: $0.baseAddress, size: UInt64($0.count))) ?? CM_E_UNSUPPORTED
            }
            guard status == CM_OK else { return }
            current.offset += UInt64(bytes.count)
        }
        guard current.offset >= current.size else { return }
        current.isEnded = true
        _ = held.table.pointee.writer_end?(held.context, current.writer)
    }

    private func finish(_ current: Running, _ outcome: Ending.Outcome) throws(PluginError) {
        guard outcome.status == CM_OK else { throw PluginError(.unavailable, "recording \(current.id): \(outcome.text)") }
        let name = "recording/" + current.id
        var record = try store.get(name).flatMap { try? JSONValue(parsing: $0).object }
        record?["remote"] = .string(remote)
        record?["key"] = .string(current.key)
        let bytes = record.map { JSONValue.object($0).serialized() }
        try store.transaction { (transaction) throws(PluginError) in
            if let bytes { try transaction.put(name, bytes) }
            try transaction.remove(Self.prefix + current.id)
        }
        host.log.info("recording.copied", ["session": .string(current.id), "remote": .string(remote)])
    }

    private static func texts(_ texts: [String], _ body: ([cm_text]) -> cm_status) -> cm_status {
        let whole = texts.joined()
        return Array(whole.utf8).withUnsafeBytes { bytes in
            var offset = 0
            return body(
                texts.map { text in
                    defer { offset += text.utf8.count }
                    return cm_text(data: bytes.baseAddress.map { ($0 + offset).assumingMemoryBound(to: CChar.self) }, size: UInt64(text.utf8.count))
                })
        }
    }

    fileprivate static func ended(_ context: UnsafeMutableRawPointer?, _ result: cm_object_result) {
        guard let context else { return }
        let text = String(decoding: UnsafeRawBufferPointer(start: result.text.data, count: Int(result.text.size)), as: UTF8.self)
        Unmanaged<Ending>.fromOpaque(context).takeRetainedValue().finish(Ending.Outcome(status: result.status, text: text))
    }
}

private func copyEnded(_ context: UnsafeMutableRawPointer?, _ result: UnsafePointer<cm_object_result>) {
    RecordingCopies.ended(context, result.pointee)
}

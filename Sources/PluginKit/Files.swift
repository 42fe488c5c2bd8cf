import CPluginABI
import JSON

/// `cm.files/1`: the managed store of files. A stored file is a whole that never changes, opened by its id.
public struct Files: Sendable {
    let table: HostTable<cm_files>

    /// Most bytes of one `append`.
    public static let appendBytes = 8 << 20
    /// Most bytes of one `read`.
    public static let readBytes = 1 << 20

    /// Begins a file. `options` as the body of POST /api/v1/files: "name", and perhaps "size", "form", "keep_s".
    public func create(_ options: JSONObject, as actor: Actor = .plugin) throws(PluginError) -> FileWriter {
        guard let create = table.functions.create else { throw .missing("cm.files/1 create") }
        let text = JSONValue.object(options).serialized()
        var handle = CM_NO_HANDLE
        // An id has a fixed size: asking twice would begin two files.
        var id = [UInt8](repeating: 0, count: 128)
        let size = try id.filled("cm.files/1 create") { buffer, error in
            text.withText { create(table.context, actor.handle, $0, &handle, buffer, error) }
        }
        return FileWriter(table: table, handle: handle, id: String(decoding: id[..<size], as: UTF8.self), offset: 0)
    }

    /// Goes on with an unfinished file, at the writer's `offset`.
    public func resume(_ id: String, as actor: Actor = .plugin) throws(PluginError) -> FileWriter {
        guard let resume = table.functions.resume else { throw .missing("cm.files/1 resume") }
        var handle = CM_NO_HANDLE
        var offset: UInt64 = 0
        try attempt("cm.files/1 resume") { error in
            id.withText { resume(table.context, actor.handle, $0, &handle, &offset, error) }
        }
        return FileWriter(table: table, handle: handle, id: id, offset: offset)
    }

    /// The file as GET /api/v1/files/{id} shows it.
    public func get(_ id: String, as actor: Actor = .plugin) throws(PluginError) -> JSONValue {
        guard let get = table.functions.get else { throw .missing("cm.files/1 get") }
        return try readJSON("cm.files/1 get") { buffer, error in
            id.withText { get(table.context, actor.handle, $0, buffer, error) }
        }
    }

    /// The files that the actor may see, newest first; at most 1,000.
    public func list(after: String = "", limit: Int = 100, as actor: Actor = .plugin) throws(PluginError) -> JSONValue {
        guard let list = table.functions.list else { throw .missing("cm.files/1 list") }
        return try readJSON("cm.files/1 list") { buffer, error in
            after.withText { list(table.context, actor.handle, $0, UInt32(clamping: limit), buffer, error) }
        }
    }

    /// Opens a whole file for reading; audited.
    public func open(_ id: String, as actor: Actor = .plugin) throws(PluginError) -> FileReader {
        guard let open = table.functions.open else { throw .missing("cm.files/1 open") }
        var handle = CM_NO_HANDLE
        var size: UInt64 = 0
        try attempt("cm.files/1 open") { error in
            id.withText { open(table.context, actor.handle, $0, &handle, &size, error) }
        }
        return FileReader(table: table, handle: handle, size: size)
    }

    /// Removes a file. Throws `.exists` while a transfer needs it.
    public func remove(_ id: String, as actor: Actor = .plugin) throws(PluginError) {
        guard let remove = table.functions.remove else { throw .missing("cm.files/1 remove") }
        try attempt("cm.files/1 remove") { error in id.withText { remove(table.context, actor.handle, $0, error) } }
    }
}

// MARK: Transfers

extension Files {
    /// Starts a transfer: `specification` is the body of POST /api/v1/transfers for one client. Returns its id when it is durably
    /// accepted; it goes on over restarts. The closures, on the plugin's own thread, hear of its progress, at most twice a
    /// second, and of its end, with the transfer as GET /api/v1/transfers/{id} shows it.
    @discardableResult
    public func transfer(
        _ specification: JSONObject, as actor: Actor = .plugin, progress: @escaping (JSONValue) -> Void = { _ in },
        ended: @escaping (JSONValue) -> Void = { _ in }
    ) throws(PluginError) -> String {
        guard let start = table.functions.transfer_start else { throw .missing("cm.files/1 transfer_start") }
        let text = JSONValue.object(specification).serialized()
        var callbacks = transferCallbacks()
        let context = Unmanaged.passRetained(TransferContext(progress, ended)).toOpaque()
        var handle = CM_NO_HANDLE
        // An id has a fixed size: asking twice would move it twice.
        var id = [UInt8](repeating: 0, count: 128)
        let size = try id.filled("cm.files/1 transfer_start") { buffer, error in
            text.withText { start(table.context, actor.handle, $0, &callbacks, context, &handle, buffer, error) }
        }
        return String(decoding: id[..<size], as: UTF8.self)
    }

    /// Watches a transfer by its id: one of an earlier life of the plugin, for example.
    public func watch(
        _ id: String, as actor: Actor = .plugin, progress: @escaping (JSONValue) -> Void = { _ in },
        ended: @escaping (JSONValue) -> Void
    ) throws(PluginError) -> Registration {
        guard let watch = table.functions.transfer_watch else { throw .missing("cm.files/1 transfer_watch") }
        var callbacks = transferCallbacks()
        let context = Unmanaged.passRetained(TransferContext(progress, ended)).toOpaque()
        var handle = CM_NO_HANDLE
        try attempt("cm.files/1 transfer_watch") { error in
            id.withText { watch(table.context, actor.handle, $0, &callbacks, context, &handle, error) }
        }
        return Registration(handle: handle)
    }

    /// Stops watching; the transfer goes on.
    public func unwatch(_ watch: Registration) { _ = table.functions.transfer_unwatch?(table.context, watch.handle) }

    /// Asks a transfer to end; its end is told to whoever watches.
    public func cancelTransfer(_ id: String, as actor: Actor = .plugin) throws(PluginError) {
        guard let cancel = table.functions.transfer_cancel else { throw .missing("cm.files/1 transfer_cancel") }
        try attempt("cm.files/1 transfer_cancel") { error in id.withText { cancel(table.context, actor.handle, $0, error) } }
    }
}

private final class TransferContext {
    let progress: (JSONValue) -> Void
    let ended: (JSONValue) -> Void

    init(_ progress: @escaping (JSONValue) -> Void, _ ended: @escaping (JSONValue) -> Void) {
        self.progress = progress
        self.ended = ended
    }
}

private func transferCallbacks() -> cm_transfer_callbacks {
    var callbacks = cm_transfer_callbacks()
    callbacks.head = cm_head(size: UInt32(MemoryLayout<cm_transfer_callbacks>.size), revision: 1)
    callbacks.progress = transferProgress
    callbacks.ended = transferEnded
    callbacks.destroy = releaseContext
    return callbacks
}

private func transferProgress(_ context: UnsafeMutableRawPointer?, _ transfer: UInt64, _ json: cm_text) {
    withContext(context, as: TransferContext.self) { $0.progress((try? JSONValue(parsing: String(json))) ?? .null) }
}

private func transferEnded(_ context: UnsafeMutableRawPointer?, _ transfer: UInt64, _ json: cm_text) {
    withContext(context, as: TransferContext.self) { $0.ended((try? JSONValue(parsing: String(json))) ?? .null) }
}

/// The one writer of an unfinished file. Used by one thread at a time; ended by `seal`, `release` or `discard`.
public struct FileWriter: Sendable {
    let table: HostTable<cm_files>
    let handle: UInt64
    public let id: String
    /// Where it began: bytes that were there already.
    public let offset: UInt64

    /// At most `Files.appendBytes`; the disk is the pace. Where the disk is full the file is gone (`.unavailable`).
    public func append(_ bytes: [UInt8]) throws(PluginError) {
        guard let append = table.functions.append else { throw .missing("cm.files/1 append") }
        try attempt("cm.files/1 append") { error in bytes.withBytes { append(table.context, handle, $0, error) } }
    }

    /// The same from borrowed memory.
    public func append(_ bytes: RawSpan) throws(PluginError) {
        guard let append = table.functions.append else { throw .missing("cm.files/1 append") }
        try attempt("cm.files/1 append") { error in bytes.withBytes { append(table.context, handle, $0, error) } }
    }

    /// Makes durable what was appended; answers how much that is.
    @discardableResult
    public func sync() throws(PluginError) -> UInt64 {
        guard let sync = table.functions.sync else { throw .missing("cm.files/1 sync") }
        var offset: UInt64 = 0
        try attempt("cm.files/1 sync") { error in sync(table.context, handle, &offset, error) }
        return offset
    }

    /// Makes it whole and durable; answers the file as GET /api/v1/files/{id} shows it.
    /// - Parameter sha256: 32 bytes that it must have; else it is discarded.
    @discardableResult
    public func seal(sha256: [UInt8]? = nil) throws(PluginError) -> JSONValue {
        guard let seal = table.functions.seal else { throw .missing("cm.files/1 seal") }
        if let sha256, sha256.count != 32 { throw PluginError(.invalid, "a SHA-256 has 32 bytes, not \(sha256.count)") }
        // A file's JSON is shorter than this: asking twice would find the writer gone.
        var json = [UInt8](repeating: 0, count: 16 << 10)
        let size = try json.filled("cm.files/1 seal") { buffer, error in
            guard let sha256 else { return seal(table.context, handle, nil, buffer, error) }
            return sha256.withUnsafeBufferPointer { seal(table.context, handle, $0.baseAddress, buffer, error) }
        }
        do throws(JSONError) {
            return try JSONValue(parsing: Array(json[..<size]))
        } catch {
            throw PluginError(.internal, "cm.files/1 seal gave no JSON: \(error)")
        }
    }

    /// Keeps what is there for a later `resume`.
    public func release() { _ = table.functions.release?(table.context, handle) }

    /// Removes the unfinished file.
    public func discard() { _ = table.functions.discard?(table.context, handle) }
}

/// A whole file, open until `close`. Several threads may read at once.
public struct FileReader: Sendable {
    let table: HostTable<cm_files>
    let handle: UInt64
    public let size: UInt64

    /// At most `limit` bytes from `offset` (`Files.readBytes` at most); empty at the end.
    public func read(from offset: UInt64, limit: Int = Files.readBytes) throws(PluginError) -> [UInt8] {
        guard let read = table.functions.read else { throw .missing("cm.files/1 read") }
        return try readResult("cm.files/1 read", expecting: limit) { buffer, error in
            read(table.context, handle, offset, buffer, error)
        }
    }

    public func close() { _ = table.functions.close?(table.context, handle) }
}

extension Host {
    public func files() throws(PluginError) -> Files { Files(table: try interface(CM_INTERFACE_FILES, cm_files())) }
}

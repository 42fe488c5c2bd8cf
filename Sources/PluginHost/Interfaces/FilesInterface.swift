import CPluginABI
import Crypto
import JSON
import Kernel
import Synchronization

let filesTable = HostTable(
    cm_files(
        head: head(of: cm_files.self), create: filesCreate, resume: filesResume, append: filesAppend, sync: filesSync,
        seal: filesSeal, release: filesRelease, discard: filesDiscard, get: filesGet, list: filesList, open: filesOpen,
        read: filesRead, close: filesClose, remove: filesRemove, transfer_start: filesTransferStart,
        transfer_watch: filesTransferWatch, transfer_unwatch: filesTransferUnwatch, transfer_cancel: filesTransferCancel,
        client_list: filesClientList, client_status: filesClientStatus, client_hash: filesClientHash,
        client_make_directory: filesClientMakeDirectory, client_rename: filesClientRename, client_remove: filesClientRemove))

private let writersPerPlugin = 64
private let readersPerPlugin = 64
/// Of one append.
private let pieceBytes = 8 << 20
private let optionBytes = 64 << 10

/// An unfinished file in a plugin's hands.
private final class PluginFileWriter: PluginResource {
    let writer: FileWriter
    let principal: Principal

    init(_ writer: FileWriter, _ principal: Principal) {
        self.writer = writer
        self.principal = principal
    }

    /// What was appended is kept for whoever goes on.
    func retire(_: cm_handle, of instance: PluginInstance) {
        instance.environment.loop.spawn { [writer] in await writer.suspend() }
    }
}

/// A whole file that a plugin reads.
private final class PluginFileReader: PluginResource {
    let reader: FileReader
    init(_ reader: FileReader) { self.reader = reader }
    func retire(_: cm_handle, of _: PluginInstance) {}
}

extension Right {
    fileprivate static let readFiles: Right = "file.read"
    fileprivate static let writeFiles: Right = "file.write"
}

private func fileID(_ text: cm_text) throws(Problem) -> FileID {
    guard let text = text.string(limit: 64), let id = FileID(text) else {
        throw Problem(400, "plugin-argument", "`id` is no file id (26 characters, the first 0 to 7)")
    }
    return id
}

private func requirePlace<Resource: PluginResource>(
    _ instance: PluginInstance, _: Resource.Type, _ limit: Int, _ what: String
) throws(Problem) {
    guard instance.count(of: Resource.self) < limit else {
        throw Problem(429, "plugin-too-many", "the plugin has \(limit) \(what) open already")
    }
}

private let gone = Problem(410, "plugin-handle", "there is no such writer or reader: it has ended")

/// A writer whose file is over has no handle any more.
private func withWriter<Value: Sendable>(
    _ instance: PluginInstance, _ handle: cm_handle,
    _ body: @escaping @Sendable (FileWriter) async throws(Problem) -> Value
) throws(Problem) -> Value {
    guard let found = instance.resource(handle, PluginFileWriter.self) else { throw gone }
    let writer = found.writer
    do throws(Problem) {
        return try instance.waitForKernel { () async throws(Problem) in try await body(writer) }
    } catch {
        if writer.isOver { instance.forget(handle) }
        throw error
    }
}

// MARK: Writing

private func filesCreate(
    _ host: OpaquePointer, _ actor: cm_handle, _ options: cm_text, _ writer: UnsafeMutablePointer<cm_handle>,
    _ id: UnsafeMutablePointer<cm_buffer>, _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    writer.pointee = CM_NO_HANDLE
    return hostCall(host, .wait, "files.create", error: error) { instance in
        if let status = requireRoom(id, idBytes, error) { return status }
        return answering(error) { () throws(Problem) in
            guard let body = options.bytes(limit: optionBytes) else { throw .text("options", atMost: optionBytes) }
            let actor = try instance.actor(actor)
            try requirePlace(instance, PluginFileWriter.self, writersPerPlugin, "writers")
            let (kernel, forms) = (instance.environment.kernel, instance.environment.forms)
            var new = try forms.newFile(body)
            new.source = "plugin \(instance.id)"
            let wanted = new
            let made = try instance.waitForKernel { () async throws(Problem) in
                try actor.require(.writeFiles, kernel)
                return try await kernel.files.begin(wanted, by: actor.principal)
            }
            _ = id.fill(made.id.description)
            writer.pointee = instance.keep(PluginFileWriter(made, actor.principal))
            return CM_OK
        }
    }
}

private func filesResume(
    _ host: OpaquePointer, _ actor: cm_handle, _ id: cm_text, _ writer: UnsafeMutablePointer<cm_handle>,
    _ offset: UnsafeMutablePointer<UInt64>, _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    writer.pointee = CM_NO_HANDLE
    return hostCall(host, .wait, "files.resume", error: error) { instance in
        answering(error) { () throws(Problem) in
            let actor = try instance.actor(actor)
            let number = try fileID(id)
            try requirePlace(instance, PluginFileWriter.self, writersPerPlugin, "writers")
            let kernel = instance.environment.kernel
            let made = try instance.waitForKernel { () async throws(Problem) in
                try actor.require(.writeFiles, kernel)
                let file = try await kernel.files.get(number, for: actor.principal, .writeFiles)
                return try await kernel.files.resume(file.id)
            }
            offset.pointee = made.offset
            writer.pointee = instance.keep(PluginFileWriter(made, actor.principal))
            return CM_OK
        }
    }
}

private func filesAppend(
    _ host: OpaquePointer, _ writer: cm_handle, _ bytes: cm_bytes, _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    hostCall(host, .wait, "files.append", error: error) { instance in
        answering(error) { () throws(Problem) in
            guard let piece = bytes.array(limit: pieceBytes) else {
                throw Problem(413, "plugin-argument", "`bytes` has more than \(pieceBytes) bytes: append them in pieces")
            }
            try withWriter(instance, writer) { (writer) async throws(Problem) in try await writer.append(piece) }
            return CM_OK
        }
    }
}

private func filesSync(
    _ host: OpaquePointer, _ writer: cm_handle, _ offset: UnsafeMutablePointer<UInt64>, _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    hostCall(host, .wait, "files.sync", error: error) { instance in
        answering(error) { () throws(Problem) in
            offset.pointee = try withWriter(instance, writer) { (writer) async throws(Problem) in try await writer.sync() }
            return CM_OK
        }
    }
}

private func filesSeal(
    _ host: OpaquePointer, _ writer: cm_handle, _ sha256: UnsafePointer<UInt8>?, _ json: UnsafeMutablePointer<cm_buffer>,
    _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    hostCall(host, .wait, "files.seal", error: error) { instance in
        answering(error) { () throws(Problem) in
            let digest = sha256.flatMap { SHA256.Digest(bytes: Array(UnsafeBufferPointer(start: $0, count: 32))) }
            let file = try withWriter(instance, writer) { (writer) async throws(Problem) in
                try await writer.seal(expecting: digest)
            }
            instance.forget(writer)
            return error.fill(json, instance.environment.forms.file(file))
        }
    }
}

private func filesRelease(_ host: OpaquePointer, _ handle: cm_handle) -> cm_status {
    hostCall(host, .wait, "files.release") { instance in
        guard let found = instance.take(handle, PluginFileWriter.self) else { return CM_E_GONE }
        return answering(nil) { () throws(Problem) in
            _ = try instance.waitForKernel { () async throws(Problem) in await found.writer.suspend() }
            return CM_OK
        }
    }
}

private func filesDiscard(_ host: OpaquePointer, _ handle: cm_handle) -> cm_status {
    hostCall(host, .wait, "files.discard") { instance in
        guard let found = instance.take(handle, PluginFileWriter.self) else { return CM_E_GONE }
        return answering(nil) { () throws(Problem) in
            try instance.waitForKernel { () async throws(Problem) in
                try await found.writer.discard(by: found.principal)
            }
            return CM_OK
        }
    }
}

// MARK: Looking

private func filesGet(
    _ host: OpaquePointer, _ actor: cm_handle, _ id: cm_text, _ json: UnsafeMutablePointer<cm_buffer>,
    _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    hostCall(host, .wait, "files.get", error: error) { instance in
        answering(error) { () throws(Problem) in
            let actor = try instance.actor(actor)
            let number = try fileID(id)
            let kernel = instance.environment.kernel
            let file = try instance.waitForKernel { () async throws(Problem) in
                try actor.require(.readFiles, kernel)
                return try await kernel.files.get(number, for: actor.principal, .readFiles)
            }
            return error.fill(json, instance.environment.forms.file(file))
        }
    }
}

private func filesList(
    _ host: OpaquePointer, _ actor: cm_handle, _ after: cm_text, _ limit: UInt32, _ json: UnsafeMutablePointer<cm_buffer>,
    _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    hostCall(host, .wait, "files.list", error: error) { instance in
        answering(error) { () throws(Problem) in
            let actor = try instance.actor(actor)
            guard (1...1_000).contains(limit) else { throw Problem(400, "plugin-argument", "`limit` is \(limit); 1 to 1,000 are allowed") }
            var query = FileQuery()
            query.limit = Int(limit)
            if after.size > 0 { query.before = try fileID(after) }
            let wanted = query
            let (kernel, forms) = (instance.environment.kernel, instance.environment.forms)
            let page = try instance.waitForKernel { () async throws(Problem) in
                try actor.require(.readFiles, kernel)
                return try await kernel.files.list(wanted, for: actor.principal, .readFiles)
            }
            var writer = JSONWriter(reserving: 64 + 512 * page.count)
            writer.object { writer in
                writer.array("items") { writer in for file in page { writer.raw(forms.file(file)) } }
                writer.field("next", page.count == Int(limit) ? page.last?.id.description : nil)
            }
            return error.fill(json, writer.finish())
        }
    }
}

// MARK: Reading

private func filesOpen(
    _ host: OpaquePointer, _ actor: cm_handle, _ id: cm_text, _ reader: UnsafeMutablePointer<cm_handle>,
    _ size: UnsafeMutablePointer<UInt64>, _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    reader.pointee = CM_NO_HANDLE
    return hostCall(host, .wait, "files.open", error: error) { instance in
        answering(error) { () throws(Problem) in
            let actor = try instance.actor(actor)
            let number = try fileID(id)
            try requirePlace(instance, PluginFileReader.self, readersPerPlugin, "readers")
            let kernel = instance.environment.kernel
            let opened = try instance.waitForKernel { () async throws(Problem) in
                try actor.require(.readFiles, kernel)
                let file = try await kernel.files.get(number, for: actor.principal, .readFiles)
                let opened = try await kernel.files.open(file.id)
                let record = AuditRecord(principal: actor.principal, action: "file.read", target: "\(file.id)")
                try await kernel.store.write { (transaction) throws(StoreError) in _ = try transaction.audit(record) }
                return opened
            }
            size.pointee = opened.size
            reader.pointee = instance.keep(PluginFileReader(opened))
            return CM_OK
        }
    }
}

private func filesRead(
    _ host: OpaquePointer, _ handle: cm_handle, _ offset: UInt64, _ buffer: UnsafeMutablePointer<cm_buffer>,
    _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    hostCall(host, .wait, "files.read", error: error) { instance in
        answering(error) { () throws(Problem) in
            guard let found = instance.resource(handle, PluginFileReader.self) else { throw gone }
            guard buffer.pointee.capacity > 0, buffer.pointee.data != nil else { throw Problem(400, "plugin-argument", "the buffer has no room") }
            let count = Int(clamping: min(buffer.pointee.capacity, UInt64(FileReader.readBytes)))
            let piece = try instance.waitForKernel { () async throws(Problem) in
                try await found.reader.read(at: offset, count: count)
            }
            return error.fill(buffer, piece)
        }
    }
}

private func filesClose(_ host: OpaquePointer, _ handle: cm_handle) -> cm_status {
    hostCall(host, .any, "files.close") { instance in
        instance.take(handle, PluginFileReader.self) == nil ? CM_E_GONE : CM_OK
    }
}

private func filesRemove(
    _ host: OpaquePointer, _ actor: cm_handle, _ id: cm_text, _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    hostCall(host, .wait, "files.remove", error: error) { instance in
        answering(error) { () throws(Problem) in
            let actor = try instance.actor(actor)
            let number = try fileID(id)
            let kernel = instance.environment.kernel
            try instance.waitForKernel { () async throws(Problem) in
                try actor.require(.writeFiles, kernel)
                let file = try await kernel.files.get(number, for: actor.principal, .writeFiles)
                try await kernel.files.remove(file.id, by: actor.principal)
            }
            return CM_OK
        }
    }
}

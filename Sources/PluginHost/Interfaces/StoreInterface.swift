import CPluginABI
import JSON
import Kernel
import Synchronization

let storeTable = HostTable(
    cm_store(
        head: head(of: cm_store.self), get: storeGet, list: storeList, begin: storeBegin, put: storePut, remove: storeRemove,
        expect: storeExpect, commit: storeCommit, discard: storeDiscard, blob_append: storeBlobAppend,
        blob_sync: storeBlobSync, blob_read: storeBlobRead, blob_size: storeBlobSize, blob_remove: storeBlobRemove))

/// Changes that wait for their commit.
final class StoreTransaction: PluginResource {
    private struct State {
        var changes: [PluginStore.Change] = []
        var bytes = 0
        var isOver = false
    }
    private let state = Mutex(State())

    func add(_ change: PluginStore.Change) -> cm_status {
        state.withLock { state in
            guard !state.isOver else { return CM_E_GONE }
            guard state.changes.count < PluginStore.changesPerTransaction,
                state.bytes + change.bytes <= PluginStore.bytesPerTransaction
            else { return CM_E_TOO_LARGE }
            state.changes.append(change)
            state.bytes += change.bytes
            return CM_OK
        }
    }

    /// Ends it; more cannot be added.
    func take() -> (changes: [PluginStore.Change], bytes: Int) {
        state.withLock { state in
            state.isOver = true
            defer { state.changes = [] }
            return (state.changes, state.bytes)
        }
    }

    func retire(_: cm_handle, of _: PluginInstance) { _ = take() }
}

extension PluginInstance {
    /// The part of somebody's commit that a transaction is: runs on the writer's thread.
    func storeSide(
        _ transaction: StoreTransaction
    ) throws(Problem) -> (bytes: Int, body: @Sendable (borrowing Transaction) throws(StoreError) -> Void) {
        let (changes, bytes) = transaction.take()
        let memory = environment.memory(of: id)
        let room = try memory.room()
        let id = id
        return (bytes, { (transaction) throws(StoreError) in
            let usage = try PluginStore.apply(changes, of: id, room: room, transaction)
            memory.note(usage)
        })
    }
}

private func key(_ text: cm_text, _ name: String = "key") throws(Problem) -> String {
    guard let key = text.string(limit: PluginStore.keyBytes), !key.isEmpty else {
        throw Problem(400, "plugin-argument", "`\(name)` must be UTF-8 without NUL, of 1 to \(PluginStore.keyBytes) bytes")
    }
    return key
}

// MARK: Keys

private func storeGet(
    _ host: OpaquePointer, _ name: cm_text, _ value: UnsafeMutablePointer<cm_buffer>, _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    hostCall(host, .wait, "store.get", error: error) { instance in
        answering(error) { () throws(Problem) in
            let key = try key(name)
            let (store, id) = (instance.environment.kernel.store, instance.id)
            let found = try instance.waitForKernel { () async throws(Problem) in
                try await store.read { (reader) throws(StoreError) in try PluginStore.value(of: key, id, reader) }
            }
            guard let found else { throw .notFound("there is no key \"\(key.prefix(64))\"") }
            return error.fill(value, found)
        }
    }
}

private func storeList(
    _ host: OpaquePointer, _ prefix: cm_text, _ after: cm_text, _ limit: UInt32, _ json: UnsafeMutablePointer<cm_buffer>,
    _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    hostCall(host, .wait, "store.list", error: error) { instance in
        answering(error) { () throws(Problem) in
            guard let prefix = prefix.string(limit: PluginStore.keyBytes) else { throw .text("prefix", atMost: PluginStore.keyBytes) }
            guard let after = after.string(limit: PluginStore.keyBytes) else { throw .text("after", atMost: PluginStore.keyBytes) }
            guard (1...1_000).contains(limit) else { throw Problem(400, "plugin-argument", "`limit` is \(limit); 1 to 1,000 are allowed") }
            let (store, id) = (instance.environment.kernel.store, instance.id)
            let found = try instance.waitForKernel { () async throws(Problem) in
                try await store.read { (reader) throws(StoreError) in
                    try PluginStore.keys(of: id, prefix: prefix, after: after, limit: Int(limit) + 1, reader)
                }
            }
            let page = found.prefix(Int(limit))
            var writer = JSONWriter(reserving: 64 + page.reduce(0) { $0 + $1.utf8.count + 3 })
            writer.object { writer in
                writer.array("items") { writer in for key in page { writer.value(key) } }
                writer.field("next", found.count > page.count ? page.last : nil)
            }
            return error.fill(json, writer.finish())
        }
    }
}

// MARK: Transactions

private func storeBegin(_ host: OpaquePointer, _ transaction: UnsafeMutablePointer<cm_handle>) -> cm_status {
    hostCall(host, .wait, "store.begin") { instance in
        guard instance.count(of: StoreTransaction.self) < PluginStore.transactionsPerPlugin else {
            instance.misuse("store.begin", "\(PluginStore.transactionsPerPlugin) transactions are open: commit or discard them")
            return CM_E_BUSY
        }
        transaction.pointee = instance.keep(StoreTransaction())
        return CM_OK
    }
}

private func change(
    _ host: OpaquePointer, _ handle: cm_handle, _ function: StaticString, _ make: () throws(Problem) -> PluginStore.Change?
) -> cm_status {
    hostCall(host, .wait, function) { instance in
        guard let transaction = instance.resource(handle, StoreTransaction.self) else { return CM_E_GONE }
        do throws(Problem) {
            guard let change = try make() else { return CM_E_TOO_LARGE }
            return transaction.add(change)
        } catch {
            instance.misuse(function, error.detail)
            return CM_E_INVALID
        }
    }
}

private func storePut(_ host: OpaquePointer, _ transaction: cm_handle, _ name: cm_text, _ value: cm_bytes) -> cm_status {
    change(host, transaction, "store.put") { () throws(Problem) in
        let key = try key(name)
        return value.array(limit: PluginStore.valueBytes).map { .put(key: key, value: $0) }
    }
}

private func storeRemove(_ host: OpaquePointer, _ transaction: cm_handle, _ name: cm_text) -> cm_status {
    change(host, transaction, "store.remove") { () throws(Problem) in .remove(key: try key(name)) }
}

private func storeExpect(
    _ host: OpaquePointer, _ transaction: cm_handle, _ name: cm_text, _ exists: UInt32, _ value: cm_bytes
) -> cm_status {
    change(host, transaction, "store.expect") { () throws(Problem) in
        let key = try key(name)
        guard exists <= 1 else { throw Problem(400, "plugin-argument", "`exists` is \(exists); it is 0 or 1") }
        guard exists == 1 else { return .expect(key: key, value: nil) }
        return value.array(limit: PluginStore.valueBytes).map { .expect(key: key, value: $0) }
    }
}

private func storeCommit(_ host: OpaquePointer, _ handle: cm_handle, _ error: UnsafeMutablePointer<cm_error>?) -> cm_status {
    hostCall(host, .wait, "store.commit", error: error) { instance in
        guard let transaction = instance.take(handle, StoreTransaction.self) else {
            return error.set(CM_E_GONE, "plugin-handle", "there is no such transaction: it was committed or discarded")
        }
        return answering(error) { () throws(Problem) in
            let side = try instance.storeSide(transaction)
            let store = instance.environment.kernel.store
            try instance.waitForKernel { () async throws(Problem) in
                try await store.write(bytes: 512 + side.bytes, side.body)
            }
            return CM_OK
        }
    }
}

private func storeDiscard(_ host: OpaquePointer, _ handle: cm_handle) -> cm_status {
    hostCall(host, .wait, "store.discard") { instance in
        guard let transaction = instance.take(handle, StoreTransaction.self) else { return CM_E_GONE }
        transaction.retire(handle, of: instance)
        return CM_OK
    }
}

// MARK: Blobs

private func withBlob(
    _ host: OpaquePointer, _ name: cm_text, _ function: StaticString, _ error: UnsafeMutablePointer<cm_error>?,
    _ body: (PluginMemory, String) throws(Problem) -> cm_status
) -> cm_status {
    hostCall(host, .wait, function, error: error) { instance in
        answering(error) { () throws(Problem) in
            let name = try key(name, "name")
            return try body(instance.environment.memory(of: instance.id), name)
        }
    }
}

private func storeBlobAppend(
    _ host: OpaquePointer, _ name: cm_text, _ bytes: cm_bytes, _ size: UnsafeMutablePointer<UInt64>?,
    _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    hostCall(host, .wait, "store.blob_append", error: error) { instance in
        answering(error) { () throws(Problem) in
            let name = try key(name, "name")
            guard let bytes = bytes.array(limit: PluginMemory.pieceBytes) else {
                throw Problem(413, "plugin-argument", "`bytes` has more than \(PluginMemory.pieceBytes) bytes: append it in pieces")
            }
            let memory = instance.environment.memory(of: instance.id)
            if !memory.knowsStore {
                let (store, id) = (instance.environment.kernel.store, instance.id)
                memory.note(
                    try instance.waitForKernel { () async throws(Problem) in
                        try await store.read { (reader) throws(StoreError) in try PluginStore.usage(of: id, reader) }
                    })
            }
            let now = try memory.append(bytes, to: name)
            size?.pointee = now
            return CM_OK
        }
    }
}

private func storeBlobSync(_ host: OpaquePointer, _ name: cm_text, _ error: UnsafeMutablePointer<cm_error>?) -> cm_status {
    withBlob(host, name, "store.blob_sync", error) { (memory, name) throws(Problem) in
        try memory.sync(name)
        return CM_OK
    }
}

private func storeBlobRead(
    _ host: OpaquePointer, _ name: cm_text, _ offset: UInt64, _ buffer: UnsafeMutablePointer<cm_buffer>,
    _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    withBlob(host, name, "store.blob_read", error) { (memory, name) throws(Problem) in
        let capacity = Int(clamping: min(buffer.pointee.capacity, UInt64(PluginMemory.pieceBytes)))
        guard capacity == 0 || buffer.pointee.data != nil else { throw Problem(400, "plugin-argument", "the buffer has no `data`") }
        return error.fill(buffer, try memory.read(name, at: offset, count: capacity))
    }
}

private func storeBlobSize(_ host: OpaquePointer, _ name: cm_text, _ size: UnsafeMutablePointer<UInt64>) -> cm_status {
    withBlob(host, name, "store.blob_size", nil) { (memory, name) throws(Problem) in
        size.pointee = try memory.size(name)
        return CM_OK
    }
}

private func storeBlobRemove(_ host: OpaquePointer, _ name: cm_text, _ error: UnsafeMutablePointer<cm_error>?) -> cm_status {
    withBlob(host, name, "store.blob_remove", error) { (memory, name) throws(Problem) in
        try memory.remove(name)
        return CM_OK
    }
}

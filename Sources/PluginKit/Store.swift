import CPluginABI
import JSON

/// `cm.store/1`: the plugin's own durable memory. Keys are text of 1 to 512 bytes, values up to 1 MiB.
public struct Store: Sendable {
    let table: HostTable<cm_store>

    /// Changes that are made together: all of them are durable, or none.
    public struct Transaction: Sendable {
        let table: HostTable<cm_store>
        let handle: UInt64

        public func put(_ key: String, _ value: [UInt8]) throws(PluginError) {
            guard let put = table.functions.put else { throw .missing("cm.store/1 put") }
            try check(
                key.withText { key in value.withBytes { put(table.context, handle, key, $0) } }, "cm.store/1 put")
        }

        public func remove(_ key: String) throws(PluginError) {
            guard let remove = table.functions.remove else { throw .missing("cm.store/1 remove") }
            try check(key.withText { remove(table.context, handle, $0) }, "cm.store/1 remove")
        }

        /// The transaction goes through only if the key has this value now, or none where it is `nil`; else `commit`
        /// throws `.exists` and changes nothing.
        public func expect(_ key: String, _ value: [UInt8]?) throws(PluginError) {
            guard let expect = table.functions.expect else { throw .missing("cm.store/1 expect") }
            let status = key.withText { key in
                (value ?? []).withBytes { expect(table.context, handle, key, value == nil ? 0 : 1, $0) }
            }
            try check(status, "cm.store/1 expect")
        }

        /// Returns when all changes are durable.
        public func commit() throws(PluginError) {
            guard let commit = table.functions.commit else { throw .missing("cm.store/1 commit") }
            try attempt("cm.store/1 commit") { error in commit(table.context, handle, error) }
        }

        public func discard() { _ = table.functions.discard?(table.context, handle) }
    }

    /// `nil`: no such key.
    public func get(_ key: String) throws(PluginError) -> [UInt8]? {
        guard let get = table.functions.get else { throw .missing("cm.store/1 get") }
        do throws(PluginError) {
            return try readResult("cm.store/1 get") { buffer, error in
                key.withText { get(table.context, $0, buffer, error) }
            }
        } catch where error.status == .notFound {
            return nil
        }
    }

    /// Keys with this prefix after `after`, in order; at most 1,000.
    public func list(prefix: String, after: String = "", limit: Int = 1000) throws(PluginError) -> Page {
        guard let list = table.functions.list else { throw .missing("cm.store/1 list") }
        return Page(
            try readJSON("cm.store/1 list") { buffer, error in
                prefix.withText { prefix in
                    after.withText { list(table.context, prefix, $0, UInt32(clamping: limit), buffer, error) }
                }
            })
    }

    /// A transaction that the caller ends: with `commit`, `discard`, or by a job's checkpoint.
    public func begin() throws(PluginError) -> Transaction {
        guard let begin = table.functions.begin else { throw .missing("cm.store/1 begin") }
        var handle = CM_NO_HANDLE
        try check(begin(table.context, &handle), "cm.store/1 begin")
        return Transaction(table: table, handle: handle)
    }

    /// Commits what `changes` made, or discards it when that throws.
    public func transaction(_ changes: (Transaction) throws(PluginError) -> Void) throws(PluginError) {
        let transaction = try begin()
        do throws(PluginError) {
            try changes(transaction)
        } catch {
            transaction.discard()
            throw error
        }
        try transaction.commit()
    }

    // MARK: Blobs: long byte strings with names like keys

    /// Appends, and makes the blob if it is not there; answers its new size. Durable after `sync`.
    @discardableResult
    public func append(_ name: String, _ bytes: [UInt8]) throws(PluginError) -> UInt64 {
        guard let append = table.functions.blob_append else { throw .missing("cm.store/1 blob_append") }
        var size: UInt64 = 0
        try attempt("cm.store/1 blob_append") { error in
            name.withText { name in bytes.withBytes { append(table.context, name, $0, &size, error) } }
        }
        return size
    }

    public func sync(_ name: String) throws(PluginError) {
        guard let sync = table.functions.blob_sync else { throw .missing("cm.store/1 blob_sync") }
        try attempt("cm.store/1 blob_sync") { error in name.withText { sync(table.context, $0, error) } }
    }

    /// At most `limit` bytes from `offset`; empty at the end.
    public func read(_ name: String, from offset: UInt64, limit: Int = 65_536) throws(PluginError) -> [UInt8] {
        guard let read = table.functions.blob_read else { throw .missing("cm.store/1 blob_read") }
        return try readResult("cm.store/1 blob_read", expecting: limit) { buffer, error in
            name.withText { read(table.context, $0, offset, buffer, error) }
        }
    }

    /// `nil`: no such blob.
    public func size(_ name: String) throws(PluginError) -> UInt64? {
        guard let size = table.functions.blob_size else { throw .missing("cm.store/1 blob_size") }
        var value: UInt64 = 0
        let status = name.withText { size(table.context, $0, &value) }
        if status == CM_E_NOT_FOUND { return nil }
        try check(status, "cm.store/1 blob_size")
        return value
    }

    public func removeBlob(_ name: String) throws(PluginError) {
        guard let remove = table.functions.blob_remove else { throw .missing("cm.store/1 blob_remove") }
        try attempt("cm.store/1 blob_remove") { error in name.withText { remove(table.context, $0, error) } }
    }
}

extension Host {
    public func store() throws(PluginError) -> Store { Store(table: try interface(CM_INTERFACE_STORE, cm_store())) }
}

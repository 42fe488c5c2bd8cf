import Kernel

/// What `cm.store/1` keeps (and where the sinks of `cm.audit/1` stand), in the core's own database: keys of all plugins in one table, and how much each has.
enum PluginStore {
    static let keyBytes = 512
    static let valueBytes = 1 << 20
    static let keysPerPlugin = 1_000_000
    /// Of one transaction: it runs in one piece on the writer's thread, with everybody else behind it.
    static let changesPerTransaction = 4_096
    static let bytesPerTransaction = 4 << 20
    static let transactionsPerPlugin = 64

    static let migration = Migration(
        area: "plugins", version: 2,
        sql: """
            CREATE TABLE plugin_store (
                row INTEGER PRIMARY KEY, plugin TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, UNIQUE (plugin, key)
            ) STRICT;
            CREATE TABLE plugin_store_usage (
                plugin TEXT PRIMARY KEY, keys INTEGER NOT NULL, bytes INTEGER NOT NULL
            ) STRICT, WITHOUT ROWID;
            CREATE TABLE plugin_audit_positions (
                plugin TEXT PRIMARY KEY, sequence INTEGER NOT NULL
            ) STRICT, WITHOUT ROWID;
            """)

    enum Change: Sendable {
        case put(key: String, value: [UInt8])
        case remove(key: String)
        /// `nil`: there must be no such key.
        case expect(key: String, value: [UInt8]?)

        var bytes: Int {
            switch self {
            case .put(let key, let value): key.utf8.count + value.count
            case .remove(let key): key.utf8.count
            case .expect(let key, let value): key.utf8.count + (value?.count ?? 0)
            }
        }
    }

    struct Usage: Sendable, Equatable {
        var keys: UInt64 = 0
        /// Of keys and values together.
        var bytes: UInt64 = 0
    }

    static func usage(
        of plugin: String, _ store: borrowing some StoreReading & ~Copyable
    ) throws(StoreError) -> Usage {
        try store.first("SELECT keys, bytes FROM plugin_store_usage WHERE plugin = ?", plugin) { (row) throws(StoreError) in
            Usage(keys: row.unsigned(0), bytes: row.unsigned(1))
        } ?? Usage()
    }

    /// Looks at all expectations, then makes the changes in their order.
    /// - Parameter room: bytes that keys and values may have together.
    /// - Throws: 409 `plugin-store-changed` for an expectation that does not hold, 507 `plugin-store-full`.
    static func apply(
        _ changes: [Change], of plugin: String, room: UInt64, _ transaction: borrowing Transaction
    ) throws(StoreError) -> Usage {
        for case .expect(let key, let value) in changes {
            let found = try transaction.first(
                "SELECT value FROM plugin_store WHERE plugin = ? AND key = ?", plugin, key
            ) { (row) throws(StoreError) in row.bytes(0) }
            guard found == value else {
                throw .refused(
                    .conflict("plugin-store-changed", "the key \"\(key.prefix(64))\" is not what the transaction expects; nothing was changed"))
            }
        }
        let before = try usage(of: plugin, transaction)
        var usage = before
        for change in changes {
            switch change {
            case .expect: continue
            case .put(let key, let value):
                let old = try length(of: key, plugin, transaction)
                try transaction.run(
                    """
                    INSERT INTO plugin_store (plugin, key, value) VALUES (?, ?, ?)
                    ON CONFLICT (plugin, key) DO UPDATE SET value = excluded.value
                    """, plugin, key, value)
                if let old { usage.bytes -= min(usage.bytes, old) } else { usage.keys += 1 }
                usage.bytes += UInt64(value.count) + (old == nil ? UInt64(key.utf8.count) : 0)
            case .remove(let key):
                guard let old = try length(of: key, plugin, transaction) else { continue }
                try transaction.run("DELETE FROM plugin_store WHERE plugin = ? AND key = ?", plugin, key)
                usage.keys -= min(usage.keys, 1)
                usage.bytes -= min(usage.bytes, old + UInt64(key.utf8.count))
            }
        }
        guard usage != before else { return usage }
        // Whoever is over a bound that was lowered may still make it less.
        guard usage.keys <= UInt64(keysPerPlugin) || usage.keys < before.keys, usage.bytes <= room || usage.bytes < before.bytes else {
            throw .refused(
                Problem(
                    507, "plugin-store-full",
                    "\(usage.keys) keys with \(usage.bytes) bytes would be kept; \(keysPerPlugin) keys and \(room) bytes beside the blobs are allowed (plugins.store_bytes)"))
        }
        try transaction.run(
            "INSERT OR REPLACE INTO plugin_store_usage VALUES (?, ?, ?)", plugin, usage.keys, usage.bytes)
        return usage
    }

    private static func length(
        of key: String, _ plugin: String, _ transaction: borrowing Transaction
    ) throws(StoreError) -> UInt64? {
        try transaction.first(
            "SELECT length(value) FROM plugin_store WHERE plugin = ? AND key = ?", plugin, key
        ) { (row) throws(StoreError) in row.unsigned(0) }
    }

    static func value(
        of key: String, _ plugin: String, _ reader: borrowing Reader
    ) throws(StoreError) -> [UInt8]? {
        try reader.first(
            "SELECT value FROM plugin_store WHERE plugin = ? AND key = ?", plugin, key
        ) { (row) throws(StoreError) in row.bytes(0) }
    }

    /// Keys that begin with `prefix`, byte by byte, in the order of their bytes.
    static func keys(
        of plugin: String, prefix: String, after: String, limit: Int, _ reader: borrowing Reader
    ) throws(StoreError) -> [String] {
        try reader.all(
            """
            SELECT key FROM plugin_store WHERE plugin = ? AND key >= ? AND key > ? AND
                substr(CAST(key AS BLOB), 1, ?) = CAST(? AS BLOB) ORDER BY key LIMIT ?
            """, plugin, prefix, after, prefix.utf8.count, prefix, limit
        ) { (row) throws(StoreError) in row.text(0) }
    }
}

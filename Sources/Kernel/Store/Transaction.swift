/// One request's part of the running commit, on the writer thread.
///
/// The body that gets it may run more than once (when another request of the same commit fails, the rest is run
/// again), so it must do nothing but read and write through the transaction. It must not wait, and it takes no locks
/// that a loop could hold.
public struct Transaction: ~Copyable, StoreReading {
    public let access: StoreAccess
    let chain: AuditChain

    /// Runs INSERT, UPDATE or DELETE.
    /// - Returns: the number of rows changed.
    @discardableResult
    public func run<each Value: StoreValue>(
        _ sql: StaticString, _ values: repeat each Value
    ) throws(StoreError) -> Int {
        let connection = access.connection
        let use = try connection.take(sql)
        defer { connection.give(use) }
        bind(connection.bound(use), repeat each values)
        while try connection.step(use.statement) {}
        return connection.changes
    }

    /// The same for the statements of each command: the values are set by `values`, in order, each as what it is, where the
    /// form above goes through a table for each.
    @inline(__always)
    func run(_ sql: StaticString, values: (inout ValueList) -> Void) throws(StoreError) {
        let connection = access.connection
        let use = try connection.take(sql)
        defer { connection.give(use) }
        var list = ValueList(connection.bound(use))
        values(&list)
        while try connection.step(use.statement) {}
    }

    /// Runs a changing statement whose text was put together at run time.
    @discardableResult
    public func run(_ query: StoreQuery) throws(StoreError) -> Int {
        try each(query) { (_) throws(StoreError) in }
        return access.connection.changes
    }

    /// The rowid of the last INSERT of this transaction.
    public var lastInsertedRow: Int64 { access.connection.lastInsertedRow }
}

/// What both a transaction and a reader can do: run SELECTs. Helpers that only read take
/// `_ store: borrowing some StoreReading & ~Copyable` and serve both.
///
/// Statements given as literals are prepared once per connection; `StoreQuery` is for text that is put together.
public protocol StoreReading: ~Copyable {
    var access: StoreAccess { get }
}

/// The connection behind a transaction or reader; nothing outside this folder can open it.
public struct StoreAccess {
    let connection: Connection
}

extension StoreReading where Self: ~Copyable {
    /// Calls `body` for each row.
    public func each<each Value: StoreValue>(
        _ sql: StaticString, _ values: repeat each Value, row body: (borrowing Row) throws(StoreError) -> Void
    ) throws(StoreError) {
        let connection = access.connection
        let use = try connection.take(sql)
        defer { connection.give(use) }
        bind(connection.bound(use), repeat each values)
        while try connection.step(use.statement) { try body(Row(handle: use.statement)) }
    }

    /// What `body` makes of the rows, in order.
    public func all<each Value: StoreValue, Result>(
        _ sql: StaticString, _ values: repeat each Value, row body: (borrowing Row) throws(StoreError) -> Result
    ) throws(StoreError) -> [Result] {
        var results: [Result] = []
        try each(sql, repeat each values) { (row) throws(StoreError) in results.append(try body(row)) }
        return results
    }

    /// What `body` makes of the rows, in order, before the first of which it makes nothing.
    public func prefix<each Value: StoreValue, Result>(
        _ sql: StaticString, _ values: repeat each Value, row body: (borrowing Row) throws(StoreError) -> Result?
    ) throws(StoreError) -> [Result] {
        var results: [Result] = []
        let connection = access.connection
        let use = try connection.take(sql)
        defer { connection.give(use) }
        bind(connection.bound(use), repeat each values)
        while try connection.step(use.statement), let result = try body(Row(handle: use.statement)) { results.append(result) }
        return results
    }

    /// What `body` makes of the first row; `nil` if there is none.
    public func first<each Value: StoreValue, Result>(
        _ sql: StaticString, _ values: repeat each Value, row body: (borrowing Row) throws(StoreError) -> Result
    ) throws(StoreError) -> Result? {
        let connection = access.connection
        let use = try connection.take(sql)
        defer { connection.give(use) }
        bind(connection.bound(use), repeat each values)
        return try connection.step(use.statement) ? try body(Row(handle: use.statement)) : nil
    }

    /// True if there is at least one row.
    public func exists<each Value: StoreValue>(
        _ sql: StaticString, _ values: repeat each Value
    ) throws(StoreError) -> Bool {
        try first(sql, repeat each values) { (_) throws(StoreError) in true } ?? false
    }

    /// The first column of the first row as a number; 0 if there is no row.
    public func count<each Value: StoreValue>(
        _ sql: StaticString, _ values: repeat each Value
    ) throws(StoreError) -> Int {
        try first(sql, repeat each values) { (row) throws(StoreError) in row.int(0) } ?? 0
    }

    public func each(_ query: StoreQuery, row body: (borrowing Row) throws(StoreError) -> Void) throws(StoreError) {
        let connection = access.connection
        let use = try connection.take(text: query.sql)
        defer { connection.give(use) }
        let statement = connection.bound(use)
        for (index, value) in query.values.enumerated() { value.bind(to: statement, at: Int32(index + 1)) }
        while try connection.step(use.statement) { try body(Row(handle: use.statement)) }
    }

    public func all<Result>(
        _ query: StoreQuery, row body: (borrowing Row) throws(StoreError) -> Result
    ) throws(StoreError) -> [Result] {
        var results: [Result] = []
        try each(query) { (row) throws(StoreError) in results.append(try body(row)) }
        return results
    }
}

@inline(__always)
func bind<each Value: StoreValue>(_ statement: consuming BoundStatement, _ values: repeat each Value) {
    var list = ValueList(statement)
    repeat list.add(each values)
}

/// A consistent snapshot of the database for one short look. Lives on a reader thread.
public struct Reader: ~Copyable, StoreReading {
    public let access: StoreAccess
}

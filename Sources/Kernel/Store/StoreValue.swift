import AgentProtocol
import CSQLite

/// A Swift value that can stand for a `?` of a statement.
public protocol StoreValue {
    func bind(to statement: borrowing BoundStatement, at index: Int32)
}

extension Int64: StoreValue {
    public func bind(to statement: borrowing BoundStatement, at index: Int32) { statement.bind(self, at: index) }
}
extension Int: StoreValue {
    public func bind(to statement: borrowing BoundStatement, at index: Int32) { statement.bind(Int64(self), at: index) }
}
extension Int32: StoreValue {
    public func bind(to statement: borrowing BoundStatement, at index: Int32) { statement.bind(Int64(self), at: index) }
}
extension UInt32: StoreValue {
    public func bind(to statement: borrowing BoundStatement, at index: Int32) { statement.bind(Int64(self), at: index) }
}
/// Offsets, times and counters. SQLite has signed 64-bit integers only: what does not fit is stored as the largest.
extension UInt64: StoreValue {
    public func bind(to statement: borrowing BoundStatement, at index: Int32) {
        statement.bind(Int64(clamping: self), at: index)
    }
}
extension Bool: StoreValue {
    public func bind(to statement: borrowing BoundStatement, at index: Int32) {
        statement.bind(self ? 1 as Int64 : 0, at: index)
    }
}
extension Double: StoreValue {
    public func bind(to statement: borrowing BoundStatement, at index: Int32) { statement.bind(self, at: index) }
}
extension String: StoreValue {
    public func bind(to statement: borrowing BoundStatement, at index: Int32) { statement.bind(self, at: index) }
}
/// A BLOB.
extension Array: StoreValue where Element == UInt8 {
    public func bind(to statement: borrowing BoundStatement, at index: Int32) { statement.bind(self, at: index) }
}
/// Sixteen bytes, big-endian: the order of a BLOB column is the order in which the identifiers were made.
extension Identifier: StoreValue {
    public func bind(to statement: borrowing BoundStatement, at index: Int32) {
        statement.bind(high: high, low: low, at: index)
    }
}
extension Optional: StoreValue where Wrapped: StoreValue {
    public func bind(to statement: borrowing BoundStatement, at index: Int32) {
        if let self { self.bind(to: statement, at: index) } else { statement.bindNull(at: index) }
    }
}

/// A value whose type is known only at run time, for queries that are put together from filters.
public enum StoreCell: StoreValue, Sendable, Equatable {
    case null
    case integer(Int64)
    case real(Double)
    case text(String)
    case bytes([UInt8])

    public func bind(to statement: borrowing BoundStatement, at index: Int32) {
        switch self {
        case .null: statement.bindNull(at: index)
        case .integer(let value): statement.bind(value, at: index)
        case .real(let value): statement.bind(value, at: index)
        case .text(let value): statement.bind(value, at: index)
        case .bytes(let value): statement.bind(value, at: index)
        }
    }
}

/// SQL text with its values, for queries that are put together from filters. Text from outside belongs into `values`,
/// never into `sql`.
public struct StoreQuery: Sendable, Equatable {
    public var sql: String
    public var values: [StoreCell]
    public init(_ sql: String, _ values: [StoreCell] = []) {
        self.sql = sql
        self.values = values
    }

    /// Adds a condition in parentheses, after `WHERE` or `AND`.
    public mutating func and(_ condition: String, _ values: StoreCell...) {
        sql += (hasCondition ? " AND (" : " WHERE (") + condition + ")"
        hasCondition = true
        self.values += values
    }
    private var hasCondition = false

    /// Adds text as it is (`ORDER BY … LIMIT ?`).
    public mutating func append(_ text: String, _ values: StoreCell...) {
        sql += text
        self.values += values
    }
}

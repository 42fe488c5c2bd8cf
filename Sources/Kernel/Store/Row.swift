import AgentProtocol
import CSQLite

/// A prepared statement while its values are set. It is borrowed from the connection's cache and cannot be kept.
///
/// Text and bytes are copied into the connection's `ValueStack`, or by SQLite where they do not fit, so nothing has to
/// live until the statement has run. A failed copy (no memory) leaves NULL, which the columns' NOT NULL rules then refuse.
public struct BoundStatement: ~Copyable {
    let handle: OpaquePointer
    let values: ValueStack

    public func bind(_ value: Int64, at index: Int32) { sqlite3_bind_int64(handle, index, value) }
    public func bind(_ value: Double, at index: Int32) { sqlite3_bind_double(handle, index, value) }
    public func bindNull(at index: Int32) { sqlite3_bind_null(handle, index) }

    public func bind(_ value: String, at index: Int32) {
        value.utf8Span.span.withUnsafeBytes { text in
            if let place = values.keep(text) {
                _ = cm_sqlite_bind_text_in_place(handle, index, place, Int32(truncatingIfNeeded: text.count))
            } else {
                _ = cm_sqlite_bind_text_copy(handle, index, text.baseAddress, Int32(clamping: text.count))
            }
        }
    }

    public func bind(_ value: [UInt8], at index: Int32) { value.withUnsafeBytes { bind($0, at: index) } }

    public func bind(_ value: UnsafeRawBufferPointer, at index: Int32) {
        if value.isEmpty {
            sqlite3_bind_zeroblob(handle, index, 0)
        } else if let place = values.keep(value) {
            _ = cm_sqlite_bind_blob_in_place(handle, index, place, Int32(truncatingIfNeeded: value.count))
        } else {
            _ = cm_sqlite_bind_blob_copy(handle, index, value.baseAddress, Int32(clamping: value.count))
        }
    }

    public func bind(high: UInt64, low: UInt64, at index: Int32) {
        withUnsafeBytes(of: (high.bigEndian, low.bigEndian)) { bind($0, at: index) }
    }
}

/// Sets the values of a statement one after the other.
public struct ValueList: ~Copyable {
    let statement: BoundStatement
    private var index: Int32 = 0

    init(_ statement: consuming BoundStatement) { self.statement = statement }

    @inline(__always)
    public mutating func add(_ value: borrowing some StoreValue) {
        index += 1
        value.bind(to: statement, at: index)
    }
}

/// The row that a statement stands on. Columns count from 0. It is borrowed for one call of the row closure.
public struct Row: ~Copyable {
    let handle: OpaquePointer

    public func isNull(_ column: Int32) -> Bool { sqlite3_column_type(handle, column) == SQLITE_NULL }

    /// 0 for NULL.
    public func integer(_ column: Int32) -> Int64 { sqlite3_column_int64(handle, column) }
    public func int(_ column: Int32) -> Int { Int(sqlite3_column_int64(handle, column)) }
    /// Offsets, times and counters that were stored from a UInt64; 0 for NULL or a negative number.
    public func unsigned(_ column: Int32) -> UInt64 { UInt64(clamping: sqlite3_column_int64(handle, column)) }
    public func bool(_ column: Int32) -> Bool { sqlite3_column_int64(handle, column) != 0 }
    public func double(_ column: Int32) -> Double { sqlite3_column_double(handle, column) }

    /// Empty for NULL.
    public func text(_ column: Int32) -> String {
        guard let text = sqlite3_column_text(handle, column) else { return "" }
        let count = Int(sqlite3_column_bytes(handle, column))
        return String(decoding: UnsafeBufferPointer(start: text, count: count), as: UTF8.self)
    }

    /// Empty for NULL.
    public func bytes(_ column: Int32) -> [UInt8] {
        guard let blob = sqlite3_column_blob(handle, column) else { return [] }
        return Array(UnsafeRawBufferPointer(start: blob, count: Int(sqlite3_column_bytes(handle, column))))
    }

    /// The bytes in place, without a copy; they live as long as the row.
    public func withBytes<Result, Failure: Error>(
        _ column: Int32, _ body: (RawSpan) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        let blob = sqlite3_column_blob(handle, column)
        let buffer = UnsafeRawBufferPointer(start: blob, count: Int(sqlite3_column_bytes(handle, column)))
        return try body(buffer.bytes)
    }

    public func optionalInteger(_ column: Int32) -> Int64? { isNull(column) ? nil : integer(column) }
    public func optionalUnsigned(_ column: Int32) -> UInt64? { isNull(column) ? nil : unsigned(column) }
    public func optionalText(_ column: Int32) -> String? { isNull(column) ? nil : text(column) }
    public func optionalBytes(_ column: Int32) -> [UInt8]? { isNull(column) ? nil : bytes(column) }

    /// `nil` for NULL and for anything that is not sixteen bytes.
    public func identifier<Kind>(_ column: Int32, _: Kind.Type = Kind.self) -> Identifier<Kind>? {
        guard let blob = sqlite3_column_blob(handle, column), sqlite3_column_bytes(handle, column) == 16 else {
            return nil
        }
        let words = UnsafeRawPointer(blob).loadUnaligned(as: (UInt64, UInt64).self)
        return Identifier(high: UInt64(bigEndian: words.0), low: UInt64(bigEndian: words.1))
    }
}

import AgentProtocol

/// Which records a reader wants; what is `nil` does not matter.
public struct AuditFilter: Sendable, Equatable {
    public var actor: String?
    /// An action, or all of an area: `command.*`.
    public var action: String?
    public var target: String?
    public var client: ClientID?
    public var outcome: AuditRecord.Outcome?
    public var correlation: String?
    public var address: String?
    /// Unix milliseconds, inclusive and exclusive.
    public var since: UInt64?
    public var until: UInt64?
    public init() {}

    func add(to query: inout StoreQuery) {
        if let actor { query.and("actor = ?", .text(actor)) }
        if let action {
            if action.hasSuffix(".*") {
                // An area's actions are one range: "/" is the character after ".".
                query.and(
                    "action >= ? AND action < ?", .text(String(action.dropLast())),
                    .text(action.dropLast(2) + "/"))
            } else {
                query.and("action = ?", .text(action))
            }
        }
        if let target { query.and("target = ?", .text(target)) }
        if let client { query.and("instr(clients, ?) > 0", .bytes(client.bytes)) }
        if let outcome { query.and("outcome = ?", .text(outcome.rawValue)) }
        if let correlation { query.and("correlation = ?", .text(correlation)) }
        if let address { query.and("address = ?", .text(address)) }
        if let since { query.and("time_ms >= ?", .integer(Int64(clamping: since))) }
        if let until { query.and("time_ms < ?", .integer(Int64(clamping: until))) }
    }
}

public struct AuditPage: Sendable {
    public var lines: [AuditLine]
    /// Where the next page begins; `nil` at the end. A page may be short, even empty, and still have a next one: each
    /// looks at a bounded number of records.
    public var next: UInt64?
    /// Up to where the page looked, inclusive; for reading on, oldest first.
    public var reached: UInt64 = 0
}

extension Audit {
    /// Records that one page looks at.
    static let maximumExamined: UInt64 = 50_000

    /// Newest first.
    /// - Parameter before: the `next` of the page before.
    public func query(_ filter: AuditFilter, before: UInt64? = nil, limit: Int = 100) async throws(Problem) -> AuditPage {
        let limit = min(max(limit, 1), 1_000)
        return try await store.read { (reader) throws(StoreError) in
            let bounds = try Self.bounds(reader)
            // Times never decrease, so both ends of the range in time are found by halving.
            var top = min(before ?? .max, bounds.newest + 1)
            if let until = filter.until { top = min(top, try Self.firstRecord(notBefore: until, bounds, reader)) }
            var bottom = bounds.oldest
            if let since = filter.since { bottom = max(bottom, try Self.firstRecord(notBefore: since, bounds, reader)) }
            let floor = max(bottom, top > Self.maximumExamined ? top - Self.maximumExamined : 1)
            guard floor < top else { return AuditPage(lines: [], next: nil) }
            var query = StoreQuery("SELECT * FROM audit_records")
            query.and(
                "sequence >= ? AND sequence < ?", .integer(Int64(clamping: floor)), .integer(Int64(clamping: top)))
            filter.add(to: &query)
            query.append(" ORDER BY sequence DESC LIMIT ?", .integer(Int64(limit)))
            let lines = try reader.all(query, row: AuditLine.init)
            let reached = lines.count == limit ? (lines.last?.entry.sequence ?? floor) : floor
            return AuditPage(lines: lines, next: reached > bottom ? reached : nil)
        }
    }

    /// Oldest first, those after `sequence`: for export, live tail and sinks.
    public func lines(
        after sequence: UInt64, through last: UInt64 = .max, _ filter: AuditFilter = AuditFilter(), limit: Int = 500
    ) async throws(Problem) -> AuditPage {
        let limit = min(max(limit, 1), 5_000)
        return try await store.read { (reader) throws(StoreError) in
            let bounds = try Self.bounds(reader)
            let end = min(last, bounds.newest)
            let start = max(sequence, bounds.oldest - 1)
            guard start < end else { return AuditPage(lines: [], next: nil, reached: sequence) }
            let ceiling = min(end, start + Self.maximumExamined)
            var query = StoreQuery("SELECT * FROM audit_records")
            query.and(
                "sequence > ? AND sequence <= ?", .integer(Int64(clamping: start)), .integer(Int64(clamping: ceiling)))
            filter.add(to: &query)
            query.append(" ORDER BY sequence LIMIT ?", .integer(Int64(limit)))
            let lines = try reader.all(query, row: AuditLine.init)
            let reached = lines.count == limit ? (lines.last?.entry.sequence ?? ceiling) : ceiling
            return AuditPage(lines: lines, next: reached < end ? reached : nil, reached: reached)
        }
    }

    struct Bounds: Sendable {
        /// 1 and 0 for an empty trail.
        var oldest: UInt64
        var newest: UInt64
    }

    static func bounds(_ reader: borrowing some StoreReading & ~Copyable) throws(StoreError) -> Bounds {
        // Two statements: min and max in one would walk the whole table.
        let oldest = try reader.first("SELECT min(sequence) FROM audit_records") { (row) throws(StoreError) in
            row.optionalUnsigned(0)
        } ?? nil
        let newest = try reader.first("SELECT max(sequence) FROM audit_records") { (row) throws(StoreError) in
            row.optionalUnsigned(0)
        } ?? nil
        return Bounds(oldest: max(oldest ?? 1, 1), newest: newest ?? 0)
    }

    private static func firstRecord(
        notBefore milliseconds: UInt64, _ bounds: Bounds, _ reader: borrowing Reader
    ) throws(StoreError) -> UInt64 {
        var low = bounds.oldest
        var high = bounds.newest + 1
        while low < high {
            let middle = low + (high - low) / 2
            let time = try reader.first(
                "SELECT time_ms FROM audit_records WHERE sequence >= ? ORDER BY sequence LIMIT 1", middle
            ) { (row) throws(StoreError) in row.unsigned(0) }
            if (time ?? .max) >= milliseconds { high = middle } else { low = middle + 1 }
        }
        return low
    }
}

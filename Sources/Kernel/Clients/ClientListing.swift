import AgentProtocol
import Crypto

/// What a list of clients shows, and how.
public struct ClientQuery: Sendable {
    public enum Order: String, Sendable, CaseIterable {
        /// The order of enrollment.
        case id
        case name
        case hostname
        case state
        case lastSeen = "last_seen"
    }
    public var selector: Selector
    /// The clients that the caller may see at all: one of `allowed`, none of `denied`.
    public var allowed: [Selector]
    public var denied: [Selector]
    /// Part of the id, name, host name or address; case counts for nothing with ASCII letters.
    public var text: String
    public var order: Order
    public var isDescending: Bool
    public var limit: Int
    /// Where the page before ended.
    public var cursor: ClientCursor?

    public init(
        selector: Selector = .everything, allowed: [Selector] = [.everything], denied: [Selector] = [],
        text: String = "", order: Order = .id, isDescending: Bool = false, limit: Int = 100,
        cursor: ClientCursor? = nil
    ) {
        self.selector = selector
        self.allowed = allowed
        self.denied = denied
        self.text = text
        self.order = order
        self.isDescending = isDescending
        self.limit = limit
        self.cursor = cursor
    }
}

public struct ClientPage: Sendable {
    public var clients: [Client]
    public var next: ClientCursor?
    /// All clients that the query meets, on every page.
    public var total: Int
    /// Changes with everything that a list shows, except heartbeats.
    public var entityTag: String
}

/// A place in an ordered list: the sort key of the last client shown, then its id, so that clients that come and go
/// neither double nor hide others.
public struct ClientCursor: Sendable, Comparable {
    var number: UInt64
    var text: String
    var id: ClientID

    public static func < (a: ClientCursor, b: ClientCursor) -> Bool {
        if a.number != b.number { return a.number < b.number }
        if a.text != b.text { return a.text < b.text }
        return a.id < b.id
    }

    /// Opaque to callers.
    public var encoded: String {
        var bytes = id.bytes
        for shift in stride(from: 56 as UInt64, through: 0, by: -8) { bytes.append(UInt8(truncatingIfNeeded: number >> shift)) }
        return Base64.encodeURL(bytes + Array(text.utf8))
    }

    init(number: UInt64, text: String, id: ClientID) {
        self.number = number
        self.text = text
        self.id = id
    }

    public init?(encoded: String) {
        guard encoded.utf8.count <= 1_024, let bytes = Base64.decodeURL(encoded), bytes.count >= 24,
            let id = ClientID(bytes: Array(bytes[0..<16])), let text = String(validating: bytes[24...], as: UTF8.self)
        else { return nil }
        self.init(number: bytes[16..<24].reduce(0) { $0 << 8 | UInt64($1) }, text: text, id: id)
    }
}

extension Clients {
    /// One page of clients. The registry is looked at once; sorting keeps only what the page needs.
    /// - Throws: as `select`.
    public func page(_ query: ClientQuery) throws(Problem) -> ClientPage {
        try fleet.withLock { (table) throws(Problem) in
            let found = try table.select(query.selector, allowed: query.allowed, denied: query.denied)
            var best = FirstPlaces(query.limit + 1, isDescending: query.isDescending)
            var total = 0
            let needsOnlyID = query.order == .id && query.text.isEmpty
            found.forEach { slot in
                // A row is dear to copy, and there is one for each client of the fleet.
                let place: ClientCursor
                if needsOnlyID {
                    guard let id = table.id(slot) else { return }
                    place = ClientCursor(number: 0, text: "", id: id)
                } else {
                    guard let row = table.row(slot), table.has(query.text, row) else { return }
                    place = table.place(of: row, query.order)
                }
                total += 1
                if let cursor = query.cursor, query.isDescending ? place >= cursor : place <= cursor { return }
                best.offer(place)
            }
            let places = best.sorted()
            let shown = places.prefix(query.limit)
            return ClientPage(
                clients: shown.compactMap { table.row(of: $0.id) }.map { table.client($0) },
                next: places.count > query.limit ? shown.last : nil, total: total,
                entityTag: "\(table.generation)")
        }
    }

    /// Values of some facts of a client by their paths; more than one value for a list.
    public func facts(_ paths: [String], of id: ClientID) -> [String: [String]] {
        fleet.withLock { table in
            guard let row = table.row(of: id) else { return [:] }
            var facts: [String: [String]] = [:]
            for path in paths {
                let values = table.facts(path, of: row)
                if !values.isEmpty { facts[path] = values }
            }
            return facts
        }
    }
}

/// The first so many of a stream of places, in memory for twice as many.
private struct FirstPlaces {
    private let count: Int
    private let isDescending: Bool
    private var kept: [ClientCursor] = []
    /// What comes at or after it can be skipped.
    private var limit: ClientCursor?

    init(_ count: Int, isDescending: Bool) {
        self.count = count
        self.isDescending = isDescending
    }

    private func precedes(_ a: ClientCursor, _ b: ClientCursor) -> Bool { isDescending ? a > b : a < b }

    mutating func offer(_ place: ClientCursor) {
        if let limit, !precedes(place, limit) { return }
        kept.append(place)
        guard kept.count >= 2 * count else { return }
        kept = sorted()
        limit = kept.last
    }

    func sorted() -> [ClientCursor] { Array(kept.sorted(by: precedes).prefix(count)) }
}

extension FleetTable {
    fileprivate func place(of row: Row, _ order: ClientQuery.Order) -> ClientCursor {
        switch order {
        case .id: ClientCursor(number: 0, text: "", id: row.id)
        case .name: ClientCursor(number: 0, text: name(of: row), id: row.id)
        case .hostname: ClientCursor(number: 0, text: fact("hostname", of: row) ?? "", id: row.id)
        case .state: ClientCursor(number: 0, text: row.state.rawValue, id: row.id)
        case .lastSeen: ClientCursor(number: row.lastSeen, text: "", id: row.id)
        }
    }

    fileprivate func has(_ text: String, _ row: Row) -> Bool {
        guard !text.isEmpty else { return true }
        return contains(name(of: row), text) || contains(row.address, text) || contains(row.id.description, text)
            || contains(fact("hostname", of: row) ?? "", text)
    }

    private func contains(_ whole: String, _ part: String) -> Bool {
        func lower(_ byte: UInt8) -> UInt8 { byte >= 0x41 && byte <= 0x5A ? byte | 0x20 : byte }
        let whole = whole.utf8.map(lower)
        let part = part.utf8.map(lower)
        guard part.count <= whole.count else { return false }
        return (0...(whole.count - part.count)).contains { whole[$0..<$0 + part.count].elementsEqual(part) }
    }
}

import AgentProtocol

/// What the core keeps of a channel on the disk: enough to find it again and to say whose it is.
public struct ChannelDescription: Sendable, Equatable {
    public var id: ChannelID
    public var client: ClientID
    public var kind: ChannelSpecification.Kind
    public var ownerKind: Principal.Kind
    public var owner: String
    /// Program and arguments in one line, or `login shell`.
    public var program: String
    public var user: String?
    /// As the specification named it.
    public var keeper: String
    /// Unix milliseconds.
    public var openedAt: UInt64
    /// Set when the program has ended and somebody may still read the rest.
    public var endedAt: UInt64?

    func isOwned(by principal: Principal) -> Bool { principal.kind == ownerKind && principal.id == owner }
}

/// A channel in a list.
public struct ChannelView: Sendable, Equatable {
    public enum State: String, Sendable {
        case opening, open, away, ended
    }
    public var description: ChannelDescription
    public var state: State
    public var isAttached: Bool
}

extension Channels {
    public static let migrations = [
        Migration(area: "channels", version: 1, sql: """
            CREATE TABLE channels (
                id BLOB PRIMARY KEY,
                client BLOB NOT NULL,
                kind TEXT NOT NULL,
                owner_kind TEXT NOT NULL,
                owner TEXT NOT NULL,
                program TEXT NOT NULL,
                user TEXT,
                keeper TEXT NOT NULL,
                opened_ms INTEGER NOT NULL,
                ended_ms INTEGER
            ) STRICT, WITHOUT ROWID;
            """)
    ]

    /// Every channel that has not been acknowledged.
    static func load(_ store: Store) async throws(Problem) -> [ChannelDescription] {
        try await store.read { (reader) throws(StoreError) -> [ChannelDescription] in
            var found: [ChannelDescription] = []
            try reader.each(
                "SELECT id, client, kind, owner_kind, owner, program, user, keeper, opened_ms, ended_ms FROM channels"
            ) { (row) throws(StoreError) in
                guard let id = ChannelID(bytes: row.bytes(0)), let client = ClientID(bytes: row.bytes(1)),
                    let kind = ChannelSpecification.Kind(rawValue: row.text(2)),
                    let ownerKind = Principal.Kind(rawValue: row.text(3))
                else { return }
                found.append(
                    ChannelDescription(
                        id: id, client: client, kind: kind, ownerKind: ownerKind, owner: row.text(4),
                        program: row.text(5), user: row.optionalText(6), keeper: row.text(7),
                        openedAt: UInt64(clamping: row.integer(8)), endedAt: row.optionalInteger(9).map { UInt64(clamping: $0) }))
            }
            return found
        }
    }
}

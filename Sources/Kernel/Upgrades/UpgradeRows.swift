import AgentProtocol

/// Releases, upgrades and their clients as rows. An upgrade has the id of its job.
enum UpgradeRows {
    static let migrations = [
        Migration(
            area: "upgrades", version: 1,
            sql: """
                CREATE TABLE releases (
                    id BLOB PRIMARY KEY, version TEXT NOT NULL, platform TEXT NOT NULL,
                    -- As they were signed, byte for byte.
                    manifest TEXT NOT NULL, signature TEXT NOT NULL, key TEXT NOT NULL,
                    file BLOB NOT NULL, added_by TEXT NOT NULL, added_ms INTEGER NOT NULL, UNIQUE (version, platform)
                ) STRICT;
                CREATE TABLE upgrades (
                    id BLOB PRIMARY KEY, release BLOB NOT NULL, version TEXT NOT NULL,
                    -- Clients of the first wave.
                    first_wave INTEGER NOT NULL,
                    paused INTEGER NOT NULL, started_ms INTEGER NOT NULL, finished_ms INTEGER
                ) STRICT;
                CREATE INDEX upgrades_release ON upgrades (release) WHERE finished_ms IS NULL;
                CREATE TABLE upgrade_targets (
                    upgrade BLOB NOT NULL, place INTEGER NOT NULL, client BLOB NOT NULL, state TEXT NOT NULL,
                    code TEXT NOT NULL, message TEXT NOT NULL, changed_ms INTEGER NOT NULL, PRIMARY KEY (upgrade, place)
                ) STRICT, WITHOUT ROWID;
                CREATE UNIQUE INDEX upgrade_targets_client ON upgrade_targets (client, upgrade);
                """)
    ]

    struct Upgrade: Sendable {
        var id: UpgradeID
        var release: ReleaseID
        var version: String
        var firstWave: Int
        var isPaused: Bool
        var startedAt: UInt64
        var finishedAt: UInt64?
    }

    static func load(
        _ id: UpgradeID, _ store: borrowing some StoreReading & ~Copyable
    ) throws(StoreError) -> Upgrade? {
        try store.first(
            "SELECT release, version, first_wave, paused, started_ms, finished_ms FROM upgrades WHERE id = ?", id
        ) { (row) throws(StoreError) in
            guard let release = row.identifier(0, ReleaseItself.self) else {
                throw .failed(code: 0, message: "a row of the table upgrades is damaged")
            }
            return Upgrade(
                id: id, release: release, version: row.text(1), firstWave: row.int(2), isPaused: row.bool(3),
                startedAt: row.unsigned(4), finishedAt: row.optionalUnsigned(5))
        }
    }

    static func insert(_ upgrade: Upgrade, _ transaction: borrowing Transaction) throws(StoreError) {
        try transaction.run(
            "INSERT INTO upgrades VALUES (?, ?, ?, ?, 0, ?, NULL)", upgrade.id, upgrade.release, upgrade.version,
            upgrade.firstWave, upgrade.startedAt)
    }

    static func insert(
        _ target: UpgradeRunStateMachine.Target, _ place: Int, of id: UpgradeID, _ transaction: borrowing Transaction
    ) throws(StoreError) {
        let machine = target.machine
        try transaction.run(
            "INSERT OR REPLACE INTO upgrade_targets VALUES (?, ?, ?, ?, ?, ?, ?)", id, place, target.client,
            machine.state.rawValue, machine.code, machine.message, machine.changedAt)
    }

    static func targets(
        of id: UpgradeID, from place: Int = 0, state: UpgradeTargetState? = nil, limit: Int = Int(Int32.max),
        _ store: borrowing some StoreReading & ~Copyable
    ) throws(StoreError) -> [(place: Int, target: UpgradeRunStateMachine.Target)] {
        var query = StoreQuery("SELECT place, client, state, code, message, changed_ms FROM upgrade_targets")
        query.and("upgrade = ?", .bytes(id.bytes))
        query.and("place >= ?", .integer(Int64(place)))
        if let state { query.and("state = ?", .text(state.rawValue)) }
        query.append(" ORDER BY place LIMIT ?", .integer(Int64(limit)))
        return try store.all(query) { (row) throws(StoreError) in
            guard let client = row.identifier(1, ClientKind.self), let state = UpgradeTargetState(rawValue: row.text(2))
            else { throw .failed(code: 0, message: "a row of the table upgrade_targets is damaged") }
            var target = UpgradeRunStateMachine.Target(client: client)
            target.machine.restore(state: state, code: row.text(3), message: row.text(4), changedAt: row.unsigned(5))
            return (row.int(0), target)
        }
    }

    static func counts(
        of id: UpgradeID, _ store: borrowing some StoreReading & ~Copyable
    ) throws(StoreError) -> [UpgradeTargetState: Int] {
        var counts: [UpgradeTargetState: Int] = [:]
        try store.each("SELECT state, count(*) FROM upgrade_targets WHERE upgrade = ? GROUP BY state", id) {
            (row) throws(StoreError) in
            if let state = UpgradeTargetState(rawValue: row.text(0)) { counts[state] = row.int(1) }
        }
        return counts
    }
}

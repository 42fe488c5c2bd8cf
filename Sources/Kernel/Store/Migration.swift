import CSQLite

/// One step of one area's schema. Each area keeps its own list (`static let migrations: [Migration]`), versions count
/// from 1 without gaps, and a step that has shipped is never edited: a change is a new step.
public struct Migration: Sendable {
    public let area: String
    public let version: Int
    public let sql: String
    public init(area: String, version: Int, sql: String) {
        self.area = area
        self.version = version
        self.sql = sql
    }
}

/// Brings a database forward. There is no way back: a database that was written by a newer core is refused.
enum Migrations {
    /// "CMgr": tells our files from any other SQLite database.
    private static let applicationID = 0x434D_6772

    static func apply(
        _ migrations: [Migration], to connection: Connection, now: UInt64
    ) throws(StoreError) {
        try checkList(migrations)
        let application = try pragma(connection, "PRAGMA application_id")
        let tables = try pragma(connection, "SELECT count(*) FROM sqlite_schema")
        guard application == applicationID || (application == 0 && tables == 0) else {
            throw refusal("the database file belongs to another program (application id \(application))")
        }
        try connection.execute("PRAGMA application_id = \(applicationID)")
        try connection.execute("""
            CREATE TABLE IF NOT EXISTS migrations (
                area TEXT NOT NULL, version INTEGER NOT NULL, applied_ms INTEGER NOT NULL, PRIMARY KEY (area, version)
            ) STRICT, WITHOUT ROWID
            """)
        var applied: [String: Int] = [:]
        let reader = Reader(access: StoreAccess(connection: connection))
        try reader.each("SELECT area, max(version) FROM migrations GROUP BY area") { (row) throws(StoreError) in
            applied[row.text(0)] = row.int(1)
        }
        let known = Dictionary(grouping: migrations, by: \.area).mapValues(\.count)
        for (area, version) in applied.sorted(by: { $0.key < $1.key }) where version > known[area] ?? 0 {
            throw refusal("""
                the database was written by a newer version (area \(area) is at \(version), this program knows \
                \(known[area] ?? 0)): start that version or restore a backup
                """)
        }
        for migration in migrations where migration.version > applied[migration.area] ?? 0 {
            try apply(migration, to: connection, now: now)
        }
    }

    private static func apply(_ migration: Migration, to connection: Connection, now: UInt64) throws(StoreError) {
        try connection.execute("BEGIN IMMEDIATE")
        do throws(StoreError) {
            try connection.execute(migration.sql)
            let use = try connection.take("INSERT INTO migrations VALUES (?, ?, ?)")
            defer { connection.give(use) }
            bind(connection.bound(use), migration.area, migration.version, now)
            _ = try connection.step(use.statement)
            try connection.execute("COMMIT")
        } catch {
            if connection.isInTransaction { try connection.execute("ROLLBACK") }
            if case .full = error { throw error }
            throw refusal("migration \(migration.version) of \(migration.area) failed: \(error)")
        }
    }

    private static func checkList(_ migrations: [Migration]) throws(StoreError) {
        var last: [String: Int] = [:]
        for migration in migrations {
            guard migration.version == (last[migration.area] ?? 0) + 1 else {
                throw refusal("migrations of \(migration.area) must count 1, 2, 3 …; found \(migration.version)")
            }
            last[migration.area] = migration.version
        }
    }

    private static func pragma(_ connection: Connection, _ sql: StaticString) throws(StoreError) -> Int {
        let use = try connection.take(sql)
        defer { connection.give(use) }
        return try connection.step(use.statement) ? Row(handle: use.statement).int(0) : 0
    }

    private static func refusal(_ text: String) -> StoreError { .refused(Problem(500, "store-refused", text)) }
}

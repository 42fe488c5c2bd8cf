enum SecuritySchema {
    /// Secrets stand here only as hashes (tokens: SHA-256 of 256 random bits; passwords: scrypt) or sealed (`KeySafe`).
    static let migrations = [
        Migration(area: "security", version: 1, sql: """
            CREATE TABLE security_users (
                name TEXT PRIMARY KEY, password TEXT NOT NULL, roles TEXT NOT NULL, disabled INTEGER NOT NULL,
                second_factor BLOB, second_factor_step INTEGER NOT NULL, created_ms INTEGER NOT NULL
            ) STRICT, WITHOUT ROWID;
            CREATE TABLE security_sessions (
                id TEXT PRIMARY KEY, user TEXT NOT NULL, access_hash BLOB NOT NULL, access_expires_ms INTEGER NOT NULL,
                refresh_hash BLOB NOT NULL, used_refresh_hash BLOB, expires_ms INTEGER NOT NULL,
                ends_ms INTEGER NOT NULL, created_ms INTEGER NOT NULL, address TEXT NOT NULL
            ) STRICT, WITHOUT ROWID;
            CREATE TABLE security_tokens (
                id TEXT PRIMARY KEY, hash BLOB NOT NULL UNIQUE, name TEXT NOT NULL, owner TEXT NOT NULL,
                roles TEXT NOT NULL, scopes TEXT, networks TEXT NOT NULL, rate INTEGER NOT NULL,
                created_ms INTEGER NOT NULL, expires_ms INTEGER, used_ms INTEGER, revoked_ms INTEGER
            ) STRICT, WITHOUT ROWID;
            CREATE TABLE security_roles (
                name TEXT PRIMARY KEY, summary TEXT NOT NULL, rules TEXT NOT NULL
            ) STRICT, WITHOUT ROWID;
            CREATE TABLE security_policies (
                id TEXT PRIMARY KEY, position INTEGER NOT NULL, rule TEXT NOT NULL
            ) STRICT, WITHOUT ROWID;
            CREATE TABLE security_revocations (
                subject TEXT PRIMARY KEY, until_ms INTEGER NOT NULL
            ) STRICT, WITHOUT ROWID;
            """)
    ]

    /// A list of names as one column.
    static func column(_ names: [String]) -> String {
        String(decoding: JSONText.list(names), as: UTF8.self)
    }

    static func names(_ column: String) -> [String] { JSONText.names(column) }
}

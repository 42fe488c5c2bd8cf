extension Outbox {
    public static let migrations = [
        Migration(area: "outbox", version: 1, sql: """
            CREATE TABLE webhooks (
                id TEXT PRIMARY KEY,
                name TEXT NOT NULL,
                url TEXT NOT NULL,
                source TEXT NOT NULL,
                kinds TEXT NOT NULL,
                selector TEXT,
                enabled INTEGER NOT NULL,
                secret BLOB NOT NULL,
                created_ms INTEGER NOT NULL,
                created_by TEXT NOT NULL,
                audit_position INTEGER NOT NULL,
                dropped INTEGER NOT NULL DEFAULT 0,
                delivered INTEGER NOT NULL DEFAULT 0,
                last_delivered_ms INTEGER,
                last_error TEXT NOT NULL DEFAULT ''
            ) STRICT;
            CREATE TABLE deliveries (
                id INTEGER PRIMARY KEY AUTOINCREMENT,
                webhook TEXT NOT NULL,
                kind TEXT NOT NULL,
                body BLOB NOT NULL,
                created_ms INTEGER NOT NULL,
                attempts INTEGER NOT NULL,
                next_ms INTEGER,
                last_error TEXT NOT NULL
            ) STRICT;
            CREATE INDEX deliveries_by_webhook ON deliveries (webhook, next_ms);
            CREATE TABLE audit_sinks (name TEXT PRIMARY KEY, position INTEGER NOT NULL) STRICT, WITHOUT ROWID;
            """)
    ]
}

extension Audit {
    /// Records are only ever appended, hence no index beside the sequence: an index over actors or clients would touch
    /// a page of its own per record and cost more than the record. Queries walk back from the newest, in bounded steps.
    static let migrations = [
        Migration(area: "audit", version: 1, sql: """
            CREATE TABLE audit_records (
                sequence INTEGER PRIMARY KEY,
                time_ms INTEGER NOT NULL,
                actor_kind TEXT NOT NULL,
                actor TEXT NOT NULL,
                address TEXT,
                correlation TEXT NOT NULL,
                action TEXT NOT NULL,
                target TEXT,
                clients BLOB NOT NULL,
                outcome TEXT NOT NULL,
                reason TEXT NOT NULL,
                detail TEXT NOT NULL,
                hash BLOB NOT NULL
            ) STRICT;
            CREATE TABLE audit_checkpoints (
                sequence INTEGER PRIMARY KEY,
                time_ms INTEGER NOT NULL,
                hash BLOB NOT NULL,
                key TEXT NOT NULL,
                signature BLOB NOT NULL
            ) STRICT;
            """),
        Migration(area: "audit", version: 2, sql: """
            CREATE TABLE audit_archive (
                destination TEXT PRIMARY KEY,
                position INTEGER NOT NULL,
                planned INTEGER,
                segments INTEGER NOT NULL,
                missing INTEGER NOT NULL,
                last_key TEXT NOT NULL,
                archived_ms INTEGER NOT NULL
            ) STRICT, WITHOUT ROWID
            """),
    ]
}

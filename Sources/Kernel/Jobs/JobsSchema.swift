extension Jobs {
    public static let migrations = [
        Migration(area: "jobs", version: 1, sql: """
            CREATE TABLE jobs (
                id BLOB PRIMARY KEY,
                kind TEXT NOT NULL,
                title TEXT NOT NULL,
                arguments BLOB NOT NULL,
                priority INTEGER NOT NULL,
                timeout_ms INTEGER NOT NULL,
                owner_kind TEXT NOT NULL,
                owner TEXT NOT NULL,
                owner_credential TEXT,
                correlation TEXT NOT NULL,
                parent BLOB,
                depth INTEGER NOT NULL,
                schedule TEXT,
                occurrence_ms INTEGER,
                created_ms INTEGER NOT NULL,
                guarantee TEXT NOT NULL,
                maximum_attempts INTEGER NOT NULL,
                first_retry_ms INTEGER NOT NULL,
                longest_retry_ms INTEGER NOT NULL,
                state TEXT NOT NULL,
                -- 1: waiting, and its time has come.
                ready INTEGER NOT NULL,
                due_ms INTEGER NOT NULL,
                deadline_ms INTEGER,
                attempt INTEGER NOT NULL,
                fence INTEGER NOT NULL,
                failures INTEGER NOT NULL,
                interruptions INTEGER NOT NULL,
                cancel_requested INTEGER NOT NULL,
                waits_for_children INTEGER NOT NULL,
                code TEXT NOT NULL,
                reason TEXT NOT NULL,
                started_ms INTEGER,
                finished_ms INTEGER,
                progress BLOB,
                checkpoint BLOB,
                result BLOB,
                idempotency_key TEXT,
                request_digest BLOB
            ) STRICT;
            CREATE INDEX jobs_due ON jobs (due_ms) WHERE state = 'waiting' AND ready = 0 AND waits_for_children = 0;
            CREATE INDEX jobs_ready ON jobs (kind, priority DESC, due_ms, id) WHERE ready = 1;
            CREATE INDEX jobs_running ON jobs (id) WHERE state = 'running';
            CREATE INDEX jobs_deadline ON jobs (deadline_ms) WHERE state = 'waiting' AND deadline_ms IS NOT NULL;
            CREATE INDEX jobs_children ON jobs (parent, finished_ms) WHERE parent IS NOT NULL;
            CREATE INDEX jobs_schedule ON jobs (schedule, finished_ms) WHERE schedule IS NOT NULL;
            CREATE UNIQUE INDEX jobs_occurrence ON jobs (schedule, occurrence_ms) WHERE occurrence_ms IS NOT NULL;
            CREATE INDEX jobs_finished ON jobs (finished_ms) WHERE finished_ms IS NOT NULL;
            CREATE UNIQUE INDEX jobs_key ON jobs (owner_kind, owner, idempotency_key) WHERE idempotency_key IS NOT NULL;
            CREATE TABLE job_logs (
                job BLOB NOT NULL, sequence INTEGER NOT NULL, time_ms INTEGER NOT NULL, attempt INTEGER NOT NULL,
                level TEXT NOT NULL, text TEXT NOT NULL, PRIMARY KEY (job, sequence)
            ) STRICT, WITHOUT ROWID;
            CREATE TABLE job_numbers (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
            INSERT INTO job_numbers VALUES ('fence', 0);
            """)
    ]
}

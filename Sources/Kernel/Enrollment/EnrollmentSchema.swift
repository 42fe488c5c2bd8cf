import AgentProtocol
import Crypto
import JSON

public enum EnrollmentKind: Sendable {}
public enum EnrollmentTokenKind: Sendable {}

/// A machine that asked to be let in and waits for an operator.
public typealias EnrollmentID = Identifier<EnrollmentKind>
/// The public name of an enrollment token; the secret is something else.
public typealias EnrollmentTokenID = Identifier<EnrollmentTokenKind>

enum EnrollmentSchema {
    static let migrations = [
        Migration(
            area: "enrollment", version: 1,
            sql: """
                CREATE TABLE enrollment_tokens (
                    id BLOB PRIMARY KEY NOT NULL, secret_hash BLOB NOT NULL UNIQUE, description TEXT NOT NULL,
                    labels TEXT NOT NULL, client BLOB, uses INTEGER NOT NULL, used INTEGER NOT NULL,
                    created_ms INTEGER NOT NULL, created_by TEXT NOT NULL, expires_ms INTEGER NOT NULL,
                    revoked_ms INTEGER
                ) STRICT;
                CREATE TABLE enrollments (
                    id BLOB PRIMARY KEY NOT NULL, fingerprint BLOB NOT NULL UNIQUE, public_key BLOB NOT NULL,
                    address TEXT NOT NULL, hostname TEXT NOT NULL, agent_version TEXT NOT NULL, boot_id TEXT NOT NULL,
                    asked_ms INTEGER NOT NULL, rejected_ms INTEGER, rejected_reason TEXT
                ) STRICT;
                CREATE TABLE enrollment_policy (
                    only INTEGER PRIMARY KEY CHECK (only = 1), auto_approve INTEGER NOT NULL, labels TEXT NOT NULL,
                    changed_ms INTEGER NOT NULL, changed_by TEXT NOT NULL
                ) STRICT;
                """)
    ]

    /// Labels as JSON text.
    static func text(_ labels: [String: String]) -> String {
        let members = labels.sorted { $0.key < $1.key }.map { ($0.key, JSONValue.string($0.value)) }
        return String(decoding: JSONValue.object(JSONObject(members)).serialized(), as: UTF8.self)
    }

    static func labels(_ text: String) -> [String: String] {
        guard let members = (try? JSONValue(parsing: text))?.object else { return [:] }
        var labels: [String: String] = [:]
        for member in members { labels[member.key] = member.value.string }
        return labels
    }

    static func loadPending(_ reader: borrowing Reader) throws(StoreError) -> PendingEnrollments {
        var pending = PendingEnrollments()
        try reader.each(
            """
            SELECT id, fingerprint, public_key, address, hostname, agent_version, boot_id, asked_ms, rejected_ms
            FROM enrollments ORDER BY id
            """
        ) { (row) throws(StoreError) in
            guard let id = row.identifier(0, EnrollmentKind.self), let key = SHA256.Digest(bytes: row.bytes(1)) else {
                throw .refused(Problem(500, "store-refused", "a row of the table enrollments is damaged"))
            }
            if let rejected = row.optionalUnsigned(8) {
                pending.noteRejected(key, at: rejected)
            } else {
                pending.add(
                    PendingEnrollment(
                        id: id, key: key, publicKey: row.bytes(2), address: row.text(3), hostname: row.text(4),
                        agentVersion: row.text(5), bootID: row.text(6), askedAt: row.unsigned(7)))
            }
        }
        return pending
    }
}

import AgentProtocol
import Crypto
import JSON

/// What is known of an enrollment token; never its secret. Times are Unix milliseconds.
public struct EnrollmentTokenRecord: Sendable {
    public enum State: String, Sendable {
        case active, expired, revoked
        case usedUp = "used-up"
    }
    public var id: EnrollmentTokenID
    public var description: String
    /// Asserted on each client that the token enrolls.
    public var labels: [String: String]
    /// The one client that it may give a new key to; `nil` for a token that makes new clients.
    public var client: ClientID?
    public var uses: Int
    public var used: Int
    public var createdAt: UInt64
    public var createdBy: String
    public var expiresAt: UInt64
    public var revokedAt: UInt64?

    public func state(now: UInt64) -> State {
        if revokedAt != nil { return .revoked }
        if used >= uses { return .usedUp }
        return now >= expiresAt ? .expired : .active
    }
}

/// Tokens that let machines in. The store keeps the hash of the secret; the text is shown once.
public struct EnrollmentTokens: Sendable {
    public static let maximumUses = 1_000_000
    /// Seconds.
    public static let lifetimes = 60...31_536_000
    static let maximumActive = 10_000
    /// How long what can no longer be used stays in the list.
    private static let keptMilliseconds: UInt64 = 30 * 86_400_000

    let store: Store
    let clock: @Sendable () -> UInt64
    /// The core's identity fingerprint, which goes into the token's text.
    let fingerprint: @Sendable () -> String

    public func state(of record: EnrollmentTokenRecord) -> EnrollmentTokenRecord.State { record.state(now: clock()) }

    /// - Parameters:
    ///   - lifetime: seconds, within `lifetimes`.
    ///   - client: makes a token that gives this client a new key and keeps its id.
    /// - Returns: the record, and the text that is shown only now.
    /// - Throws: `invalid`; 404 for an unknown client; 409 `tokens-full`.
    public func create(
        description: String = "", labels: [String: String] = [:], lifetime: Int, uses: Int, client: ClientID? = nil,
        by principal: Principal
    ) async throws(Problem) -> (record: EnrollmentTokenRecord, text: String) {
        guard Self.lifetimes.contains(lifetime) else {
            throw .invalid(
                "a token lives \(Self.lifetimes.lowerBound) to \(Self.lifetimes.upperBound) seconds, not \(lifetime)",
                pointer: "/ttl_s")
        }
        guard (1...(client == nil ? Self.maximumUses : 1)).contains(uses) else {
            throw .invalid(
                client == nil
                    ? "a token has 1 to \(Self.maximumUses) uses, not \(uses)"
                    : "a token that gives one client a new key has exactly 1 use, not \(uses)", pointer: "/uses")
        }
        guard client == nil || labels.isEmpty else {
            throw .invalid("a token that gives one client a new key has no labels: the client keeps its own", pointer: "/labels")
        }
        guard description.utf8.count <= 255 else {
            throw .invalid("a description has at most 255 bytes", pointer: "/description")
        }
        try ClientEdit.check(labels: labels.mapValues { $0 })
        guard let token = EnrollmentToken.generate(fingerprint: fingerprint()) else {
            throw Problem(500, "identity-missing", "the core's identity has no valid fingerprint")
        }
        let now = clock()
        let record = EnrollmentTokenRecord(
            id: EnrollmentTokenID(milliseconds: now, random: (Random.uint64(), Random.uint64())),
            description: description, labels: labels, client: client, uses: uses, used: 0, createdAt: now,
            createdBy: principal.id, expiresAt: now + UInt64(lifetime) * 1_000, revokedAt: nil)
        let hash = token.secretHash
        try await store.write(bytes: 1_024) { (transaction) throws(StoreError) in
            try Self.insert(transaction, record, hash: hash, by: principal, now: now)
        }
        return (record, token.text)
    }

    static func insert(
        _ transaction: borrowing Transaction, _ record: EnrollmentTokenRecord, hash: [UInt8], by principal: Principal,
        now: UInt64
    ) throws(StoreError) {
        if let client = record.client {
            guard try transaction.exists("SELECT 1 FROM clients WHERE id = ?", client) else {
                throw .refused(Clients.unknown(client))
            }
        }
        try transaction.run(
            "DELETE FROM enrollment_tokens WHERE expires_ms < ?", now - min(now, keptMilliseconds))
        guard try transaction.count("SELECT count(*) FROM enrollment_tokens") < maximumActive else {
            throw .refused(
                .conflict("tokens-full", "there are \(maximumActive) enrollment tokens already: revoke some or let them expire"))
        }
        try transaction.run(
            "INSERT INTO enrollment_tokens VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?, ?, NULL)", record.id, hash,
            record.description, EnrollmentSchema.text(record.labels), record.client, record.uses, record.createdAt,
            record.createdBy, record.expiresAt)
        try transaction.audit(
            AuditRecord(
                principal: principal, action: "enrollment-token.create", clients: record.client.map { [$0] } ?? [],
                target: record.id.description,
                detail: ["uses": .integer(Int64(record.uses)), "expires_ms": .integer(Int64(record.expiresAt))]))
    }

    /// Newest first.
    /// - Parameter before: the last id of the page before.
    public func list(
        before: EnrollmentTokenID? = nil, limit: Int
    ) async throws(Problem) -> [EnrollmentTokenRecord] {
        let before = before ?? EnrollmentTokenID(high: .max, low: .max)
        return try await store.read { (reader) throws(StoreError) in
            try reader.all(
                """
                SELECT id, description, labels, client, uses, used, created_ms, created_by, expires_ms, revoked_ms
                FROM enrollment_tokens WHERE id < ? ORDER BY id DESC LIMIT ?
                """, before, limit, row: Self.record)
        }
    }

    public func get(_ id: EnrollmentTokenID) async throws(Problem) -> EnrollmentTokenRecord? {
        try await store.read { (reader) throws(StoreError) in
            try reader.first(
                """
                SELECT id, description, labels, client, uses, used, created_ms, created_by, expires_ms, revoked_ms
                FROM enrollment_tokens WHERE id = ?
                """, id, row: Self.record)
        }
    }

    /// Ends the token; clients that it has enrolled stay. Idempotent.
    public func revoke(_ id: EnrollmentTokenID, by principal: Principal) async throws(Problem) {
        let now = clock()
        try await store.write { (transaction) throws(StoreError) in
            guard try transaction.exists("SELECT 1 FROM enrollment_tokens WHERE id = ?", id) else {
                throw .refused(.notFound("there is no enrollment token \(id)"))
            }
            try transaction.run(
                "UPDATE enrollment_tokens SET revoked_ms = coalesce(revoked_ms, ?) WHERE id = ?", now, id)
            try transaction.audit(
                AuditRecord(principal: principal, action: "enrollment-token.revoke", target: id.description))
        }
    }

    static func find(
        _ transaction: borrowing Transaction, hash: [UInt8]
    ) throws(StoreError) -> EnrollmentTokenRecord? {
        try transaction.first(
            """
            SELECT id, description, labels, client, uses, used, created_ms, created_by, expires_ms, revoked_ms
            FROM enrollment_tokens WHERE secret_hash = ?
            """, hash, row: Self.record)
    }

    private static func record(_ row: borrowing Row) -> EnrollmentTokenRecord {
        EnrollmentTokenRecord(
            id: row.identifier(0) ?? EnrollmentTokenID(high: 0, low: 0), description: row.text(1),
            labels: EnrollmentSchema.labels(row.text(2)), client: row.identifier(3), uses: row.int(4), used: row.int(5),
            createdAt: row.unsigned(6), createdBy: row.text(7), expiresAt: row.unsigned(8),
            revokedAt: row.optionalUnsigned(9))
    }
}

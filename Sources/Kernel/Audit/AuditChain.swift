import Crypto
import Reactor

/// The last link of the chain.
struct AuditHead: Equatable {
    var sequence: UInt64 = 0
    var milliseconds: UInt64 = 0
    var hash = SHA256.Digest.zero
}

/// Appends records. Belongs to the writer thread; a rolled-back request gets its `head` put back.
final class AuditChain {
    /// Records between two signed checkpoints: one signature (about 50 µs) per so many records, and the most records
    /// that retention removes in one transaction.
    static let checkpointInterval: UInt64 = 4_096

    /// Not checked for exclusivity: the writer's thread alone has it, and no access lasts over a call.
    @exclusivity(unchecked) var head: AuditHead
    private let hasher = AuditHasher()
    private let signer: AuditSigner

    /// Goes on after the last record, or after the last signed checkpoint if that is further: then records are
    /// missing, and the gap stays visible for ever instead of being filled with other records.
    init(_ connection: Connection, signer: AuditSigner) throws(StoreError) {
        self.signer = signer
        head = AuditHead()
        let reader = Reader(access: StoreAccess(connection: connection))
        let record = try reader.first(
            "SELECT sequence, time_ms, hash FROM audit_records ORDER BY sequence DESC LIMIT 1", row: Self.head)
        let checkpoint = try reader.first(
            "SELECT sequence, time_ms, hash FROM audit_checkpoints ORDER BY sequence DESC LIMIT 1", row: Self.head)
        if let record { head = record }
        if let checkpoint, checkpoint.sequence > head.sequence { head = checkpoint }
    }

    private static func head(_ row: borrowing Row) throws(StoreError) -> AuditHead {
        AuditHead(
            sequence: row.unsigned(0), milliseconds: row.unsigned(1),
            hash: SHA256.Digest(bytes: row.bytes(2)) ?? .zero)
    }

    func append(_ record: borrowing AuditRecord, to transaction: borrowing Transaction) throws(StoreError) -> UInt64 {
        let entry = AuditEntry(
            record, sequence: head.sequence + 1, milliseconds: max(unixMilliseconds(), head.milliseconds))
        let hash = hasher.hash(entry, after: head.hash)
        try transaction.run("INSERT INTO audit_records VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)") { values in
            values.add(entry.sequence)
            values.add(entry.milliseconds)
            values.add(entry.actorKind)
            values.add(entry.actor)
            values.add(entry.address)
            values.add(entry.correlation)
            values.add(entry.action)
            values.add(entry.target)
            values.add(entry.clients)
            values.add(entry.outcome)
            values.add(entry.reason)
            values.add(entry.detail)
            values.add(hash)
        }
        head = AuditHead(sequence: entry.sequence, milliseconds: entry.milliseconds, hash: hash)
        if entry.sequence % Self.checkpointInterval == 0 { _ = try checkpoint(transaction) }
        return entry.sequence
    }

    /// Signs the head, unless that was done already. `nil` for an empty trail.
    func checkpoint(_ transaction: borrowing Transaction) throws(StoreError) -> AuditCheckpoint? {
        guard head.sequence > 0 else { return nil }
        let last = try transaction.first(
            "SELECT sequence, time_ms, hash, key, signature FROM audit_checkpoints WHERE sequence = ?", head.sequence,
            row: AuditCheckpoint.init)
        if let last { return last }
        let checkpoint = try signer.sign(head)
        try transaction.run(
            "INSERT INTO audit_checkpoints VALUES (?, ?, ?, ?, ?)", checkpoint.sequence, checkpoint.milliseconds,
            checkpoint.hash, checkpoint.key, checkpoint.signature)
        return checkpoint
    }
}

extension AuditCheckpoint {
    /// A row of `sequence, time_ms, hash, key, signature`.
    init(_ row: borrowing Row) throws(StoreError) {
        self.init(
            sequence: row.unsigned(0), milliseconds: row.unsigned(1),
            hash: SHA256.Digest(bytes: row.bytes(2)) ?? .zero, key: row.text(3), signature: row.bytes(4))
    }
}

extension Transaction {
    /// Writes the record of an act together with the act: both are durable, or neither is.
    /// - Returns: the record's sequence number.
    @discardableResult
    public func audit(_ record: borrowing AuditRecord) throws(StoreError) -> UInt64 {
        try chain.append(record, to: self)
    }
}

extension SHA256.Digest: StoreValue {
    public func bind(to statement: borrowing BoundStatement, at index: Int32) {
        withUnsafeBytes(of: self) { statement.bind($0, at: index) }
    }
    /// What stands before the first record.
    static var zero: SHA256.Digest { SHA256.Digest(bytes: [UInt8](repeating: 0, count: 32)) ?? SHA256.digest([]) }
}

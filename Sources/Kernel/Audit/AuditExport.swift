import JSON

/// An export in the making: a header, records with the checkpoints among them, and a signed checkpoint at the end, so
/// that a cut file is recognised. Pulled piece by piece, each a short read.
public struct AuditExport: Sendable {
    /// A piece ends with the record that reaches so many bytes: records differ a lot, since one names all its clients.
    static let pieceBytes = 128 << 10

    private let audit: Audit
    /// The signed record that it ends with.
    private let last: UInt64
    private var position: UInt64
    private var begun = false

    /// Signs the trail as it is now; the export ends there.
    /// - Parameter from: the first record that is wanted; the export begins at the signed checkpoint before it.
    /// - Throws: 404 for an empty trail.
    public init(_ audit: Audit, from: UInt64 = 1) async throws(Problem) {
        guard let last = try await audit.checkpoint() else { throw .notFound("the audit trail is empty") }
        self.audit = audit
        self.last = last.sequence
        position = from > 0 ? from - 1 : 0
    }

    /// The part between two signed checkpoints: the same bytes whenever it is read.
    init(_ audit: Audit, after position: UInt64, through last: UInt64) {
        self.audit = audit
        self.position = position
        self.last = last
    }

    /// The next lines, at most 256 records and as much as `pieceBytes` says; `nil` at the end.
    public mutating func next() async throws(Problem) -> [UInt8]? {
        if !begun { return try await header() }
        guard position < last else { return nil }
        let (start, end) = (position, last)
        let (text, reached) = try await audit.store.read { (reader) throws(StoreError) in
            var text: [UInt8] = []
            var bytes = 0
            let lines = try reader.prefix(
                "SELECT * FROM audit_records WHERE sequence > ? AND sequence <= ? ORDER BY sequence LIMIT 256", start, end
            ) { (row) throws(StoreError) -> (sequence: UInt64, text: [UInt8])? in
                guard bytes < Self.pieceBytes else { return nil }
                let line = try AuditLine(row)
                let text = AuditFileLine.record(line).text()
                bytes += text.count
                return (line.entry.sequence, text)
            }
            let reached = lines.last?.sequence ?? end
            var checkpoints = try reader.all(
                """
                SELECT sequence, time_ms, hash, key, signature FROM audit_checkpoints
                WHERE sequence > ? AND sequence <= ? ORDER BY sequence
                """, start, reached, row: AuditCheckpoint.init)[...]
            for line in lines {
                while let checkpoint = checkpoints.first, checkpoint.sequence < line.sequence {
                    text += AuditFileLine.checkpoint(checkpoint).text()
                    checkpoints.removeFirst()
                }
                text += line.text
            }
            for checkpoint in checkpoints { text += AuditFileLine.checkpoint(checkpoint).text() }
            return (text, reached)
        }
        position = reached
        return text
    }

    private mutating func header() async throws(Problem) -> [UInt8] {
        let wanted = position
        let anchor = try await audit.store.read { (reader) throws(StoreError) -> AuditCheckpoint? in
            let oldest = try Audit.bounds(reader).oldest
            // A part begins at a signed checkpoint; the whole of a trail that was cut, at the cut.
            let limit = max(wanted, oldest - 1)
            return try reader.first(
                """
                SELECT sequence, time_ms, hash, key, signature FROM audit_checkpoints
                WHERE sequence <= ? ORDER BY sequence DESC LIMIT 1
                """, limit, row: AuditCheckpoint.init)
        }
        position = anchor?.sequence ?? 0
        begun = true
        return AuditFileLine.header(publicKey: audit.store.auditKey.spki, anchor: anchor).text()
    }
}

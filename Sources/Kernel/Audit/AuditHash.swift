import Crypto

/// The hash that chains the trail: SHA-256 over the record's canonical form, which begins with the hash before it.
///
/// Canonical form, version 1. Integers are big-endian.
///
///     "cm-audit-1"  10 bytes
///     previous      32 bytes: hash of the record before; zeros before record 1
///     sequence      8 bytes
///     milliseconds  8 bytes
///     then for each of actor kind, actor, address, correlation, action, target, clients, outcome, reason, detail:
///     length        4 bytes; FFFFFFFF for an absent address or target
///     bytes         UTF-8 text; clients: 16 bytes each
struct AuditHasher {
    private var form: [UInt8] = []

    init() { form.reserveCapacity(1_024) }

    mutating func hash(_ entry: AuditEntry, after previous: SHA256.Digest) -> SHA256.Digest {
        form.removeAll(keepingCapacity: true)
        form += Self.version
        withUnsafeBytes(of: previous) { form += $0 }
        append(entry.sequence)
        append(entry.milliseconds)
        append(entry.actorKind)
        append(entry.actor)
        append(entry.address)
        append(entry.correlation)
        append(entry.action)
        append(entry.target)
        append(length: UInt32(clamping: entry.clients.count))
        form += entry.clients
        append(entry.outcome)
        append(entry.reason)
        append(entry.detail)
        let digest = SHA256.digest(form.span.bytes)
        if form.count > 65_536 { form = [] }
        return digest
    }

    private static let version = Array("cm-audit-1".utf8)

    private mutating func append(_ value: UInt64) { withUnsafeBytes(of: value.bigEndian) { form += $0 } }
    private mutating func append(length: UInt32) { withUnsafeBytes(of: length.bigEndian) { form += $0 } }

    private mutating func append(_ text: String) {
        let bytes = text.utf8Span.span
        append(length: UInt32(clamping: bytes.count))
        bytes.withUnsafeBufferPointer { form.append(contentsOf: $0) }
    }

    private mutating func append(_ text: String?) {
        if let text { append(text) } else { append(length: .max) }
    }
}

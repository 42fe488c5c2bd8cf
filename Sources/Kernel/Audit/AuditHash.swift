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
final class AuditHasher {
    private static let version: StaticString = "cm-audit-1"
    /// What is kept from record to record; one with thousands of clients gives its memory back.
    private static let keptBytes = 65_536
    private var form = CanonicalWriter(capacity: 1_024)

    func hash(_ entry: AuditEntry, after previous: SHA256.Digest) -> SHA256.Digest {
        let fixed = Self.version.utf8CodeUnitCount + 32 + 16 + 10 * 4
        let texts = entry.actorKind.utf8.count + entry.actor.utf8.count + (entry.address?.utf8.count ?? 0)
            + entry.correlation.utf8.count + entry.action.utf8.count + (entry.target?.utf8.count ?? 0)
            + entry.outcome.utf8.count + entry.reason.utf8.count + entry.detail.utf8.count
        let capacity = fixed + texts + entry.clients.count
        if capacity > form.capacity || form.capacity > Self.keptBytes { form = CanonicalWriter(capacity: max(capacity, 1_024)) }
        form.restart()
        form.append(UnsafeRawBufferPointer(start: Self.version.utf8Start, count: Self.version.utf8CodeUnitCount))
        withUnsafeBytes(of: previous) { form.append($0) }
        form.append(entry.sequence)
        form.append(entry.milliseconds)
        form.append(entry.actorKind)
        form.append(entry.actor)
        form.append(entry.address)
        form.append(entry.correlation)
        form.append(entry.action)
        form.append(entry.target)
        entry.clients.withUnsafeBytes { form.append(counted: $0) }
        form.append(entry.outcome)
        form.append(entry.reason)
        form.append(entry.detail)
        return form.digest
    }
}

/// Memory that has been measured for all that is written into it.
///
/// One of the few users of raw memory. Invariants: no copy goes beyond the end, which is checked at each; the
/// first `count` bytes are initialized; only this value has the memory.
private struct CanonicalWriter: ~Copyable {
    private let buffer: UnsafeMutableRawBufferPointer
    private var count = 0

    init(capacity: Int) { buffer = .allocate(byteCount: capacity, alignment: 8) }
    deinit { buffer.deallocate() }

    var capacity: Int { buffer.count }
    var digest: SHA256.Digest { SHA256.digest(RawSpan(_unsafeBytes: UnsafeRawBufferPointer(rebasing: buffer[..<count]))) }

    mutating func restart() { count = 0 }

    mutating func append(_ bytes: UnsafeRawBufferPointer) {
        precondition(count + bytes.count <= buffer.count)
        UnsafeMutableRawBufferPointer(rebasing: buffer[count..<count + bytes.count]).copyMemory(from: bytes)
        count += bytes.count
    }

    mutating func append(_ value: UInt64) { withUnsafeBytes(of: value.bigEndian) { append($0) } }
    mutating func append(length: UInt32) { withUnsafeBytes(of: length.bigEndian) { append($0) } }

    mutating func append(counted bytes: UnsafeRawBufferPointer) {
        append(length: UInt32(clamping: bytes.count))
        append(bytes)
    }

    mutating func append(_ text: borrowing String) { text.utf8Span.span.withUnsafeBytes { append(counted: $0) } }

    mutating func append(_ text: borrowing String?) {
        if let text = copy text { append(text) } else { append(length: .max) }
    }
}

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
    private static let version: StaticString = "cm-audit-1"
    private var form: [UInt8] = []

    init() { form.reserveCapacity(1_024) }

    mutating func hash(_ entry: AuditEntry, after previous: SHA256.Digest) -> SHA256.Digest {
        let fixed = Self.version.utf8CodeUnitCount + 32 + 16 + 10 * 4
        let texts = entry.actorKind.utf8.count + entry.actor.utf8.count + (entry.address?.utf8.count ?? 0)
            + entry.correlation.utf8.count + entry.action.utf8.count + (entry.target?.utf8.count ?? 0)
            + entry.outcome.utf8.count + entry.reason.utf8.count + entry.detail.utf8.count
        form.removeAll(keepingCapacity: true)
        form.append(addingCapacity: fixed + texts + entry.clients.count) { (output: inout OutputSpan<UInt8>) in
            output.withUnsafeMutableBufferPointer { buffer, initialized in
                var writer = CanonicalWriter(UnsafeMutableRawBufferPointer(buffer))
                writer.append(UnsafeRawBufferPointer(start: Self.version.utf8Start, count: Self.version.utf8CodeUnitCount))
                withUnsafeBytes(of: previous) { writer.append($0) }
                writer.append(entry.sequence)
                writer.append(entry.milliseconds)
                writer.append(entry.actorKind)
                writer.append(entry.actor)
                writer.append(entry.address)
                writer.append(entry.correlation)
                writer.append(entry.action)
                writer.append(entry.target)
                entry.clients.withUnsafeBytes { writer.append(counted: $0) }
                writer.append(entry.outcome)
                writer.append(entry.reason)
                writer.append(entry.detail)
                initialized = writer.count
            }
        }
        let digest = SHA256.digest(form.span.bytes)
        if form.count > 65_536 { form = [] }
        return digest
    }
}

/// Fills a buffer that has been measured for all of it.
///
/// One of the few users of raw memory. Invariant: each copy is into a slice of the buffer, which traps beyond its end.
private struct CanonicalWriter {
    private let buffer: UnsafeMutableRawBufferPointer
    private(set) var count = 0

    init(_ buffer: UnsafeMutableRawBufferPointer) { self.buffer = buffer }

    mutating func append(_ bytes: UnsafeRawBufferPointer) {
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

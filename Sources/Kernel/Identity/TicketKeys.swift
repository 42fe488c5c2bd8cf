import Crypto
import Transport

/// The keys of TLS session tickets, kept so that a whole fleet can resume after the core was restarted: file `tickets` of
/// the key directory, sealed like every secret. A new key each week; the one before it still opens, because a ticket is
/// good for a week. Losing them costs a full handshake of each agent and nothing else, so a file that cannot be used is
/// replaced.
extension IdentityService {
    private static let weekMilliseconds: UInt64 = 7 * 86_400_000
    private static let fileName = "tickets"
    private static let keptKeys = 2
    private static let entryBytes = 8 + TLSTicketKey.count

    /// What the file holds, newest first; nothing when there is none. Blocks for one small file.
    public func keptTicketKeys() -> [TLSTicketKey] {
        guard let opened = try? directory.secret(Self.fileName) else { return [] }
        return Self.entries(opened.secret).compactMap { TLSTicketKey(Array($0.dropFirst(8))) }
    }

    /// The same after renewal, if the newest key is older than a week, or is sealed as it should not be any more. Blocks
    /// for one small file: call it on a blocking pool.
    public func freshTicketKeys(now: UInt64) throws(Problem) -> [TLSTicketKey] {
        let opened = try? directory.secret(Self.fileName)
        var entries = Self.entries(opened?.secret ?? [])
        let isDue = entries.first.map { Self.madeAt($0) + Self.weekMilliseconds <= now || Self.madeAt($0) > now } ?? true
        if isDue {
            let made = (0..<8).map { UInt8(truncatingIfNeeded: now >> (56 - 8 * UInt64($0))) }
            entries = [made + Random.bytes(TLSTicketKey.count)] + entries.prefix(Self.keptKeys - 1)
        }
        if isDue || opened?.isStale == true { try directory.write(secret: Array(entries.joined()), Self.fileName) }
        return entries.compactMap { TLSTicketKey(Array($0.dropFirst(8))) }
    }

    private static func entries(_ bytes: [UInt8]) -> [[UInt8]] {
        guard bytes.count % entryBytes == 0 else { return [] }
        return stride(from: 0, to: bytes.count, by: entryBytes).prefix(keptKeys).map {
            Array(bytes[$0..<$0 + entryBytes])
        }
    }

    /// Unix milliseconds.
    private static func madeAt(_ entry: [UInt8]) -> UInt64 { entry.prefix(8).reduce(0) { $0 << 8 | UInt64($1) } }
}

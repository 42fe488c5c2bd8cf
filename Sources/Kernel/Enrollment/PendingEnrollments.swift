import AgentProtocol
import Crypto

/// A machine without a token that proved a key. Times are Unix milliseconds.
public struct PendingEnrollment: Sendable {
    public var id: EnrollmentID
    var key: SHA256.Digest
    var publicKey: [UInt8]
    public var address: String
    public var hostname: String
    public var agentVersion: String
    public var bootID: String
    public var askedAt: UInt64
    /// Shown on both sides, so that an operator can compare them.
    public var fingerprint: String { key.hex }
    public var lapsesAt: UInt64 { askedAt + PendingEnrollments.milliseconds }
}

/// The bounded waiting room. A value without I/O: strangers fill what is free and never push out who came before.
struct PendingEnrollments: Sendable {
    static let maximum = 1_000
    static let maximumPerAddress = 20
    static let maximumRejected = 1_000
    /// How long one waits, and how long a rejected key is told so.
    static let milliseconds: UInt64 = 86_400_000

    enum Offer: Equatable {
        /// The same key waits already.
        case waiting(EnrollmentID)
        case rejected
        case full
        case addressFull
        case free
    }

    private(set) var entries: [EnrollmentID: PendingEnrollment] = [:]
    private var byKey: [SHA256.Digest: EnrollmentID] = [:]
    private var perAddress: [String: Int] = [:]
    private var rejected: [SHA256.Digest: UInt64] = [:]

    /// What would become of this key from this address.
    func offer(_ key: SHA256.Digest, from address: String) -> Offer {
        if let id = byKey[key] { return .waiting(id) }
        if rejected[key] != nil { return .rejected }
        if entries.count >= Self.maximum { return .full }
        if perAddress[address, default: 0] >= Self.maximumPerAddress { return .addressFull }
        return .free
    }

    /// After `offer` said `.free`.
    mutating func add(_ entry: PendingEnrollment) {
        entries[entry.id] = entry
        byKey[entry.key] = entry.id
        perAddress[entry.address, default: 0] += 1
    }

    @discardableResult
    mutating func remove(_ id: EnrollmentID) -> PendingEnrollment? {
        guard let entry = entries.removeValue(forKey: id) else { return nil }
        byKey[entry.key] = nil
        let left = perAddress[entry.address, default: 1] - 1
        perAddress[entry.address] = left > 0 ? left : nil
        return entry
    }

    @discardableResult
    mutating func remove(key: SHA256.Digest) -> EnrollmentID? {
        rejected[key] = nil
        guard let id = byKey[key] else { return nil }
        remove(id)
        return id
    }

    /// Above the bound the oldest rejection is forgotten: its machine may ask again.
    mutating func noteRejected(_ key: SHA256.Digest, at time: UInt64) {
        rejected[key] = time
        if rejected.count > Self.maximumRejected, let oldest = rejected.min(by: { $0.value < $1.value }) {
            rejected[oldest.key] = nil
        }
    }

    /// Takes out what has waited too long.
    mutating func lapse(now: UInt64) -> [PendingEnrollment] {
        guard now >= Self.milliseconds else { return [] }
        let before = now - Self.milliseconds
        rejected = rejected.filter { $0.value >= before }
        let old = entries.values.filter { $0.askedAt < before }
        for entry in old { remove(entry.id) }
        return old
    }
}

import Crypto

/// What a verification found.
public struct AuditReport: Sendable, Equatable {
    /// The first thing that is wrong.
    public struct Fault: Sendable, Equatable {
        /// The first record that is bad or missing.
        public var record: UInt64
        public var reason: String
    }
    public var records: UInt64 = 0
    public var checkpoints: UInt64 = 0
    /// First and last record that were seen; 0 when there are none.
    public var first: UInt64 = 0
    public var last: UInt64 = 0
    /// The record that the last valid signature covers.
    public var signedThrough: UInt64 = 0
    /// Fingerprint of the key that the signatures were checked with.
    public var key = ""
    public var fault: Fault?
}

/// Checks a trail as it is fed, in order: `begin`, then records and checkpoints, then `finish`. Stops at the first
/// fault. No I/O.
struct AuditVerifier: Sendable {
    private(set) var report = AuditReport()
    private let key: P256.PublicKey
    private var previous = SHA256.Digest.zero
    private var next: UInt64 = 1
    private var milliseconds: UInt64 = 0

    init(key: P256.PublicKey) {
        self.key = key
        report.key = key.fingerprint
    }

    var isSound: Bool { report.fault == nil }

    /// The trail begins after `anchor`, the signed checkpoint at which retention cut it; `nil`: at record 1.
    mutating func begin(after anchor: AuditCheckpoint?) {
        guard let anchor else { return }
        guard anchor.isSigned(by: key) else {
            return fail(anchor.sequence, "the checkpoint at which the trail begins has no valid signature")
        }
        previous = anchor.hash
        next = anchor.sequence + 1
        milliseconds = anchor.milliseconds
        report.signedThrough = anchor.sequence
    }

    /// The next segment of an archive begins: right where the one before ended, at the checkpoint that ended it.
    mutating func goOn(after anchor: AuditCheckpoint?) {
        guard isSound else { return }
        guard let anchor else { return fail(next, "a segment that begins at record 1 stands where record \(next) belongs") }
        if anchor.sequence < next - 1 {
            return fail(anchor.sequence + 1, "a segment that begins at record \(anchor.sequence + 1) stands where record \(next) belongs")
        }
        // With the same rules as a checkpoint in the middle: signed, and of the hash that was reached.
        checkpoint(anchor)
        if isSound { report.checkpoints -= 1 }
    }

    mutating func record(_ line: AuditLine) {
        guard isSound else { return }
        let sequence = line.entry.sequence
        if sequence > next {
            return fail(next, sequence == next + 1
                ? "record \(next) is missing" : "records \(next) to \(sequence - 1) are missing")
        }
        if sequence < next { return fail(sequence, "record \(sequence) stands where record \(next) belongs") }
        guard AuditHasher().hash(line.entry, after: previous) == line.hash else {
            return fail(sequence, "record \(sequence) was changed: its hash does not fit its content and the record before")
        }
        guard line.entry.milliseconds >= milliseconds else {
            return fail(sequence, "record \(sequence) is older than the record before")
        }
        if report.records == 0 { report.first = sequence }
        report.records += 1
        report.last = sequence
        previous = line.hash
        milliseconds = line.entry.milliseconds
        next = sequence + 1
    }

    mutating func checkpoint(_ checkpoint: AuditCheckpoint) {
        guard isSound else { return }
        if checkpoint.sequence >= next {
            return fail(next, checkpoint.sequence == next
                ? "record \(next) is missing: a signed checkpoint covers it"
                : "records \(next) to \(checkpoint.sequence) are missing: a signed checkpoint covers them")
        }
        guard checkpoint.isSigned(by: key) else {
            return fail(checkpoint.sequence, "the checkpoint at record \(checkpoint.sequence) has no valid signature")
        }
        // A checkpoint is fed right after its record.
        guard checkpoint.sequence == next - 1, checkpoint.hash == previous else {
            return fail(
                checkpoint.sequence,
                "record \(checkpoint.sequence) or one before it was replaced: the signed checkpoint has another hash")
        }
        report.checkpoints += 1
        report.signedThrough = checkpoint.sequence
    }

    mutating func fail(_ record: UInt64, _ reason: String) {
        if report.fault == nil { report.fault = .init(record: record, reason: reason) }
    }
}

import Crypto
import JSON
import System

/// Verifies a whole trail: `client-manager audit verify --data-dir D | --file F`. Blocks; not for loops.
public enum AuditVerification {
    /// The trail of a data directory, also while a core runs on it.
    public static func verify(dataDirectory directory: String) throws(Problem) -> AuditReport {
        let key = try publicKey(directory)
        let path = directory + "/core.sqlite3"
        guard Files.exists(path) else { throw .notFound("there is no database in \(directory)") }
        var verifier = AuditVerifier(key: key)
        let witness = try AuditWitness.read(directory)
        do throws(StoreError) {
            let connection = try Connection(path: path, mode: .reader, options: StoreOptions())
            defer { connection.close() }
            try connection.execute("BEGIN")
            let reader = Reader(access: StoreAccess(connection: connection))
            try verify(reader, witness, &verifier)
            try connection.execute("COMMIT")
        } catch {
            throw error.problem
        }
        return verifier.report
    }

    private static func verify(
        _ reader: borrowing Reader, _ witness: AuditCheckpoint?, _ verifier: inout AuditVerifier
    ) throws(StoreError) {
        var checkpoints = try reader.all(
            "SELECT sequence, time_ms, hash, key, signature FROM audit_checkpoints ORDER BY sequence",
            row: AuditCheckpoint.init)
        let first = try reader.first("SELECT min(sequence) FROM audit_records") { (row) throws(StoreError) in
            row.optionalUnsigned(0)
        } ?? nil
        var next = 0
        var verifierNow = verifier
        // A trail that does not begin at record 1 must begin right after a signed checkpoint, and a record further on
        // must say that it was cut there.
        let cut = try cutThrough(reader)
        if let first, first > 1 {
            guard let anchor = checkpoints.first, anchor.sequence == first - 1, cut >= anchor.sequence else {
                verifier.fail(
                    min(cut + 1, first),
                    "the trail begins at record \(first), and no signed checkpoint and record of a cut account for that")
                return
            }
            verifierNow.begin(after: anchor)
            next = 1
        }
        if let witness, witness.sequence >= first ?? 1, !checkpoints.contains(witness) {
            let place = checkpoints.firstIndex { $0.sequence >= witness.sequence } ?? checkpoints.count
            checkpoints.insert(witness, at: max(place, next))
        }
        try reader.each("SELECT * FROM audit_records ORDER BY sequence") { (row) throws(StoreError) in
            guard verifierNow.isSound else { return }
            let line = try AuditLine(row)
            while next < checkpoints.count, checkpoints[next].sequence < line.entry.sequence {
                verifierNow.checkpoint(checkpoints[next])
                next += 1
            }
            verifierNow.record(line)
        }
        for checkpoint in checkpoints[min(next, checkpoints.count)...] { verifierNow.checkpoint(checkpoint) }
        verifier = verifierNow
    }

    /// Up to which record retention says that it cut.
    private static func cutThrough(_ reader: borrowing Reader) throws(StoreError) -> UInt64 {
        let detail = try reader.first(
            "SELECT detail FROM audit_records WHERE action = ? ORDER BY sequence DESC LIMIT 1", AuditRetention.action
        ) { (row) throws(StoreError) in row.text(0) }
        let value = detail.flatMap { try? JSONValue(parsing: $0) }
        return UInt64(clamping: value?["through"]?.integer ?? 0)
    }

    /// An exported file of JSON lines.
    /// - Parameter dataDirectory: whose key must have signed; without it the file's own key is used, and the caller
    ///   should show its fingerprint to somebody who knows it.
    public static func verify(file: String, dataDirectory: String? = nil) throws(Problem) -> AuditReport {
        let lines: LineFile
        do { lines = try LineFile(file) } catch { throw .invalid("cannot read \(file): \(error)") }
        var number: UInt64 = 0
        var verifier: AuditVerifier?
        var endsSigned = false
        while true {
            let text: [UInt8]
            do {
                guard let line = try lines.next() else { break }
                text = line
            } catch { throw .invalid("cannot read \(file): \(error)") }
            number += 1
            let line: AuditFileLine
            do throws(AuditFileLine.Malformed) { line = try AuditFileLine(parsing: text) } catch {
                guard var verifier else { throw .invalid("\(file) is no audit export: line 1 is \(error.reason)") }
                verifier.fail(
                    verifier.report.last + 1, "line \(number), where record \(verifier.report.last + 1) belongs, is damaged: \(error.reason)")
                return verifier.report
            }
            switch line {
            case .header(let publicKey, let anchor):
                let key: P256.PublicKey
                do { key = try P256.PublicKey(spki: publicKey) } catch {
                    throw .invalid("the public key of \(file) is no P-256 key")
                }
                if var going = verifier {
                    // Segments of an archive one after the other.
                    guard going.report.key == key.fingerprint else {
                        throw .invalid("\(file) has a header of another key in line \(number): segments of one core belong together")
                    }
                    if endsSigned {
                        going.goOn(after: anchor)
                    } else {
                        going.fail(going.report.last + 1, "the segment before line \(number) ends without its signed checkpoint: its tail is missing")
                    }
                    verifier = going
                    if !going.isSound { return going.report }
                    continue
                }
                if let dataDirectory, try self.publicKey(dataDirectory) != key {
                    throw .invalid("\(file) was signed by another core (key \(key.fingerprint))")
                }
                verifier = AuditVerifier(key: key)
                verifier?.begin(after: anchor)
                endsSigned = true
            case .record(let record):
                verifier?.record(record)
                endsSigned = false
            case .checkpoint(let checkpoint):
                verifier?.checkpoint(checkpoint)
                endsSigned = true
            }
            guard let sound = verifier?.isSound else {
                throw .invalid("\(file) is no audit export: its first line is not a header")
            }
            if !sound { break }
        }
        guard var verifier else { throw .invalid("\(file) is empty") }
        if verifier.isSound && !endsSigned {
            verifier.fail(
                verifier.report.last + 1,
                "the file ends at record \(verifier.report.last) without the signed checkpoint that ends an export: its tail is missing")
        }
        return verifier.report
    }

    static func publicKey(_ directory: String) throws(Problem) -> P256.PublicKey {
        let path = directory + "/keys/" + AuditSigner.publicName
        do {
            return try P256.PublicKey(pem: String(decoding: try Files.read(path, limit: 65_536), as: UTF8.self))
        } catch {
            throw .invalid("the public key of the audit trail cannot be read from \(path): \(error)")
        }
    }
}

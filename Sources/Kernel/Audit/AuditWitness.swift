import Crypto
import JSON
import System

/// The newest checkpoint, kept outside the database as well: who cuts the database's tail, checkpoints and all, has to
/// know this file too. Copying it to another machine makes that impossible.
enum AuditWitness {
    static let name = "audit-checkpoint.json"

    static func write(_ checkpoint: AuditCheckpoint, _ directory: String) throws(SystemError) {
        try AtomicFile.write(AuditFileLine.checkpoint(checkpoint).text(), to: directory + "/" + name, mode: 0o600)
    }

    static func read(_ directory: String) throws(Problem) -> AuditCheckpoint? {
        do {
            guard let text = try Files.readIfPresent(directory + "/" + name, limit: 65_536) else { return nil }
            guard case .checkpoint(let checkpoint)? = try? AuditFileLine(parsing: text) else { return nil }
            return checkpoint
        } catch {
            throw .invalid("cannot read \(directory)/\(name): \(error)")
        }
    }
}

import CSQLite
import Synchronization

/// Set for good when the disk failed to sync: the kernel may have dropped what it could not write, so nothing that a later
/// sync says can be believed. The write-ahead log stays as it is, and a restart reads from it what is really there.
///
/// Any thread: the writer and the checkpointer both sync, and what one of them learns binds the other.
final class StoreFault: Sendable {
    /// What the disk failed in, for whoever reads of it.
    enum Work: String {
        case commit, checkpoint
    }

    private let reason = Mutex<StoreError?>(nil)
    private let report: @Sendable (Problem) -> Void

    /// - Parameter report: told once, on the thread that met the fault; must not wait.
    init(report: @escaping @Sendable (Problem) -> Void) { self.report = report }

    /// What every further change is answered with; nil while the store is sound.
    var error: StoreError? { reason.withLock { $0 } }

    /// Keeps the first error that is final; others pass.
    func note(_ error: StoreError, during work: Work) {
        guard case .failed(let code, let message) = error, Self.isFinal(code) else { return }
        let problem = Problem(
            500, "store-failed",
            "the store failed in a \(work.rawValue) (\(code): \(message)) and takes no more changes: see the disk, then restart")
        let isFirst = reason.withLock { reason in
            guard reason == nil else { return false }
            reason = .refused(problem)
            return true
        }
        if isFirst { report(problem) }
    }

    /// A failed sync, or a database that is not one any more. A failed write is not: nothing of it was acknowledged.
    private static func isFinal(_ code: Int32) -> Bool {
        isFailedSync(code) || code & 0xFF == SQLITE_CORRUPT || code & 0xFF == SQLITE_NOTADB
    }

    /// SQLITE_IOERR_FSYNC and SQLITE_IOERR_DIR_FSYNC, which are macros.
    static func isFailedSync(_ code: Int32) -> Bool { code == SQLITE_IOERR | 4 << 8 || code == SQLITE_IOERR | 5 << 8 }
}

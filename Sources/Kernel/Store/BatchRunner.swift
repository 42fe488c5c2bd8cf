import CSQLite
import System

/// Runs requests inside transactions so that a failing one leaves no trace and harms no other. On the writer thread.
///
/// Three attempts, each dearer than the one before and needed only when that failed:
/// all requests in one transaction; the same with a savepoint around each; each in a transaction of its own.
final class BatchRunner {
    private let connection: Connection
    private let chain: AuditChain
    private let logPageCounter = UnsafeMutablePointer<Int32>.allocate(capacity: 1)
    private let fault: StoreFault

    init(_ connection: Connection, chain: AuditChain, fault: StoreFault) {
        self.connection = connection
        self.chain = chain
        self.fault = fault
        logPageCounter.initialize(to: 0)
        connection.countLogPages(into: logPageCounter)
    }

    deinit { logPageCounter.deallocate() }

    /// Pages in the write-ahead log after the last commit.
    var logPages: Int { Int(logPageCounter.pointee) }

    var newestAuditRecord: UInt64 { chain.head.sequence }

    /// As the last connection, which moves the whole log into the database. After a fault the log is all that can be
    /// believed: it stays for the next start.
    func close() {
        if fault.error == nil { checkpoint(SQLITE_CHECKPOINT_TRUNCATE) }
        if fault.error != nil { connection.keepLogOnClose() }
        connection.close()
    }

    /// The log can start over only when all of it is in the database, and under steady load only the writer can see
    /// to that. The checkpointer has moved the bulk; this moves the few pages that were added since.
    func finishCheckpoint() { checkpoint(SQLITE_CHECKPOINT_PASSIVE) }

    /// One that fails for want of space leaves the log longer; a failed sync ends the store, see `StoreFault`.
    private func checkpoint(_ mode: Int32) {
        do throws(StoreError) { _ = try connection.checkpoint(mode) } catch { fault.note(error, during: .checkpoint) }
    }

    /// Afterwards each request either is durable or has its `failure` set.
    func commit(_ batch: [WriteRequest]) {
        if let error = fault.error {
            for request in batch { request.failure = error }
            return
        }
        switch attempt(batch, savepoints: false) {
        case .done: return
        case .again: break
        case .commitFailed(let error): return commitFailed(batch, error)
        }
        switch attempt(batch, savepoints: true) {
        case .done: return
        case .again: commitOneByOne(batch)
        case .commitFailed(let error): commitFailed(batch, error)
        }
    }

    private enum Outcome {
        case done
        /// Nothing was kept; the requests without a failure are to be run again.
        case again
        case commitFailed(StoreError)
    }

    private func attempt(_ batch: [WriteRequest], savepoints: Bool) -> Outcome {
        let head = chain.head
        do throws(StoreError) { try connection.executeKept("BEGIN IMMEDIATE") } catch { return .commitFailed(error) }
        let transaction = Transaction(access: StoreAccess(connection: connection), chain: chain)
        var succeeded = 0
        for request in batch where request.failure == nil {
            let clean = savepoints
                ? runInSavepoint(request, transaction) : runFreely(request, transaction)
            guard clean, connection.isInTransaction else {
                rollBack(to: head)
                return .again
            }
            if request.failure == nil { succeeded += 1 }
        }
        guard succeeded > 0 else {
            rollBack(to: head)
            return .done
        }
        killPoint("store.before-commit")
        do throws(StoreError) { try connection.executeKept("COMMIT") } catch {
            rollBack(to: head)
            return .commitFailed(error)
        }
        killPoint("store.after-commit")
        return .done
    }

    /// - Returns: false when the request failed after it had changed something.
    private func runFreely(_ request: WriteRequest, _ transaction: borrowing Transaction) -> Bool {
        let changes = connection.totalChanges
        do throws(StoreError) {
            try request.run(in: transaction)
            return true
        } catch {
            request.failure = error
            return connection.totalChanges == changes
        }
    }

    private func runInSavepoint(_ request: WriteRequest, _ transaction: borrowing Transaction) -> Bool {
        let head = chain.head
        do throws(StoreError) {
            try connection.execute("SAVEPOINT request")
            do throws(StoreError) {
                try request.run(in: transaction)
            } catch {
                request.failure = error
                // After some errors (disk full, for one) SQLite has rolled everything back by itself.
                guard connection.isInTransaction else { return false }
                chain.head = head
                try connection.execute("ROLLBACK TO request")
            }
            try connection.execute("RELEASE request")
            return true
        } catch {
            if request.failure == nil { request.failure = error }
            return false
        }
    }

    private func rollBack(to head: AuditHead) {
        chain.head = head
        if connection.isInTransaction { try? connection.execute("ROLLBACK") }
    }

    private func commitFailed(_ batch: [WriteRequest], _ error: StoreError) {
        if case .full = error, batch.count > 1 { return commitOneByOne(batch) }
        fault.note(error, during: .commit)
        for request in batch where request.failure == nil { request.failure = fault.error ?? error }
    }

    /// For a nearly full disk: a large request must not take small ones down. Three refusals in a row and the disk
    /// counts as full for the rest.
    private func commitOneByOne(_ batch: [WriteRequest]) {
        var refusals = 0
        for request in batch where request.failure == nil {
            guard refusals < 3 else {
                request.failure = .full
                continue
            }
            let outcome = attempt([request], savepoints: false)
            if case .commitFailed(let error) = outcome { commitFailed([request], error) }
            refusals = request.failure == .full ? refusals + 1 : 0
            if fault.error != nil { return commit(batch.filter { $0.failure == nil }) }
        }
    }
}

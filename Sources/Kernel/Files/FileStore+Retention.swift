import JSON
import Reactor
import System

/// What happens at the start and by the passing of time.
extension FileStore {
    /// Brings rows and files together after whatever ended the last core.
    func recover() async throws(Problem) {
        let known = try await store.read { (reader) throws(StoreError) in
            try reader.all(FileRows.select()) { (row) throws(StoreError) in try FileRows.file(row) }
        }
        let directory = directory
        let missing: [StoredFile]
        do {
            missing = try await pool.run { () throws(SystemError) in
                try directory.make()
                return try Self.arrange(known, directory)
            }
        } catch {
            throw Self.problem(error, "the store of files cannot be opened")
        }
        for file in known { space.count(file) }
        for file in missing {
            let audit = AuditRecord(
                principal: Self.system, action: "file.lost", target: "\(file.id)", outcome: .failed,
                reason: "its bytes are missing in \(directory.path)")
            try await store.write { (transaction) throws(StoreError) in
                try FileRows.delete(file.id, transaction)
                _ = try transaction.audit(audit)
            }
            space.release(file)
        }
    }

    /// - Returns: the rows whose bytes are gone.
    private static func arrange(_ known: [StoredFile], _ directory: FileDirectory) throws(SystemError) -> [StoredFile] {
        var whole = Set(try FileDirectory.ids(in: directory.whole))
        var unfinished = Set(try FileDirectory.ids(in: directory.unfinished))
        var missing: [StoredFile] = []
        for file in known {
            if file.isWhole {
                if whole.remove(file.id) != nil { continue }
                guard unfinished.remove(file.id) != nil else {
                    missing.append(file)
                    continue
                }
                try Files.rename(directory.unfinished(file.id), to: directory.whole(file.id))
            } else if unfinished.remove(file.id) == nil {
                missing.append(file)
            }
        }
        for id in whole { try Files.remove(directory.whole(id)) }
        for id in unfinished { try Files.remove(directory.unfinished(id)) }
        return missing
    }

    /// Removes what has expired, once a minute; ends with the loop.
    public func start(on loop: EventLoop, report: @escaping @Sendable (Problem) -> Void) {
        loop.spawn { [self] in
            while true {
                await loop.sleep(milliseconds: 60_000)
                do throws(Problem) { try await expire() } catch { report(error) }
            }
        }
    }

    /// Removes files whose time is over, unfinished ones that nobody goes on with included. What a transfer holds stays.
    public func expire() async throws(Problem) {
        let now = options.now()
        while true {
            let ids = try await store.read { (reader) throws(StoreError) in
                try reader.all(
                    """
                    SELECT id FROM files WHERE expires_ms <= ? AND id NOT IN (SELECT file FROM file_holds)
                    ORDER BY expires_ms LIMIT 100
                    """, now
                ) { (row) throws(StoreError) in row.identifier(0, StoredFileTag.self) }
            }.compactMap { $0 }
            for id in ids where !isBeingWritten(id) {
                do throws(Problem) {
                    try await remove(id, AuditRecord(principal: Self.system, action: "file.expire", target: "\(id)"))
                } catch {
                    // Somebody was faster, or holds it since a moment.
                    guard error.code == "file-unknown" || error.code == "file-in-use" else { throw error }
                }
            }
            guard ids.count == 100 else { return }
        }
    }
}

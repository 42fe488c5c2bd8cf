import Crypto
import Glibc
import JSON
import Reactor
import Synchronization
import System

/// The managed store of files: immutable wholes with ids below `D/files`, unfinished ones apart.
///
/// No path comes from outside: a file is opened by its id, a name is only shown. Functions may be called on any loop; what
/// returned is durable. Whole files are read by any number of `FileReader`s, an unfinished one is written by the one
/// `FileWriter` that holds it. Only the store's own files are ever removed: those that are named by an id.
public final class FileStore: Sendable {
    public struct Options: Sendable {
        /// A running file is made durable after so many bytes.
        public var checkpointBytes: UInt64 = 64 << 20
        /// The kernel is told to begin writing after so many.
        public var writebackBytes: UInt64 = 8 << 20
        /// The disk's free space is looked at after so many.
        public var lookBytes: UInt64 = 16 << 20
        /// Bytes that the disk of a directory has free; a test puts a full disk here.
        public var free: @Sendable (_ path: String) throws(SystemError) -> UInt64 = {
            (path) throws(SystemError) in try Files.freeSpace(path)
        }
        /// Brings a file's bytes to the disk; a test puts a failing disk here.
        public var sync: @Sendable (borrowing Descriptor, _ path: String) throws(SystemError) -> Void = {
            (file, path) throws(SystemError) in try file.syncData(subject: path)
        }
        public var now: @Sendable () -> UInt64 = { unixMilliseconds() }
        public init() {}
    }

    public static let migrations = FileRows.migrations
    static let system = Principal(kind: .system, id: "files")

    let options: Options
    let directory: FileDirectory
    let store: Store
    let settings: Settings
    private let events: Events
    /// May this principal use other people's files too?
    private let mayUseAll: @Sendable (Principal, Right) -> Bool
    let pool = BlockingPool(name: "files", threads: 4, queue: 1_024)
    let space: FileSpace

    private struct WeakWriter: Sendable {
        weak var writer: FileWriter?
    }
    private let writers = Mutex<[FileID: WeakWriter]>([:])

    /// Opens the store of a data directory and brings files and rows together: what has no row is removed, what a crash
    /// left between its row and its place is put there.
    /// - Parameter mayUseAll: whether a principal may use other people's files with this right.
    public static func open(
        directory: String, store: Store, settings: Settings, events: Events, options: Options = Options(),
        mayUseAll: @escaping @Sendable (Principal, Right) -> Bool
    ) async throws(Problem) -> FileStore {
        let files = FileStore(directory, store, settings, events, options, mayUseAll)
        try await files.recover()
        return files
    }

    private init(
        _ path: String, _ store: Store, _ settings: Settings, _ events: Events, _ options: Options,
        _ mayUseAll: @escaping @Sendable (Principal, Right) -> Bool
    ) {
        let directory = FileDirectory(path: path)
        self.directory = directory
        self.options = options
        self.store = store
        self.settings = settings
        self.events = events
        self.mayUseAll = mayUseAll
        space = FileSpace(
            directory: path,
            limits: {
                FileSpace.Limits(
                    totalBytes: UInt64(settings.integer(.fileStoreMiB)) << 20,
                    bytesPerFile: UInt64(settings.integer(.fileSizeMiB)) << 20,
                    reserveBytes: UInt64(settings.integer(.fileReserveMiB)) << 20)
            }, free: options.free)
    }

    /// Files of any state and the bytes that they are charged with.
    public var used: (files: Int, bytes: UInt64) { space.used }

    // MARK: Writing

    /// Begins a file. Its row, its name on the disk and its audit record are durable when this returns.
    /// - Throws: 400; 413 `file-too-large`; 507 `file-store-full`, `too-many-files` or `disk-full`; what the store throws.
    public func begin(_ new: NewFile, by principal: Principal) async throws(Problem) -> FileWriter {
        try new.validate()
        let now = options.now()
        let keep = new.keepMilliseconds ?? UInt64(settings.integer(.fileRetentionDays)) * 86_400_000
        let file = StoredFile(
            id: FileID(milliseconds: now, random: (.random(in: .min ... .max), .random(in: .min ... .max))), name: new.name,
            form: new.form, size: new.size, durable: 0, digest: nil, ownerKind: principal.kind, owner: principal.id,
            source: new.source, createdAt: now, finishedAt: nil, expiresAt: now + unfinishedMilliseconds)
        try space.admit(file.id, size: file.size ?? 0)
        do throws(Problem) {
            let number = try await make(file)
            let writer = FileWriter(self, file, Descriptor(owning: number), hash: SHA256())
            writers.withLock { $0[file.id] = WeakWriter(writer: writer) }
            let audit = AuditRecord(
                principal: principal, action: "file.begin", target: "\(file.id)",
                detail: [
                    "name": .string(file.name), "form": .string(file.form.rawValue),
                    "size": file.size.map { .unsigned($0) } ?? .null, "source": .string(file.source),
                ])
            try await store.write(bytes: 1_024) { (transaction) throws(StoreError) in
                try FileRows.insert(file, keep: keep == 0 ? nil : keep, transaction)
                _ = try transaction.audit(audit)
            }
            killPoint("files.begun")
            return writer
        } catch {
            writers.withLock { $0[file.id] = nil }
            await unlink(file.id)
            space.release(file)
            throw error
        }
    }

    /// The descriptor's number, which the caller owns.
    private func make(_ file: StoredFile) async throws(Problem) -> Int32 {
        let path = directory.unfinished(file.id)
        do {
            return try await pool.run { [self] () throws(SystemError) in
                try space.checkDisk(wanted: file.size ?? 0)
                let descriptor = try Descriptor.open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW)
                if let size = file.size, size > 0 { try descriptor.reserve(Int64(clamping: size), subject: path) }
                try Files.syncDirectory(directory.unfinished)
                killPoint("files.made")
                return descriptor.release()
            }
        } catch {
            throw Self.problem(error, "a file cannot be made")
        }
    }

    /// Goes on with an unfinished file at its durable offset; what lies beyond is dropped. A writer that holds it loses it.
    /// - Throws: 404; 409 `file-whole`; 507; what the store throws.
    public func resume(_ id: FileID) async throws(Problem) -> FileWriter {
        if let old = writers.withLock({ $0[id]?.writer }) {
            try? await old.fence(Problem(409, "file-taken-over", "another writer goes on with file \(id)"))
        }
        let found: (file: StoredFile, hash: [UInt8])? = try await store.read { (reader) throws(StoreError) in
            guard let file = try FileRows.load(id, reader) else { return nil }
            return (file, try FileRows.hashState(id, reader))
        }
        guard let found else { throw Self.unknown(id) }
        guard !found.file.isWhole else { throw .conflict("file-whole", "file \(id) is whole and never changes") }
        guard let hash = SHA256(resuming: found.hash) else {
            throw Problem(500, "file-damaged", "the state of unfinished file \(id) is damaged: remove it")
        }
        let number: Int32
        do {
            number = try await pool.run { [self] () throws(SystemError) in
                let path = directory.unfinished(id)
                let descriptor = try Descriptor.open(path, O_RDWR | O_NOFOLLOW)
                guard try descriptor.status(subject: path).size >= found.file.durable else {
                    throw SystemError("pread", path, code: EIO)
                }
                try descriptor.truncate(to: found.file.durable, subject: path)
                try space.checkDisk()
                if let size = found.file.size, size > 0 { try descriptor.reserve(Int64(clamping: size), subject: path) }
                return descriptor.release()
            }
        } catch {
            throw Self.problem(error, "file \(id) cannot be resumed")
        }
        let writer = FileWriter(self, found.file, Descriptor(owning: number), hash: hash)
        // Two at once may come here; the later one wins, and the other hears of it at its next word.
        let other = writers.withLock { writers -> FileWriter? in
            defer { writers[id] = WeakWriter(writer: writer) }
            return writers[id]?.writer
        }
        try? await other?.fence(Problem(409, "file-taken-over", "another writer goes on with file \(id)"))
        return writer
    }

    var unfinishedMilliseconds: UInt64 { UInt64(settings.integer(.fileUnfinishedHours)) * 3_600_000 }

    // MARK: Reading

    /// Opens a whole file.
    /// - Throws: 404; 409 `file-unfinished`; 503 `files-busy`.
    public func open(_ id: FileID) async throws(Problem) -> FileReader {
        let file = try await get(id)
        guard file.isWhole else {
            throw .conflict("file-unfinished", "file \(id) is not whole yet: \(file.durable) bytes are there")
        }
        let path = directory.whole(id)
        let number: Int32
        do {
            number = try await pool.run { () throws(SystemError) in
                try Descriptor.open(path, O_RDONLY | O_NOFOLLOW).release()
            }
        } catch {
            if case .failed(let failure) = error, failure.isMissing { throw Self.unknown(id) }
            throw Self.problem(error, "file \(id) cannot be opened")
        }
        return FileReader(file, Descriptor(owning: number), pool)
    }

    /// - Throws: 404 `file-unknown`.
    public func get(_ id: FileID) async throws(Problem) -> StoredFile {
        let file = try await store.read { (reader) throws(StoreError) in try FileRows.load(id, reader) }
        guard let file else { throw Self.unknown(id) }
        return file
    }

    /// The file, if the principal may use it with this right: it is his own, or he has the right on every client.
    /// - Throws: 404 `file-unknown`, also for somebody else's.
    public func get(_ id: FileID, for principal: Principal, _ right: Right) async throws(Problem) -> StoredFile {
        let file = try await get(id)
        guard (file.ownerKind == principal.kind && file.owner == principal.id) || mayUseAll(principal, right) else {
            throw Self.unknown(id)
        }
        return file
    }

    /// Newest first; somebody who may not use all files sees his own.
    public func list(_ query: FileQuery, for principal: Principal, _ right: Right) async throws(Problem) -> [StoredFile] {
        var query = query
        if !mayUseAll(principal, right) { query.owner = (principal.kind, principal.id) }
        let wanted = query
        return try await store.read { (reader) throws(StoreError) in
            var rows = FileRows.select()
            if let before = wanted.before { rows.and("id < ?", .bytes(before.bytes)) }
            if let isWhole = wanted.isWhole { rows.and(isWhole ? "finished_ms IS NOT NULL" : "finished_ms IS NULL") }
            if let name = wanted.name { rows.and("name = ?", .text(name)) }
            if let form = wanted.form { rows.and("form = ?", .text(form.rawValue)) }
            if let owner = wanted.owner {
                rows.and("owner_kind = ? AND owner = ?", .text(owner.kind.rawValue), .text(owner.id))
            }
            rows.append(" ORDER BY id DESC LIMIT ?", .integer(Int64(wanted.limit)))
            return try reader.all(rows) { (row) throws(StoreError) in try FileRows.file(row) }
        }
    }

    // MARK: Holds

    /// Keeps a whole file from being removed while somebody needs it, in the same commit as whoever that is.
    /// - Parameter holder: `transfer ID`, for example; released by the same text.
    public static func hold(
        _ id: FileID, for holder: String, _ transaction: borrowing Transaction
    ) throws(StoreError) {
        guard try FileRows.load(id, transaction)?.isWhole == true else { throw .refused(unknown(id)) }
        try transaction.run("INSERT OR IGNORE INTO file_holds VALUES (?, ?)", id, holder)
    }

    /// Ends every hold of this holder; without one it does nothing.
    public static func release(holder: String, _ transaction: borrowing Transaction) throws(StoreError) {
        try transaction.run("DELETE FROM file_holds WHERE holder = ?", holder)
    }

    // MARK: Removing

    /// Removes a file of any state; readers that are open keep what they read.
    /// - Throws: 404; 409 `file-in-use` while a transfer holds it.
    public func remove(_ id: FileID, by principal: Principal) async throws(Problem) {
        if let writer = writers.withLock({ $0[id]?.writer }) {
            try? await writer.fence(Problem(409, "file-discarded", "file \(id) was removed"))
        }
        try await remove(id, AuditRecord(principal: principal, action: "file.remove", target: "\(id)"))
    }

    func remove(_ id: FileID, _ audit: AuditRecord) async throws(Problem) {
        let file = try await store.write { (transaction) throws(StoreError) in
            guard let file = try FileRows.load(id, transaction) else { throw .refused(Self.unknown(id)) }
            guard try !FileRows.isHeld(id, transaction) else {
                throw .refused(.conflict("file-in-use", "a transfer needs file \(id): cancel it first, or wait"))
            }
            try FileRows.delete(id, transaction)
            var audit = audit
            audit.detail = JSONValue.object(["name": .string(file.name), "size": .unsigned(file.durable)]).serialized()
            _ = try transaction.audit(audit)
            return file
        }
        killPoint("files.removed")
        await unlink(id)
        space.release(file)
        events.publish(Event(kind: "file.removed", subject: "\(id)", data: ["size": .unsigned(file.durable)]))
    }

    /// Of one whose writer ends; nothing is left of it and its space is free.
    func removeUnfinished(
        _ id: FileID, by principal: Principal, outcome: AuditRecord.Outcome, reason: String
    ) async throws(Problem) {
        try await remove(
            id, AuditRecord(principal: principal, action: "file.discard", target: "\(id)", outcome: outcome, reason: reason))
    }

    func unlink(_ id: FileID) async {
        let paths = [directory.unfinished(id), directory.whole(id)]
        // One that stays is found by the next start, as it has no row.
        _ = try? await pool.run { () throws(SystemError) in for path in paths { try Files.remove(path) } }
    }

    // MARK: What writers tell

    /// An expired file that somebody writes to again is no longer abandoned; its next checkpoint says so.
    func isBeingWritten(_ id: FileID) -> Bool { writers.withLock { $0[id]?.writer } != nil }

    func ended(_ writer: FileWriter) {
        writers.withLock { writers in
            if writers[writer.id]?.writer === writer { writers[writer.id] = nil }
        }
    }

    func checkpointed(_ id: FileID, at offset: UInt64, _ hash: SHA256) async throws(Problem) {
        let expires = options.now() + unfinishedMilliseconds
        let isKnown = try await store.write(bytes: 256) { (transaction) throws(StoreError) in
            try FileRows.checkpoint(id, at: offset, hash.exported, expires: expires, transaction)
        }
        guard isKnown else { throw Self.unknown(id) }
    }

    func sealed(_ id: FileID, size: UInt64, _ digest: SHA256.Digest) async throws(Problem) -> StoredFile {
        let now = options.now()
        let file = try await store.write(bytes: 512) { (transaction) throws(StoreError) -> StoredFile? in
            guard try FileRows.finish(id, size: size, digest, at: now, transaction) else { return nil }
            guard let file = try FileRows.load(id, transaction) else { return nil }
            let maker = Principal(kind: file.ownerKind, id: file.owner)
            _ = try transaction.audit(
                AuditRecord(
                    principal: maker, action: "file.store", target: "\(id)",
                    detail: ["name": .string(file.name), "size": .unsigned(size), "sha256": .string(digest.hex)]))
            return file
        }
        guard let file else { throw Self.unknown(id) }
        killPoint("files.sealed")
        space.settle(id, bytes: size)
        let (from, to) = (directory.unfinished(id), directory.whole(id))
        do {
            try await pool.run { () throws(SystemError) in try Files.rename(from, to: to) }
        } catch {
            throw Self.problem(error, "file \(id) cannot be put in its place; the next start does it")
        }
        events.publish(
            Event(
                kind: "file.stored", subject: "\(id)",
                data: ["size": .unsigned(size), "sha256": .string(digest.hex), "form": .string(file.form.rawValue)]))
        return file
    }

    // MARK: Problems

    static func unknown(_ id: FileID) -> Problem { Problem(404, "file-unknown", "there is no file \(id) that you may use") }

    static func problem(_ error: BlockingPool.Failure<SystemError>, _ what: String) -> Problem {
        switch error {
        case .full: Problem(503, "files-busy", "too many files are read and written at once: try again", retryAfter: 1)
        case .failed(let failure) where failure.isOutOfSpace || failure.code == EFBIG:
            Problem(507, "disk-full", "the disk of the data directory is full: nothing was kept of what did not fit")
        case .failed(let failure) where failure.code == EIO: Problem(500, "file-damaged", "\(what): \(failure)")
        case .failed(let failure): Problem(500, "file-failed", "\(what): \(failure)")
        }
    }
}

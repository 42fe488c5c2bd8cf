import CSQLite
import Glibc
import Reactor

/// One SQLite connection with its cache of prepared statements. Not Sendable: it is made, used and closed on one
/// thread (SQLite is opened without its own mutexes).
final class Connection {
    private let handle: OpaquePointer
    private var cache = StatementTable()
    let values = ValueStack()
    /// `CLOCK_MONOTONIC` nanoseconds after which a running statement is ended; 0: never. See `limitReads`.
    private var deadline: UInt64 = 0

    private var isClosed = false

    enum Mode { case writer, reader, checkpointer }

    init(path: String, mode: Mode, options: StoreOptions) throws(StoreError) {
        try Self.prepareLibrary()
        var opened: OpaquePointer?
        // A reader is opened for writing as well, or it could not make the shared-memory file of the WAL after a crash.
        let flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE
            | (mode == .writer ? SQLITE_OPEN_CREATE : 0)
        let status = sqlite3_open_v2(path, &opened, flags, nil)
        guard status == SQLITE_OK, let opened else {
            let message = opened.map { String(cString: sqlite3_errmsg($0)) } ?? "no memory"
            sqlite3_close_v2(opened)
            throw Self.error(status, "opening \(path): \(message)", systemError: errno)
        }
        handle = opened
        sqlite3_busy_timeout(handle, 5_000)
        try execute("PRAGMA journal_mode = WAL")
        try execute("PRAGMA synchronous = \(options.synchronous.rawValue)")
        try execute("PRAGMA foreign_keys = ON")
        try execute("PRAGMA temp_store = MEMORY")
        // Checkpoints are a thread's job, see Checkpointer; SQLite cuts a log that outgrew this when it starts over.
        try execute("PRAGMA wal_autocheckpoint = 0")
        try execute("PRAGMA journal_size_limit = \(options.walBytesToKeep)")
        try execute("PRAGMA cache_size = -\(mode == .writer ? options.writerCacheKiB : options.readerCacheKiB)")
        if mode == .reader { try execute("PRAGMA query_only = ON") }
        if let pages = options.maximumPages, mode == .writer { try execute("PRAGMA max_page_count = \(pages)") }
    }

    deinit { close() }

    /// On the connection's thread; nothing may be called on it afterwards. Idempotent.
    func close() {
        guard !isClosed else { return }
        isClosed = true
        for statement in cache.all { sqlite3_finalize(statement) }
        cache = StatementTable()
        sqlite3_close_v2(handle)
    }

    private static let libraryStatus = cm_sqlite_prepare_library()
    private static func prepareLibrary() throws(StoreError) {
        guard libraryStatus == SQLITE_OK else {
            throw .failed(code: libraryStatus, message: "SQLite could not be initialised")
        }
    }

    // MARK: Statements

    /// Runs SQL without values and without rows.
    func execute(_ sql: String) throws(StoreError) {
        let status = sqlite3_exec(handle, sql, nil, nil, nil)
        guard status == SQLITE_OK else { throw error(status) }
    }

    /// The same for what is run again and again: the statement is kept.
    func executeKept(_ sql: StaticString) throws(StoreError) {
        let use = try take(sql)
        defer { give(use) }
        _ = try step(use.statement)
    }

    /// A statement in use, and what of the value stack was taken before it.
    struct Use {
        let statement: OpaquePointer
        let isKept: Bool
        let mark: Int
    }

    /// The kept statement of a literal, until `give`.
    @inline(__always)
    func take(_ sql: StaticString) throws(StoreError) -> Use {
        let key = UInt(bitPattern: sql.utf8Start)
        let statement: OpaquePointer
        if let cached = cache[key] {
            statement = cached
        } else {
            statement = try prepare(sql.utf8Start, sql.utf8CodeUnitCount, SQLITE_PREPARE_PERSISTENT)
            cache.insert(statement, for: key)
        }
        // While it stands on a row of itself somebody may use the same literal again: that use gets a statement of its own.
        guard sqlite3_stmt_busy(statement) == 0 else {
            return Use(statement: try prepare(sql.utf8Start, sql.utf8CodeUnitCount, 0), isKept: false, mark: values.top)
        }
        return Use(statement: statement, isKept: true, mark: values.top)
    }

    /// It is reset, so that it holds no lock; of its values nobody looks at any before they are set anew.
    @inline(__always)
    func give(_ use: Use) {
        if use.isKept { sqlite3_reset(use.statement) } else { sqlite3_finalize(use.statement) }
        values.drop(to: use.mark)
    }

    @inline(__always)
    func bound(_ use: Use) -> BoundStatement { BoundStatement(handle: use.statement, values: values) }

    /// A statement whose text was put together at run time; it ends with `give`.
    func take(text sql: String) throws(StoreError) -> Use {
        let mark = values.top
        var statement: OpaquePointer?
        let status = sql.utf8Span.span.withUnsafeBufferPointer { utf8 -> Int32 in
            guard let base = utf8.baseAddress else { return SQLITE_MISUSE }
            return base.withMemoryRebound(to: CChar.self, capacity: utf8.count) {
                sqlite3_prepare_v3(handle, $0, Int32(clamping: utf8.count), 0, &statement, nil)
            }
        }
        guard status == SQLITE_OK, let statement else { throw error(status) }
        return Use(statement: statement, isKept: false, mark: mark)
    }

    private func prepare(_ sql: UnsafePointer<UInt8>, _ count: Int, _ flags: Int32) throws(StoreError) -> OpaquePointer {
        var statement: OpaquePointer?
        let status = sql.withMemoryRebound(to: CChar.self, capacity: count) {
            sqlite3_prepare_v3(handle, $0, Int32(clamping: count), UInt32(flags), &statement, nil)
        }
        guard status == SQLITE_OK, let statement else { throw error(status) }
        return statement
    }

    /// True when the statement stands on a row, false when it is done.
    @inline(__always)
    func step(_ statement: OpaquePointer) throws(StoreError) -> Bool {
        let status = sqlite3_step(statement)
        if status == SQLITE_ROW { return true }
        if status == SQLITE_DONE { return false }
        throw error(status)
    }

    var changes: Int { Int(sqlite3_changes64(handle)) }
    var totalChanges: Int64 { sqlite3_total_changes64(handle) }
    var lastInsertedRow: Int64 { sqlite3_last_insert_rowid(handle) }
    /// False after SQLite itself has rolled a transaction back.
    var isInTransaction: Bool { sqlite3_get_autocommit(handle) == 0 }

    // MARK: Limits and log

    /// Ends any statement of this connection that runs beyond `deadline`.
    func limitReads() {
        sqlite3_progress_handler(handle, 10_000, { context in
            guard let context else { return 0 }
            return Unmanaged<Connection>.fromOpaque(context)._withUnsafeGuaranteedRef { $0.isOverdue ? 1 : 0 }
        }, Unmanaged.passUnretained(self).toOpaque())
    }

    func setDeadline(_ nanoseconds: UInt64) { deadline = nanoseconds }
    private var isOverdue: Bool { deadline != 0 && monotonicNanoseconds() > deadline }

    /// Moves what it can from the log into the database without waiting for anybody.
    /// - Returns: pages in the log, and how many of them are in the database now.
    func checkpoint(_ mode: Int32 = SQLITE_CHECKPOINT_PASSIVE) throws(StoreError) -> (log: Int, moved: Int) {
        var log: Int32 = 0
        var moved: Int32 = 0
        let status = sqlite3_wal_checkpoint_v2(handle, nil, mode, &log, &moved)
        guard status == SQLITE_OK || status & 0xFF == SQLITE_BUSY else { throw syncError(status) }
        return (Int(log), Int(moved))
    }

    /// Pages that a failed sync has dropped are not in the database, whatever the reason was, a full disk included.
    private func syncError(_ status: Int32) -> StoreError {
        guard StoreFault.isFailedSync(status) else { return error(status) }
        return .failed(code: status, message: "the database file cannot be synced, errno \(errno)")
    }

    /// The log survives the end of the last connection as it is.
    func keepLogOnClose() { _ = cm_sqlite_keep_log_on_close(handle) }

    /// Has SQLite report the pages in the log after each commit. `counter` must outlive the connection.
    func countLogPages(into counter: UnsafeMutablePointer<Int32>) {
        sqlite3_wal_hook(handle, { context, _, _, pages in
            context?.assumingMemoryBound(to: Int32.self).pointee = pages
            return SQLITE_OK
        }, counter)
    }

    /// Copies the whole database into a new file, as of one moment, while others write.
    func copy(to path: String) throws(StoreError) {
        let use = try take(text: "VACUUM INTO ?")
        defer { give(use) }
        bound(use).bind(path, at: 1)
        _ = try step(use.statement)
    }

    // MARK: Errors

    /// Directly after the failed call: SQLite notes the system's error only outside of commits, so that `errno` itself
    /// has to tell a full disk, a quota and a file limit from a broken disk.
    func error(_ status: Int32) -> StoreError {
        let now = errno
        let noted = sqlite3_system_errno(handle)
        return Self.error(status, String(cString: sqlite3_errmsg(handle)), systemError: noted == 0 ? now : noted)
    }

    private static func error(_ status: Int32, _ message: String, systemError: Int32) -> StoreError {
        switch status & 0xFF {
        case SQLITE_FULL: .full
        case SQLITE_IOERR where [ENOSPC, EDQUOT, EFBIG].contains(systemError): .full
        case SQLITE_CONSTRAINT: .constraint(message)
        case SQLITE_BUSY, SQLITE_LOCKED: .locked
        case SQLITE_INTERRUPT: .tooSlow
        case SQLITE_IOERR: .failed(code: status, message: "\(message), errno \(systemError)")
        default: .failed(code: status, message: message)
        }
    }
}

import Crypto
import Glibc
import Reactor
import Synchronization
import System

/// The core's durable memory: one SQLite database with one writer and a few readers.
///
/// All functions may be called from any thread or loop. A `write` that returned is on the disk.
public final class Store: Sendable {
    public let directory: String
    private let writer: Writer
    private let readers: ReaderPool
    private let checkpointer: Checkpointer
    private let fault: StoreFault
    private struct Held: Sendable {
        var threads: [StoreThread]
        var lock: DirectoryLock
    }
    /// Until `close`.
    private let held: Mutex<Held?>

    /// The key that signs the audit trail.
    public let auditKey: P256.PublicKey
    /// The newest durable audit record; 0 for none.
    public var newestAuditRecord: UInt64 { writer.newestAuditRecord }

    public var statistics: StoreStatistics { writer.statistics }
    /// Why the store takes no more changes until a restart; nil while it is sound.
    public var failure: Problem? { fault.error?.problem }
    /// Writes that wait or run now.
    public var queueDepth: Int { writer.depth }

    /// Opens, or makes, the database of a data directory, brings its schema forward and starts the threads.
    /// - Parameters:
    ///   - migrations: those of all areas; the audit trail's come first by themselves.
    ///   - safe: seals the key of the audit trail.
    ///   - failed: told once, on a thread of the store, when a fault ends all changes until a restart (`failure`); must not
    ///     wait.
    /// - Throws: 409 `data-directory-in-use`, 500 `store-refused` (foreign or newer database), 507 `disk-full`, …
    public static func open(
        directory: String, migrations: [Migration], options: StoreOptions = StoreOptions(), safe: KeySafe = KeySafe(),
        failed: @escaping @Sendable (Problem) -> Void = { _ in }
    ) throws(Problem) -> Store {
        let path = directory + "/core.sqlite3"
        let lock = try prepare(directory, path)
        let signer = try AuditSigner(directory: directory, safe: safe)
        do throws(StoreError) {
            let connection = try Connection(path: path, mode: .writer, options: options)
            try Migrations.apply(Audit.migrations + migrations, to: connection, now: unixMilliseconds())
            return try Store(directory, path, lock, connection, signer, options, StoreFault(report: failed))
        } catch {
            throw error.problem
        }
    }

    private init(
        _ directory: String, _ path: String, _ lock: DirectoryLock, _ connection: sending Connection,
        _ signer: AuditSigner, _ options: StoreOptions, _ fault: StoreFault
    ) throws(StoreError) {
        self.directory = directory
        let chain = try AuditChain(connection, signer: signer)
        auditKey = signer.publicKey
        let batches = BatchRunner(connection, chain: chain, fault: fault)
        let statistics = StoreStatistics()
        let checkpointer = Checkpointer(
            try Connection(path: path, mode: .checkpointer, options: options), file: try Self.file(path),
            threshold: options.checkpointPages, fault: fault, statistics: statistics)
        let writer = Writer(batches, checkpointer: checkpointer, statistics: statistics, options: options)
        let readers = ReaderPool(options: options)
        self.writer = writer
        self.checkpointer = checkpointer
        self.fault = fault
        self.readers = readers
        var threads = [
            try StoreThread(name: "store-writer") { writer.run() },
            try StoreThread(name: "store-check") { checkpointer.run() },
        ]
        for _ in 0..<options.readerThreads {
            let parcel = Parcel(try Connection(path: path, mode: .reader, options: options))
            threads.append(try StoreThread(name: "store-reader") { readers.run(parcel.content) })
        }
        held = Mutex(Held(threads: threads, lock: lock))
    }

    /// Runs `body` in a transaction on the writer thread and returns when the change is durable.
    ///
    /// The body may run more than once and must not touch anything but the transaction. If it throws, it leaves no
    /// trace. A cancelled task still waits for the outcome.
    /// - Parameter bytes: about what the change adds to the disk; counts against the queue's limit.
    /// - Throws: the body's own refusal; 409 `conflict`; 503 `store-busy` with Retry-After; 507 `disk-full`.
    @discardableResult
    public func write<Value: Sendable>(
        bytes: Int = 512, _ body: @escaping @Sendable (borrowing Transaction) throws(StoreError) -> Value
    ) async throws(Problem) -> Value {
        let place = WrittenValue<Value>()
        let request = WriteRequest(bytes: bytes, loop: EventLoop.current) { (transaction) throws(StoreError) in
            place.value = try body(transaction)
        }
        await withUnsafeContinuation { continuation in
            request.continuation = continuation
            writer.submit(request)
        }
        if let failure = request.failure { throw failure.problem }
        guard let value = place.value else { throw Problem(500, "store-failed", "the write was never run") }
        return value
    }

    /// Runs `body` on a reader thread against one consistent snapshot, which includes every write that has returned.
    /// Long lists are read in pages, each a short read of its own.
    /// - Throws: the body's own refusal; 503 `store-busy` or `store-slow` with Retry-After.
    public func read<Value: Sendable>(
        _ body: @escaping @Sendable (borrowing Reader) throws(StoreError) -> Value
    ) async throws(Problem) -> Value {
        let result: Result<Value, Problem> = await withUnsafeContinuation { continuation in
            readers.submit(TypedReadRequest(continuation: continuation, body: body))
        }
        return try result.get()
    }

    /// Writes what was accepted, refuses what comes later, ends the threads, frees the directory for another core.
    /// Blocks: never call it on a loop.
    public func close() {
        let held = held.withLock { held in
            defer { held = nil }
            return held
        }
        guard let threads = held?.threads else { return }
        // The directory stays locked until the last connection is closed.
        defer { withExtendedLifetime(held) {} }
        readers.stop()
        checkpointer.stop()
        for thread in threads.dropFirst() { thread.join() }
        // Last, so that it is the last connection and can move the whole log into the database.
        writer.stop()
        threads[0].join()
    }

    /// For the checkpointer, see there how long it lives.
    private static func file(_ path: String) throws(StoreError) -> Descriptor {
        do throws(SystemError) { return try Descriptor.open(path, O_RDONLY) } catch {
            throw .failed(code: error.code, message: "\(error)")
        }
    }

    /// Makes directory and file for their owner alone; the directory knows the name before anything is acknowledged.
    private static func prepare(_ directory: String, _ path: String) throws(Problem) -> DirectoryLock {
        do throws(SystemError) {
            try Files.makeDirectories(directory)
            let lock = try DirectoryLock(directory: directory)
            _ = try Descriptor.open(path, O_RDWR | O_CREAT | O_NOFOLLOW)
            try Files.syncDirectory(directory)
            return lock
        } catch {
            if error.wouldBlock {
                throw Problem(
                    409, "data-directory-in-use",
                    "another core runs on \(directory): stop it or use another directory")
            }
            if error.isOutOfSpace { throw StoreError.full.problem }
            throw Problem(500, "store-refused", "the data directory cannot be used: \(error)")
        }
    }
}

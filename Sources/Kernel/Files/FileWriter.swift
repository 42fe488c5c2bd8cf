import Crypto
import Glibc
import Reactor
import Synchronization
import System

/// The one that may write to an unfinished file: appends, and in the end seals or discards it, or lets go of it so that
/// somebody goes on later.
///
/// One task uses it, one call after the other. What `append` took is with the operating system; what `durable` covers
/// survives power loss, and a later writer goes on there. Every 64 MiB that happens by itself, beside further appends.
/// A writer that is dropped without an end leaves the file as it is durable.
public final class FileWriter: Sendable {
    public let id: FileID
    /// As announced.
    public let size: UInt64?
    private let store: FileStore
    private let descriptor: Descriptor
    private var path: String { store.directory.unfinished(id) }

    private struct State: ~Copyable {
        var hash: SHA256
        var offset: UInt64
        var durable: UInt64
        /// Where the newest checkpoint stands that was begun.
        var begun: UInt64
        /// Where the disk's free space is looked at next.
        var nextLook: UInt64
        var isWorking = false
        var isSyncing = false
        /// Why a checkpoint beside the appends failed.
        var failure: Problem?
        /// Why nothing more can be done here.
        var end: Problem?
        var waiting: [UnsafeContinuation<Void, Never>] = []
    }
    private let state: Mutex<State>

    /// - Parameter hash: of the first `durable` bytes.
    init(_ store: FileStore, _ file: StoredFile, _ descriptor: consuming Descriptor, hash: SHA256) {
        self.store = store
        self.descriptor = descriptor
        id = file.id
        size = file.size
        let offset = file.durable
        state = Mutex(
            State(hash: hash, offset: offset, durable: offset, begun: offset, nextLook: offset + store.options.lookBytes))
    }

    /// Bytes taken so far: where the next `append` goes.
    public var offset: UInt64 { state.withLock { $0.offset } }
    /// Bytes that are on the disk for good.
    public var durable: UInt64 { state.withLock { $0.durable } }
    /// Nothing more can be done here: the file is whole, gone, or in other hands.
    public var isOver: Bool { state.withLock { $0.end != nil } }
    /// The hash's running state after `offset` bytes.
    public var hash: SHA256 { state.withLock { $0.hash } }

    // MARK: Writing

    /// Takes the bytes at the present offset.
    /// - Throws: 400 `file-too-long` beyond the announced size; 413 `file-too-large`; 507 `file-store-full` or `disk-full`,
    ///   after which the file is gone and its space given back; 409 `file-taken-over`; 503 `files-busy`.
    public func append(_ bytes: [UInt8]) async throws(Problem) {
        guard !bytes.isEmpty else { return }
        try await enter()
        do throws(Problem) {
            try await write(bytes)
        } catch {
            leave()
            // What cannot be completed must not keep what others need.
            if error.status == 507 || error.status == 413 { await giveUp(error) }
            throw error
        }
        let isDue = state.withLock { $0.offset - $0.begun >= store.options.checkpointBytes }
        if isDue { await startCheckpoint() }
        leave()
    }

    private func write(_ bytes: [UInt8]) async throws(Problem) {
        let (start, before, looks, failure) = state.withLock { ($0.offset, $0.hash, $0.nextLook, $0.failure) }
        if let failure { throw failure }
        let end = start + UInt64(bytes.count)
        if let size, end > size {
            throw Problem(400, "file-too-long", "file \(id) was announced with \(size) bytes, and more came")
        }
        try store.space.grow(id, to: end)
        let mustLook = end >= looks
        let hash: SHA256
        do {
            hash = try await store.pool.run { [self] () throws(SystemError) in
                if mustLook { try store.space.checkDisk() }
                var hash = before
                hash.update(bytes.span.bytes)
                try descriptor.write(bytes.span.bytes, at: start, subject: path)
                killPoint("files.append")
                let step = store.options.writebackBytes
                if end / step > start / step {
                    descriptor.startWriting(from: (end / step - 1) * step, count: Int(step))
                }
                return hash
            }
        } catch {
            throw FileStore.problem(error, "file \(id) cannot be written")
        }
        state.withLock { state in
            state.hash = hash
            state.offset = end
            if mustLook { state.nextLook = end + store.options.lookBytes }
        }
    }

    /// Puts what was taken on the disk for good.
    /// - Returns: the durable offset, the present one.
    @discardableResult
    public func sync() async throws(Problem) -> UInt64 {
        try await enter()
        defer { leave() }
        await waitForCheckpoint()
        if let failure = state.withLock({ $0.failure }) { throw failure }
        try await checkpoint()
        return durable
    }

    // MARK: Checkpoints

    /// The next appends go on while the disk works; a second checkpoint waits for the first, which bounds what is dirty.
    private func startCheckpoint() async {
        await waitForCheckpoint()
        state.withLock { state in
            state.isSyncing = true
            state.begun = state.offset
        }
        guard let loop = EventLoop.current else { return await finishCheckpoint() }
        loop.spawn { [self] in await finishCheckpoint() }
    }

    private func finishCheckpoint() async {
        do throws(Problem) {
            try await checkpoint()
        } catch {
            state.withLock { $0.failure = error }
        }
        wake { $0.isSyncing = false }
    }

    /// Bytes first, then the row that says so.
    private func checkpoint() async throws(Problem) {
        let (offset, hash, durable) = state.withLock { ($0.offset, $0.hash, $0.durable) }
        guard offset > durable else { return }
        do {
            try await store.pool.run { [self] () throws(SystemError) in try store.options.sync(descriptor, path) }
        } catch {
            throw FileStore.problem(error, "file \(id) cannot be synced")
        }
        killPoint("files.checkpoint.synced")
        try await store.checkpointed(id, at: offset, hash)
        killPoint("files.checkpoint.written")
        state.withLock { $0.durable = max($0.durable, offset) }
    }

    private func waitForCheckpoint() async {
        while state.withLock({ $0.isSyncing }) { await sleepUnless { !$0.isSyncing } }
    }

    // MARK: Ends

    /// Makes the file whole. When this returns it is durable and can be opened by its id.
    /// - Parameters:
    ///   - digest: what the bytes must have, if their sender said so.
    /// - Throws: 409 `file-incomplete` when bytes of the announced size are missing (the writer goes on); 422
    ///   `digest-mismatch` (the file is discarded); what the store throws.
    public func seal(expecting digest: SHA256.Digest? = nil) async throws(Problem) -> StoredFile {
        try await enter()
        do throws(Problem) {
            let file = try await finish(expecting: digest)
            end(Problem(409, "file-whole", "file \(id) is whole"))
            leave()
            return file
        } catch {
            leave()
            if error.code == "digest-mismatch" || error.status == 507 { await giveUp(error) }
            throw error
        }
    }

    private func finish(expecting digest: SHA256.Digest?) async throws(Problem) -> StoredFile {
        await waitForCheckpoint()
        let (offset, hash, failure) = state.withLock { ($0.offset, $0.hash.digest, $0.failure) }
        if let failure { throw failure }
        if let size, offset != size {
            throw .conflict("file-incomplete", "file \(id) has \(offset) of \(size) bytes")
        }
        if let digest, digest != hash {
            throw Problem(422, "digest-mismatch", "the bytes have the SHA-256 \(hash.hex), not \(digest.hex); nothing was kept")
        }
        do {
            try await store.pool.run { [self] () throws(SystemError) in try store.options.sync(descriptor, path) }
        } catch {
            throw FileStore.problem(error, "file \(id) cannot be synced")
        }
        killPoint("files.seal.synced")
        return try await store.sealed(id, size: offset, hash)
    }

    /// Lets go: makes durable what was taken, as far as the disk allows, and leaves the file for a later writer.
    /// - Returns: where that goes on.
    @discardableResult
    public func suspend() async -> UInt64 {
        guard (try? await enter()) != nil else { return durable }
        await waitForCheckpoint()
        if state.withLock({ $0.failure }) == nil { try? await checkpoint() }
        end(Problem(409, "file-suspended", "this writer of file \(id) has let go of it"))
        leave()
        return durable
    }

    /// Removes the file; its space is free when this returns.
    public func discard(by principal: Principal) async throws(Problem) {
        try await fence(Problem(409, "file-discarded", "file \(id) was discarded"))
        try await store.removeUnfinished(id, by: principal, outcome: .allowed, reason: "")
    }

    private func giveUp(_ problem: Problem) async {
        try? await fence(problem)
        try? await store.removeUnfinished(id, by: FileStore.system, outcome: .failed, reason: problem.detail)
    }

    /// Somebody else takes the file over: waits for the running operation, after it every other one fails with `problem`.
    func fence(_ problem: Problem) async throws(Problem) {
        try await enter()
        end(problem)
        await waitForCheckpoint()
        leave()
    }

    private func end(_ problem: Problem) {
        state.withLock { if $0.end == nil { $0.end = problem } }
        store.ended(self)
    }

    // MARK: One after the other

    private func enter() async throws(Problem) {
        while true {
            let (entered, end) = state.withLock { state -> (Bool, Problem?) in
                if let end = state.end { return (false, end) }
                defer { state.isWorking = true }
                return (!state.isWorking, nil)
            }
            if let end { throw end }
            if entered { return }
            await sleepUnless { !$0.isWorking || $0.end != nil }
        }
    }

    private func leave() { wake { $0.isWorking = false } }

    private func sleepUnless(_ isReady: @Sendable (borrowing State) -> Bool) async {
        await withUnsafeContinuation { (continuation: UnsafeContinuation<Void, Never>) in
            let goesOn = state.withLock { state in
                let goesOn = isReady(state)
                if !goesOn { state.waiting.append(continuation) }
                return goesOn
            }
            if goesOn { continuation.resume() }
        }
    }

    private func wake(_ change: (inout State) -> Void) {
        let waiting = state.withLock { state in
            change(&state)
            defer { state.waiting = [] }
            return state.waiting
        }
        for continuation in waiting { continuation.resume() }
    }
}

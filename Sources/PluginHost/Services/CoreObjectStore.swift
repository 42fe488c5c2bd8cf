import CLinux
import CPluginABI
import Kernel
import Reactor
import Synchronization
import System

/// The kernel's object store: the service `client-manager.object-store/1` of whoever publishes it, for as long as he does. Acquired when
/// it appears, given back when it is recalled and every `done` has come.
///
/// The service's functions do not wait, by contract; since nobody can be sure of that, they are called on a thread of this file's
/// pool and never on a loop. A call that finds no thread, or whose `done` does not come, ends by itself.
final class CoreObjectStore: ObjectStore {
    /// Calls that have not ended, in whatever way: one that is given up counts until its `done` comes.
    private static let mostCalls = 16
    private struct State {
        var held: ObjectStoreLease?
        var isRecalled = false
        var calls: [UInt64: ObjectStoreCall] = [:]
        var lastCall: UInt64 = 0
    }
    private let services: ServiceRegistry
    private let handles: Handles
    let loop: EventLoop
    /// Told whenever `isThere` may have changed; not with a lock held.
    private let changed: @Sendable () -> Void
    private let pool = BlockingPool(name: "object-store", threads: 1, queue: 64)
    private let state = Mutex(State())

    init(_ services: ServiceRegistry, handles: Handles, loop: EventLoop, changed: @escaping @Sendable () -> Void) {
        self.services = services
        self.handles = handles
        self.loop = loop
        self.changed = changed
    }

    func start() {
        services.watchForCore(CM_OBJECT_STORE) { [self] isThere in
            if isThere { acquire() }
        }
    }

    var isThere: Bool { state.withLock { $0.held != nil && !$0.isRecalled } }

    // MARK: The lease

    private func acquire() {
        // What is held still is given back first; `settle` comes here again.
        guard state.withLock({ $0.held == nil }) else { return }
        let handle = handles.next()
        let lease = services.acquireForCore(
            CM_OBJECT_STORE, minimumSize: MemoryLayout<cm_object_store>.size, handle: handle,
            recalled: { [weak self] in self?.recalled(handle) }, revoked: { [weak self] in self?.revoked(handle) })
        guard let lease, let held = ObjectStoreLease(lease, handle) else {
            if lease != nil { services.releaseForCore(handle) }
            return
        }
        let isKept = state.withLock { state in
            guard state.held == nil else { return false }
            state.held = held
            state.isRecalled = false
            return true
        }
        guard isKept else { return services.releaseForCore(handle) }
        // Recalled between the two: nobody would say it again.
        if services.service(CM_OBJECT_STORE)?.publisher !== lease.service.publisher { recalled(handle) }
        changed()
    }

    private func recalled(_ handle: cm_handle) {
        let open: [ObjectStoreCall]? = state.withLock { state in
            guard let held = state.held, held.handle == handle, !state.isRecalled else { return nil }
            state.isRecalled = true
            return state.calls.values.map { $0 }
        }
        guard let open else { return }
        // What is being written ends here, and `done` says so.
        for call in open { abort(call) }
        settle()
        changed()
    }

    private func revoked(_ handle: cm_handle) {
        let open: [ObjectStoreCall]? = state.withLock { state in
            guard let held = state.held, held.handle == handle else { return nil }
            state.held = nil
            state.isRecalled = false
            defer { state.calls = [:] }
            return state.calls.values.map { $0 }
        }
        guard let open else { return }
        // Their contexts stay for a `done` that may come after all.
        for call in open { call.finish(.failure(.absent)) }
        changed()
        acquire()
    }

    /// Gives a recalled lease back once nothing is under way, and looks for the next publisher.
    private func settle() {
        let handle: cm_handle? = state.withLock { state in
            guard state.isRecalled, state.calls.isEmpty, let held = state.held else { return nil }
            state.held = nil
            state.isRecalled = false
            return held.handle
        }
        guard let handle else { return }
        services.releaseForCore(handle)
        acquire()
    }

    // MARK: Calls

    func begin(_ remote: String, _ key: String, contentType: String) async throws(ObjectStoreError) -> any ObjectWriter {
        let call = try enter()
        try await submit(call) { lease, context in
            var writer: UInt64 = 0
            let status = withText(remote) { remote in
                withText(key) { key in
                    withText(contentType) { type in
                        lease.table.writer_begin?(lease.context.pointer, remote, key, type, &writer, objectStoreDone, context)
                            ?? CM_E_UNSUPPORTED
                    }
                }
            }
            guard status == CM_OK else { return status }
            call.writer.store(writer, ordering: .releasing)
            // Who asked has given up meanwhile: nobody else ends it.
            if call.isOver { _ = lease.table.writer_abort?(lease.context.pointer, writer) }
            return status
        }
        // Recalled while it began: nobody has aborted it.
        if !isThere { abort(call) }
        return CoreObjectWriter(self, call)
    }

    func size(_ remote: String, _ key: String) async throws(ObjectStoreError) -> UInt64 {
        let call = try enter()
        try await submit(call) { lease, context in
            withText(remote) { remote in
                withText(key) { key in
                    lease.table.stat?(lease.context.pointer, remote, key, objectStoreDone, context) ?? CM_E_UNSUPPORTED
                }
            }
        }
        let answer = try await call.answer(on: loop)
        guard let size = answer["size"]?.integer, size >= 0 else {
            throw ObjectStoreError("object-store-answer", "the store's plugin did not say how large the object is")
        }
        return UInt64(size)
    }

    private func enter() throws(ObjectStoreError) -> ObjectStoreCall {
        let call: Result<ObjectStoreCall, ObjectStoreError> = state.withLock { state in
            guard let held = state.held, !state.isRecalled, held.isValid else { return .failure(.absent) }
            guard state.calls.count < Self.mostCalls else {
                return .failure(ObjectStoreError("object-store-busy", "\(Self.mostCalls) earlier calls have not ended"))
            }
            state.lastCall += 1
            let call = ObjectStoreCall(state.lastCall, held) { [weak self] in self?.left($0) }
            state.calls[call.id] = call
            return .success(call)
        }
        return try call.get()
    }

    /// Its `done` has come, or never will.
    private func left(_ id: UInt64) {
        state.withLock { $0.calls[id] = nil }
        settle()
    }

    /// Makes the call that ends in `done`; returns when it was accepted.
    private func submit(
        _ call: ObjectStoreCall, _ body: @escaping @Sendable (ObjectStoreLease, UnsafeMutableRawPointer) -> cm_status
    ) async throws(ObjectStoreError) {
        let status: cm_status
        do throws(ObjectStoreError) {
            status = try await foreign(call, notTaken: call.leave) { lease in
                let context = call.retained()
                let status = body(lease, context)
                if status != CM_OK {
                    call.give(back: context)
                    call.leave()
                }
                return status
            }
        } catch {
            call.finish(.failure(error))
            throw error
        }
        guard status == CM_OK else {
            throw .refused(status, "the store's plugin did not take the call")
        }
    }

    /// Calls into the plugin, on the pool's thread.
    func foreign(
        _ call: ObjectStoreCall, notTaken: () -> Void = {}, _ body: @escaping @Sendable (ObjectStoreLease) -> cm_status
    ) async throws(ObjectStoreError) -> cm_status {
        let outcome = ForeignOutcome()
        let isTaken = pool.submit {
            guard call.lease.isValid else { return outcome.finish(CM_E_GONE) }  // `revoked` has ended all calls.
            // A fault in there is the plugin's.
            let former = cm_crash_enter(call.lease.generation)
            let status = body(call.lease)
            cm_crash_leave(former)
            outcome.finish(status)
        }
        guard isTaken else {
            notTaken()
            throw ObjectStoreError("object-store-busy", "the store's plugin does not return from earlier calls")
        }
        guard let status = await outcome.status(on: loop) else {
            throw ObjectStoreError("object-store-timeout", "the store's plugin does not return from a call")
        }
        return status
    }

    /// Nothing of an object in the making is kept. Returns at once; `done` tells.
    func abort(_ call: ObjectStoreCall) {
        let writer = call.writer.load(ordering: .acquiring)
        guard writer != 0 else { return }
        _ = pool.submit {
            guard call.lease.isValid else { return }
            let former = cm_crash_enter(call.lease.generation)
            _ = call.lease.table.writer_abort?(call.lease.context.pointer, writer)
            cm_crash_leave(former)
        }
    }
}

/// One object being written by the service.
private final class CoreObjectWriter: ObjectWriter {
    /// What the service takes at once, and how often it is asked again while it has no room.
    private static let pieceBytes = 1 << 20
    private static let pauseMilliseconds: UInt64 = 20
    private static let mostPauses = 30_000
    private let store: CoreObjectStore
    private let call: ObjectStoreCall

    init(_ store: CoreObjectStore, _ call: ObjectStoreCall) {
        self.store = store
        self.call = call
    }

    func write(_ piece: [UInt8]) async throws(ObjectStoreError) {
        var offset = 0
        while offset < piece.count {
            let part = Array(piece[offset..<min(offset + Self.pieceBytes, piece.count)])
            try await offer(part)
            offset += part.count
        }
    }

    private func offer(_ part: [UInt8]) async throws(ObjectStoreError) {
        for _ in 0..<Self.mostPauses {
            // The end came before the last piece: it says why.
            if call.isOver { _ = try await call.answer(on: store.loop) }
            let writer = call.writer.load(ordering: .acquiring)
            let status = try await store.foreign(call) { lease in
                withBytes(part) { lease.table.writer_write?(lease.context.pointer, writer, $0) ?? CM_E_UNSUPPORTED }
            }
            switch status {
            case CM_OK: return
            case CM_E_BUSY: await store.loop.sleep(milliseconds: Self.pauseMilliseconds)
            case CM_E_GONE:
                _ = try await call.answer(on: store.loop)
                throw .refused(status, "the object ended before it was whole")
            default: throw .refused(status, "the store's plugin did not take a piece")
            }
        }
        throw ObjectStoreError("object-store-timeout", "the store has taken nothing for ten minutes")
    }

    func end() async throws(ObjectStoreError) {
        let writer = call.writer.load(ordering: .acquiring)
        if !call.isOver {
            let status = try await store.foreign(call) { lease in
                lease.table.writer_end?(lease.context.pointer, writer) ?? CM_E_UNSUPPORTED
            }
            guard status == CM_OK || status == CM_E_GONE else { throw .refused(status, "the store's plugin did not take the end") }
        }
        _ = try await call.answer(on: store.loop)
    }

    func abort() async { store.abort(call) }
}

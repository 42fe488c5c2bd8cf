import CPluginABI
import JSON
import Kernel
import Reactor
import Synchronization

/// The core's lease on the service, as its calls need it.
struct ObjectStoreLease: Sendable {
    let handle: cm_handle
    private let word: LeaseWord
    let table: cm_object_store
    let context: Foreign
    /// Of the publisher: who is to blame.
    let generation: UInt64

    /// `nil`: there is no table.
    init?(_ lease: ServiceRegistry.CoreLease, _ handle: cm_handle) {
        guard let pointer = lease.service.table.pointer,
            let table = adopt(UnsafeRawPointer(pointer).assumingMemoryBound(to: cm_object_store.self), empty: cm_object_store())
        else { return nil }
        self.handle = handle
        self.table = table
        word = lease.word
        context = lease.service.context
        generation = lease.service.publisher.generation
    }

    var isValid: Bool { word.isSet }
}

/// A call that ends in `done`, on a thread of the plugin, or by the clock.
final class ObjectStoreCall: Sendable {
    /// The plugin tries a request several times and waits for a minute each time in which no byte moves.
    private static let longestMilliseconds: UInt64 = 900_000

    private struct State {
        var result: Result<JSONValue, ObjectStoreError>?
        var waiter: UnsafeContinuation<Void, Never>?
    }
    let id: UInt64
    let lease: ObjectStoreLease
    /// The service's name of what is being written; 0 for none.
    let writer = Atomic<UInt64>(0)
    private let left: @Sendable (UInt64) -> Void
    private let state = Mutex(State())

    /// - Parameter left: told once its `done` has come, or cannot come.
    init(_ id: UInt64, _ lease: ObjectStoreLease, left: @escaping @Sendable (UInt64) -> Void) {
        self.id = id
        self.lease = lease
        self.left = left
    }

    var isOver: Bool { state.withLock { $0.result != nil } }

    /// The first word counts.
    func finish(_ result: Result<JSONValue, ObjectStoreError>) {
        state.withLock { state in
            if state.result == nil { state.result = result }
            return state.waiter.take()
        }?.resume()
    }

    func leave() { left(id) }

    /// Waits for the end. One at a time.
    func answer(on loop: EventLoop) async throws(ObjectStoreError) -> JSONValue {
        await withUnsafeContinuation { (continuation: UnsafeContinuation<Void, Never>) in
            let isOver = state.withLock { state in
                if state.result == nil { state.waiter = continuation }
                return state.result != nil
            }
            if isOver { return continuation.resume() }
            loop.onLoop {
                loop.schedule(
                    Timer { [weak self] in
                        self?.finish(.failure(ObjectStoreError("object-store-timeout", "the store's plugin has said nothing for 15 minutes")))
                    }, afterMilliseconds: Self.longestMilliseconds)
            }
        }
        let result = state.withLock { $0.result } ?? .failure(.absent)
        return try result.get()
    }

    // MARK: The context of `done`

    /// A reference for the plugin, which `done` takes back.
    func retained() -> UnsafeMutableRawPointer { Unmanaged.passRetained(self).toOpaque() }

    /// The plugin has not taken it.
    func give(back context: UnsafeMutableRawPointer) { Unmanaged<ObjectStoreCall>.fromOpaque(context).release() }

    fileprivate static func done(_ context: UnsafeMutableRawPointer, _ result: cm_object_result) {
        let call = Unmanaged<ObjectStoreCall>.fromOpaque(context).takeRetainedValue()
        if result.status == CM_OK {
            let json = result.json.bytes(limit: 65_536).flatMap { try? JSONValue(parsing: $0) }
            call.finish(.success(json ?? .null))
        } else {
            // Its own end, because it is on its way out, is nobody's failure.
            let isLeaving = result.status == CM_E_GONE
            call.finish(.failure(ObjectStoreError(
                result.code.string(limit: 128).flatMap { $0.isEmpty ? nil : $0 } ?? "object-store-failed",
                result.text.string(limit: 4_096) ?? "the store's plugin gave no reason (status \(result.status))",
                kind: isLeaving ? .absent : .failed)))
        }
        call.leave()
    }
}

/// `done` of every call, on a thread of the plugin.
func objectStoreDone(_ context: UnsafeMutableRawPointer?, _ result: UnsafePointer<cm_object_result>) {
    guard let context else { return }
    ObjectStoreCall.done(context, result.pointee)
}

extension ObjectStoreError {
    /// What a function of the service said at once.
    static func refused(_ status: cm_status, _ text: String) -> ObjectStoreError {
        switch status {
        case CM_E_GONE: .absent
        case CM_E_BUSY: ObjectStoreError("object-store-busy", "\(text): too much waits")
        default: ObjectStoreError("object-store-failed", "\(text) (status \(status))")
        }
    }
}

/// What a call into the plugin returned, for the task that waits for it a while.
final class ForeignOutcome: Sendable {
    private static let longestMilliseconds: UInt64 = 30_000
    private struct State {
        var status: cm_status?
        var isOver = false
        var waiter: UnsafeContinuation<Void, Never>?
    }
    private let state = Mutex(State())

    func finish(_ status: cm_status?) {
        state.withLock { state in
            if !state.isOver { state.status = status }
            state.isOver = true
            return state.waiter.take()
        }?.resume()
    }

    /// `nil`: it does not return.
    func status(on loop: EventLoop) async -> cm_status? {
        await withUnsafeContinuation { (continuation: UnsafeContinuation<Void, Never>) in
            let isOver = state.withLock { state in
                if !state.isOver { state.waiter = continuation }
                return state.isOver
            }
            if isOver { return continuation.resume() }
            loop.onLoop {
                loop.schedule(Timer { [weak self] in self?.finish(nil) }, afterMilliseconds: Self.longestMilliseconds)
            }
        }
        return state.withLock { $0.status }
    }
}

import CPluginABI
import JSON
import Kernel
import Reactor
import Synchronization

// The second half of cm.files/1: transfers between the store and clients.

private let specificationBytes = 64 << 10
private let watchedPerPlugin = 256
/// Between two words of progress.
private let tickMilliseconds: UInt64 = 500
/// Until the first look: a small file is there at once, and whoever moves many waits for each.
private let firstLookMilliseconds: UInt64 = 20

extension Right {
    fileprivate static let createTransfers: Right = "transfer.create"
    fileprivate static let readTransfers: Right = "transfer.read"
    fileprivate static let cancelTransfers: Right = "transfer.cancel"
}

/// Follows a transfer for a plugin; ends by itself with the transfer.
private final class WatchedTransfer: PluginResource {
    private let callbacks: cm_transfer_callbacks
    private let context: CallbackContext
    private let handover = Handover()

    init(_ callbacks: cm_transfer_callbacks, _ context: CallbackContext) {
        self.callbacks = callbacks
        self.context = context
    }

    func begin(_ id: TransferID, _ principal: Principal, _ handle: cm_handle, on instance: PluginInstance) {
        instance.environment.loop.spawn { [self] in await run(id, principal, handle, instance) }
    }

    private func run(_ id: TransferID, _ principal: Principal, _ handle: cm_handle, _ instance: PluginInstance) async {
        let (kernel, loop) = (instance.environment.kernel, instance.environment.loop)
        var told: (state: TransferState, bytes: UInt64)?
        var pause = firstLookMilliseconds
        var toldAt: UInt64 = 0
        while !handover.isClosed {
            let view: TransferView
            do throws(Problem) {
                view = try await kernel.transfers.get(id, principal)
            } catch {
                // It is gone, or hidden from the actor since; or the store is busy: later.
                if error.status == 404 { break }
                await loop.sleep(milliseconds: tickMilliseconds)
                continue
            }
            let json = view.json.serialized()
            if view.transfer.state.isFinal {
                await surely(instance) { [self] in
                    if let function = callbacks.ended { withText(json) { function(context.foreign.pointer, handle, $0) } }
                }
                break
            }
            let now = (state: view.transfer.state, bytes: view.transfer.bytes)
            if callbacks.progress != nil, monotonicNanoseconds() >= toldAt + tickMilliseconds * 1_000_000, told.map({ $0 != now }) ?? true,
                await handover.run("transfer", on: instance, { [self] in
                    if let function = callbacks.progress { withText(json) { function(context.foreign.pointer, handle, $0) } }
                })
            {
                told = now
                toldAt = monotonicNanoseconds()
            }
            await loop.sleep(milliseconds: pause)
            pause = min(2 * pause, tickMilliseconds)
        }
        if instance.take(handle, WatchedTransfer.self) != nil { retire(handle, of: instance) }
    }

    /// An end is told once, however full the plugin's queue is at the moment.
    private func surely(_ instance: PluginInstance, _ work: @escaping @Sendable () -> Void) async {
        while !handover.isClosed, !(await handover.run("transfer", on: instance, work)) {
            await instance.environment.loop.sleep(milliseconds: 50)
        }
    }

    func retire(_: cm_handle, of instance: PluginInstance) {
        handover.close()
        context.end(on: instance)
    }
}

private func transferID(_ text: cm_text) throws(Problem) -> TransferID {
    guard let text = text.string(limit: 64), let id = TransferID(text) else {
        throw Problem(400, "plugin-argument", "`id` is no transfer id (26 characters, the first 0 to 7)")
    }
    return id
}

private func requirePlace(_ instance: PluginInstance) throws(Problem) {
    guard instance.count(of: WatchedTransfer.self) < watchedPerPlugin else {
        throw Problem(429, "plugin-too-many", "the plugin watches \(watchedPerPlugin) transfers already")
    }
}

func filesTransferStart(
    _ host: OpaquePointer, _ actor: cm_handle, _ specification: cm_text, _ callbacks: UnsafePointer<cm_transfer_callbacks>?,
    _ context: UnsafeMutableRawPointer?, _ transfer: UnsafeMutablePointer<cm_handle>, _ id: UnsafeMutablePointer<cm_buffer>,
    _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    let table = callbacks.map { adopt($0, empty: cm_transfer_callbacks()) } ?? cm_transfer_callbacks()
    let ends = CallbackContext(context, destroy: table?.destroy)
    transfer.pointee = CM_NO_HANDLE
    var isWatched = false
    let status = hostCall(host, .wait, "files.transfer_start", error: error) { instance in
        if let status = requireRoom(id, idBytes, error) { return status }
        return answering(error) { () throws(Problem) in
            guard let table else { throw Problem(400, "plugin-argument", "the head of the callbacks is not filled in") }
            guard let body = specification.bytes(limit: specificationBytes) else {
                throw .text("specification", atMost: specificationBytes)
            }
            let actor = try instance.actor(actor)
            if callbacks != nil { try requirePlace(instance) }
            let (kernel, forms) = (instance.environment.kernel, instance.environment.forms)
            let request = try forms.transferRequest(body)
            guard case .clients(let clients) = request.targets, clients.count == 1 else {
                throw Problem(400, "plugin-argument", "`specification` names one client in \"clients\"")
            }
            let made = try instance.waitForKernel { () async throws(Problem) in
                try actor.require(.createTransfers, kernel)
                return try await kernel.transfers.create(request, by: actor.principal)
            }
            guard let first = made.transfers.first?.transfer else { throw .notFound("there is no such client") }
            _ = id.fill("\(first.id)")
            guard callbacks != nil else { return CM_OK }
            let watch = WatchedTransfer(table, ends)
            let handle = instance.keep(watch)
            transfer.pointee = handle
            isWatched = true
            watch.begin(first.id, actor.principal, handle, on: instance)
            return CM_OK
        }
    }
    if !isWatched { ends.endNow() }
    return status
}

func filesTransferWatch(
    _ host: OpaquePointer, _ actor: cm_handle, _ id: cm_text, _ callbacks: UnsafePointer<cm_transfer_callbacks>,
    _ context: UnsafeMutableRawPointer?, _ transfer: UnsafeMutablePointer<cm_handle>, _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    let table = adopt(callbacks, empty: cm_transfer_callbacks())
    let ends = CallbackContext(context, destroy: table?.destroy)
    transfer.pointee = CM_NO_HANDLE
    let status = hostCall(host, .wait, "files.transfer_watch", error: error) { instance in
        answering(error) { () throws(Problem) in
            guard let table else { throw Problem(400, "plugin-argument", "the head of the callbacks is not filled in") }
            let actor = try instance.actor(actor)
            let number = try transferID(id)
            try requirePlace(instance)
            let kernel = instance.environment.kernel
            try instance.waitForKernel { () async throws(Problem) in
                try actor.require(.readTransfers, kernel)
                _ = try await kernel.transfers.get(number, actor.principal)
            }
            let watch = WatchedTransfer(table, ends)
            let handle = instance.keep(watch)
            transfer.pointee = handle
            watch.begin(number, actor.principal, handle, on: instance)
            return CM_OK
        }
    }
    if status != CM_OK { ends.endNow() }
    return status
}

func filesTransferUnwatch(_ host: OpaquePointer, _ handle: cm_handle) -> cm_status {
    hostCall(host, .any, "files.transfer_unwatch") { instance in
        guard let watched = instance.take(handle, WatchedTransfer.self) else { return CM_E_NOT_FOUND }
        watched.retire(handle, of: instance)
        return CM_OK
    }
}

func filesTransferCancel(
    _ host: OpaquePointer, _ actor: cm_handle, _ id: cm_text, _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    hostCall(host, .wait, "files.transfer_cancel", error: error) { instance in
        answering(error) { () throws(Problem) in
            let actor = try instance.actor(actor)
            let number = try transferID(id)
            let kernel = instance.environment.kernel
            try instance.waitForKernel { () async throws(Problem) in
                try actor.require(.cancelTransfers, kernel)
                _ = try await kernel.transfers.cancel(number, by: actor.principal)
            }
            return CM_OK
        }
    }
}

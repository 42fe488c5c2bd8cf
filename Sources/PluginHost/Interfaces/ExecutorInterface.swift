import CLinux
import CPluginABI
import Reactor
import Synchronization

let executorTable = HostTable(
    cm_executor(
        head: head(of: cm_executor.self), post: executorPost, blocking: executorBlocking, timer: executorTimer,
        timer_cancel: executorTimerCancel, now_ms: executorNow, is_own_thread: executorIsOwnThread))

private func executorPost(
    _ host: OpaquePointer, _ function: cm_function?, _ destroy: cm_function?, _ context: UnsafeMutableRawPointer?
) -> cm_status {
    let ends = CallbackContext(context, destroy: destroy)
    let status = hostCall(host, .any, "executor.post") { instance in
        guard let function else { return CM_E_INVALID }
        let work: @Sendable () -> Void = { [foreign = ends.foreign] in
            if !instance.isOver { function(foreign.pointer) }
            ends.endNow()
        }
        return instance.call("post", work) ? CM_OK : CM_E_BUSY
    }
    if status != CM_OK { ends.endNow() }
    return status
}

private func executorBlocking(
    _ host: OpaquePointer, _ function: cm_function?, _ destroy: cm_function?, _ context: UnsafeMutableRawPointer?
) -> cm_status {
    let ends = CallbackContext(context, destroy: destroy)
    let status = hostCall(host, .any, "executor.blocking") { instance in
        guard let function else { return CM_E_INVALID }
        let isTaken = instance.workers.submit {
            let former = cm_crash_enter(instance.generation)
            if !instance.isOver { function(ends.foreign.pointer) }
            ends.endNow()
            cm_crash_leave(former)
        }
        return isTaken ? CM_OK : CM_E_BUSY
    }
    if status != CM_OK { ends.endNow() }
    return status
}

/// Counts on the host's loop; its function runs on the plugin's thread. A firing that finds the last one still waiting is
/// left out: a slow plugin gets fewer, not a queue.
private final class PluginTimer: PluginResource {
    private let function: cm_function
    private let context: CallbackContext
    private let interval: UInt64
    private let isCancelled = Atomic<Bool>(false)
    private let isWaiting = Atomic<Bool>(false)

    init(_ function: cm_function, _ context: CallbackContext, interval: UInt64) {
        self.function = function
        self.context = context
        self.interval = interval
    }

    func arm(after milliseconds: UInt64, _ handle: cm_handle, _ instance: PluginInstance) {
        let loop = instance.environment.loop
        loop.onLoop { [self] in
            loop.schedule(Timer { self.fire(handle, instance) }, afterMilliseconds: milliseconds)
        }
    }

    private func fire(_ handle: cm_handle, _ instance: PluginInstance) {
        guard !isCancelled.load(ordering: .acquiring), !instance.isOver else { return }
        if !isWaiting.exchange(true, ordering: .relaxed) {
            let isTaken = instance.call("timer") { [self] in
                isWaiting.store(false, ordering: .relaxed)
                guard !isCancelled.load(ordering: .acquiring) else { return }
                function(context.foreign.pointer)
                if interval == 0, instance.forget(handle) != nil { context.endNow() }
            }
            if !isTaken { isWaiting.store(false, ordering: .relaxed) }
            // A timer that fires once is not lost because the queue was full for a moment.
            if !isTaken, interval == 0 { return arm(after: 10, handle, instance) }
        }
        if interval > 0 { arm(after: interval, handle, instance) }
    }

    func retire(_ handle: cm_handle, of instance: PluginInstance) {
        isCancelled.store(true, ordering: .releasing)
        context.end(on: instance)
    }
}

private func executorTimer(
    _ host: OpaquePointer, _ delay: UInt64, _ interval: UInt64, _ function: cm_function?, _ destroy: cm_function?,
    _ context: UnsafeMutableRawPointer?, _ timer: UnsafeMutablePointer<cm_handle>
) -> cm_status {
    let ends = CallbackContext(context, destroy: destroy)
    let status = hostCall(host, .any, "executor.timer") { instance in
        guard let function, delay <= 366 * 86_400_000, interval <= 366 * 86_400_000 else { return CM_E_INVALID }
        guard instance.count(of: PluginTimer.self) < 1_024 else { return CM_E_BUSY }
        let made = PluginTimer(function, ends, interval: interval)
        let handle = instance.keep(made)
        timer.pointee = handle
        made.arm(after: delay, handle, instance)
        return CM_OK
    }
    if status != CM_OK { ends.endNow() }
    return status
}

private func executorTimerCancel(_ host: OpaquePointer, _ handle: cm_handle) -> cm_status {
    hostCall(host, .any, "executor.timer_cancel") { instance in
        guard let timer = instance.resource(handle, PluginTimer.self) else { return CM_E_NOT_FOUND }
        instance.forget(handle)
        timer.retire(handle, of: instance)
        return CM_OK
    }
}

private func executorNow(_: OpaquePointer) -> UInt64 { unixMilliseconds() }

private func executorIsOwnThread(_ host: OpaquePointer) -> Int32 {
    Unmanaged<PluginInstance>.fromOpaque(UnsafeRawPointer(host))._withUnsafeGuaranteedRef { $0.thread.isCurrent ? 1 : 0 }
}

import CPluginABI
import Glibc

/// `cm.executor/1`: the plugin's own thread, its workers and timers. No Swift concurrency: its threads are not the core's,
/// and nothing of it may be left when the plugin stops.
public struct Executor: Sendable {
    let table: HostTable<cm_executor>

    /// Runs `work` on the plugin's own thread, in order; not after `stop`. Throws `.busy` when 4,096 wait.
    public func post(_ work: @escaping @Sendable () -> Void) throws(PluginError) {
        guard let post = table.functions.post else { throw .missing("cm.executor/1 post") }
        try check(post(table.context, runWork, releaseContext, Work.retained(work)), "cm.executor/1 post")
    }

    /// Runs `work` on one of the plugin's worker threads (at most 8), where it may block for long.
    public func blocking(_ work: @escaping @Sendable () -> Void) throws(PluginError) {
        guard let blocking = table.functions.blocking else { throw .missing("cm.executor/1 blocking") }
        try check(blocking(table.context, runWork, releaseContext, Work.retained(work)), "cm.executor/1 blocking")
    }

    /// Runs `work` on a worker thread, then `then` with its result on the plugin's own thread.
    public func blocking<Result: Sendable, State>(
        _ work: @escaping @Sendable () -> Result, then state: Confined<State>,
        _ then: @escaping @Sendable (State, Result) -> Void
    ) throws(PluginError) {
        let executor = self
        try blocking {
            let result = work()
            // A worker may block: it waits for room. Another refusal than `.busy` means that the plugin has stopped.
            for _ in 0..<30_000 {
                do throws(PluginError) {
                    return try executor.post { then(state.value, result) }
                } catch {
                    guard error.status == .busy else { return }
                    usleep(1000)
                }
            }
        }
    }

    /// Calls `work` on the plugin's own thread after `milliseconds`, then every `interval` (0: once), until `cancel`.
    @discardableResult
    public func timer(
        after milliseconds: UInt64, every interval: UInt64 = 0, _ work: @escaping () -> Void
    ) throws(PluginError) -> Registration {
        guard let timer = table.functions.timer else { throw .missing("cm.executor/1 timer") }
        var handle = CM_NO_HANDLE
        let status = timer(
            table.context, milliseconds, interval, runTimer, releaseContext,
            Unmanaged.passRetained(TimerContext(work)).toOpaque(), &handle)
        try check(status, "cm.executor/1 timer")
        return Registration(handle: handle)
    }

    public func cancel(_ timer: Registration) { _ = table.functions.timer_cancel?(table.context, timer.handle) }

    /// Unix time in milliseconds, by the core's clock.
    public var now: UInt64 { table.functions.now_ms?(table.context) ?? 0 }

    public var isOwnThread: Bool { table.functions.is_own_thread?(table.context) == 1 }
}

extension Host {
    public func executor() throws(PluginError) -> Executor {
        Executor(table: try interface(CM_INTERFACE_EXECUTOR, cm_executor()))
    }
}

private final class Work: Sendable {
    let run: @Sendable () -> Void
    private init(_ run: @escaping @Sendable () -> Void) { self.run = run }

    static func retained(_ run: @escaping @Sendable () -> Void) -> UnsafeMutableRawPointer {
        Unmanaged.passRetained(Work(run)).toOpaque()
    }
}

/// Confined to the own thread, where timers are called; the core calls `destroy` there as well.
private final class TimerContext {
    let run: () -> Void
    init(_ run: @escaping () -> Void) { self.run = run }
}

private func runWork(_ context: UnsafeMutableRawPointer?) { withContext(context, as: Work.self) { $0.run() } }
private func runTimer(_ context: UnsafeMutableRawPointer?) { withContext(context, as: TimerContext.self) { $0.run() } }

import CLinux
import Glibc
import Reactor
import Synchronization
import System

/// Callbacks on the core's loops, watched from outside: one that does not come back stops everything that the loop serves,
/// and nothing but the end of the process helps. The parent (`--respawn`) starts the core again without the plugin.
final class InlineWatch: Sendable {
    static let budgetNanoseconds: UInt64 = 5_000_000
    static let limitNanoseconds: UInt64 = 5_000_000_000

    /// One loop's present inline callback.
    final class Stamp: Sendable {
        fileprivate let since = Atomic<UInt64>(0)
        fileprivate let generation = Atomic<UInt64>(0)
    }

    private let stamps = Mutex<[Stamp]>([])
    private let isWatching = Atomic<Bool>(false)

    /// On the loop.
    private func stamp(of loop: EventLoop) -> Stamp {
        loop.resident { [self] _ in
            let stamp = Stamp()
            stamps.withLock { $0.append(stamp) }
            return stamp
        }
    }

    /// Runs a callback of this plugin here, on its loop. - Returns: nanoseconds that it took.
    func inside(_ generation: UInt64, on loop: EventLoop, _ body: () -> Void) -> UInt64 {
        let stamp = stamp(of: loop)
        let begin = monotonicNanoseconds()
        stamp.generation.store(generation, ordering: .relaxed)
        stamp.since.store(begin, ordering: .releasing)
        body()
        stamp.since.store(0, ordering: .releasing)
        return monotonicNanoseconds() - begin
    }

    /// Starts the thread that watches, once; for the first plugin that may run on loops.
    func begin() throws(SystemError) {
        guard !isWatching.exchange(true, ordering: .relaxed) else { return }
        try NativeThread.start(name: "plugin-watch") { [self] in
            let never = Monitor(())
            while true {
                never.wait(until: Deadline(milliseconds: 500).nanoseconds) { _ -> Void? in nil }
                let now = monotonicNanoseconds()
                for stamp in stamps.withLock({ $0 }) {
                    let since = stamp.since.load(ordering: .acquiring)
                    guard since != 0, now > since, now - since > Self.limitNanoseconds else { continue }
                    // The handler of faults blames the plugin that the thread is in.
                    _ = cm_crash_enter(stamp.generation.load(ordering: .relaxed))
                    abort()
                }
            }
        }
    }
}

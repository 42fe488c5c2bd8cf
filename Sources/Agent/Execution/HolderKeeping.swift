import Reactor
import System

/// An owner of holders, confined to its agent's loop. What other threads do for it comes back there.
protocol HolderKeeping: AnyObject, SendableMetatype {
    var loop: EventLoop { get }
}

extension HolderKeeping {
    /// Mail to the loop that opens there.
    func confined(_ body: @escaping @Sendable (Self) -> Void) -> @Sendable () -> Void {
        let box = Confined(self, on: loop)
        return { box.assumeOnLoop(body) }
    }

    /// A reply from another thread: opens on the loop with the value.
    func confined<Value: Sendable>(_ body: @escaping @Sendable (Self, Value) -> Void) -> @Sendable (Value) -> Void {
        let box = Confined(self, on: loop)
        return { value in box.post { body($0, value) } }
    }
}

/// What is to be done again after a failed disk or a full queue, one thing per key: the number of what is held bounds it.
/// Whose owner has gone fires for nobody.
final class LaterRetries<Key: Hashable> {
    private let loop: EventLoop
    private var timers: [Key: Timer] = [:]

    init(on loop: EventLoop) { self.loop = loop }

    /// - Parameter again: must not keep the owner alive.
    func schedule(_ key: Key, afterMilliseconds milliseconds: UInt64, _ again: @escaping () -> Void) {
        let timer = Timer { [weak self] in
            self?.timers[key] = nil
            again()
        }
        timers[key] = timer
        loop.schedule(timer, afterMilliseconds: milliseconds)
    }
}

/// Holders that are this process's children and have to be reaped.
final class HolderReaper {
    private let loop: EventLoop
    private var watches: [Int32: ProcessWatch] = [:]

    init(on loop: EventLoop) { self.loop = loop }

    func reap(_ holder: consuming ChildProcess) {
        let pid = holder.pid
        let watch = ProcessWatch(holder, on: loop) { [weak self] _ in self?.watches[pid] = nil }
        watches[pid] = watch
        do throws(ReactorError) { try loop.add(watch) } catch {
            // It stays a zombie until this process ends; no wrong answer comes of it.
            watches[pid] = nil
        }
    }
}

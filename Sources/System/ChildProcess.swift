import CLinux
import Glibc
import Reactor

/// How a process ended and what it used.
public struct ProcessEnd: Sendable, Equatable {
    public enum How: Sendable, Equatable {
        case exited(Int32)
        case signaled(Int32)
    }
    public var how: How
    public var userMicroseconds: UInt64
    public var systemMicroseconds: UInt64
    /// Of the process itself and the children that it waited for: the largest of them.
    public var maximumResidentBytes: UInt64
}

/// A child of this process. Not yet reaped, so its pid means no other process until `reap` has answered.
public struct ChildProcess: ~Copyable, Sendable {
    public let pid: pid_t
    /// Readable when the process has ended: for poll, or as `ProcessWatch` on a loop.
    public let descriptor: Descriptor
    /// Whether the child leads a process group of its own.
    public let group: Spawn.Group

    /// Takes over a child of this process and its pidfd: the way through a queue that carries only numbers.
    public init(pid: pid_t, descriptor: consuming Descriptor, group: Spawn.Group) {
        self.pid = pid
        self.descriptor = descriptor
        self.group = group
    }

    /// A child that this process had before it became its present program; `nil` when it cannot be watched.
    public init?(adopting pid: pid_t) {
        let number = cm_pidfd_open(pid)
        guard number >= 0 else { return nil }
        self.init(pid: pid, descriptor: Descriptor(owning: number), group: .none)
    }

    /// Gives the two numbers away; the caller closes the pidfd.
    public consuming func release() -> (pid: pid_t, descriptor: Int32) { (pid, descriptor.release()) }

    public func signal(_ number: Int32) {
        _ = cm_pidfd_signal(descriptor.number, number)
    }

    /// The whole group that the child leads (the child alone if it leads none). Right only before the reaping, or while
    /// the group still has members: afterwards the number may mean others.
    public func signalGroup(_ number: Int32) {
        if group == .none { signal(number) } else { kill(-pid, number) }
    }

    /// True while any process of the group exists, the unreaped child included.
    public var groupExists: Bool { kill(-pid, 0) == 0 || errno == EPERM }

    /// Takes the end without waiting; `nil` while it runs. Once it has answered, ask no more.
    public func reap() throws(SystemError) -> ProcessEnd? {
        var end = cm_exit()
        let status = cm_reap(pid, &end)
        guard status == 0 else { throw SystemError("wait4", "\(pid)", code: -status) }
        guard end.kind != 0 else { return nil }
        return ProcessEnd(
            how: end.kind == 2 ? .signaled(end.value) : .exited(end.value), userMicroseconds: end.user_us,
            systemMicroseconds: end.system_us, maximumResidentBytes: end.maximum_resident_bytes)
    }
}

/// The end of a child as an event of a loop: add it to the loop, it removes itself and calls `ended` once, with `nil`
/// if somebody else reaped the child.
public final class ProcessWatch: Source {
    private let child: ChildProcess
    private unowned let loop: EventLoop
    private var ended: ((ProcessEnd?) -> Void)?

    public var pid: pid_t { child.pid }

    public init(_ child: consuming ChildProcess, on loop: EventLoop, ended: @escaping (ProcessEnd?) -> Void) {
        let number = child.descriptor.number
        self.child = child
        self.loop = loop
        self.ended = ended
        super.init(descriptor: number)
    }

    public func signal(_ number: Int32) { child.signal(number) }
    public func signalGroup(_ number: Int32) { child.signalGroup(number) }

    public override func ready(_ readiness: Readiness) {
        guard let ended else { return }
        var end: ProcessEnd?
        do throws(SystemError) {
            end = try child.reap()
            if end == nil { return }
        } catch {}
        self.ended = nil
        loop.remove(self)
        ended(end)
    }
}

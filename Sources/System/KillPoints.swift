import Glibc
import Synchronization

/// Named places where a test lets the process die as by `kill -9`: before and after journal writes, sends,
/// acknowledgements and renames.
///
/// `CM_KILL_AT=<point>[:n]` ends the process when it comes to `point` for the n-th time (default 1). It counts only
/// with `CM_KILL_POINTS=1`; `CM_KILL_AT` without that is refused by `KillPoints.check()` when a program starts.
/// The environment is process-wide and read once, hence the one process-wide value here.
public enum KillPoints {
    fileprivate static let armed: ArmedPoint? = ArmedPoint(
        at: environment("CM_KILL_AT"), enabled: environment("CM_KILL_POINTS") == "1")

    /// What is wrong with the two variables, for a program to print before it ends with a usage error; `nil`: nothing.
    public static func problem() -> String? {
        guard let at = environment("CM_KILL_AT") else { return nil }
        guard environment("CM_KILL_POINTS") == "1" else {
            return "CM_KILL_AT=\(at) is for tests and counts only with CM_KILL_POINTS=1; unset it"
        }
        guard ArmedPoint(at: at, enabled: true) != nil else {
            return "CM_KILL_AT=\(at) is not of the form <point> or <point>:<n> with n from 1 on"
        }
        return nil
    }

    private static func environment(_ name: String) -> String? {
        getenv(name).map { String(cString: $0) }
    }
}

/// Marks the place `name`. Free (one load) unless a test armed it.
@inline(__always)
public func killPoint(_ name: StaticString) {
    if let armed = KillPoints.armed { armed.reached(name) }
}

private final class ArmedPoint: Sendable {
    private let point: String
    private let remaining: Atomic<Int>

    init?(at text: String?, enabled: Bool) {
        guard let text, enabled else { return nil }
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count <= 2, let name = parts.first, !name.isEmpty else { return nil }
        var count = 1
        if parts.count == 2 {
            guard let number = Int(parts[1]), number > 0 else { return nil }
            count = number
        }
        point = String(name)
        remaining = Atomic(count)
    }

    func reached(_ name: StaticString) {
        let same = name.withUTF8Buffer { $0.elementsEqual(point.utf8) }
        guard same, remaining.subtract(1, ordering: .relaxed).newValue == 0 else { return }
        kill(getpid(), SIGKILL)
        // SIGKILL acts before the call returns to user space for a single thread, soon for the others: wait for it.
        while true { pause() }
    }
}

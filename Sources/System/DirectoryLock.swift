import Glibc

/// One process per directory: holds `DIR/lock` (`flock`) from `init` until it is released or the process ends.
public final class DirectoryLock: Sendable {
    private let file: Descriptor

    /// Does not wait. `wouldBlock` in the error means that another process has the directory.
    public init(directory: String, name: String = "lock") throws(SystemError) {
        let path = directory + "/" + name
        file = try Descriptor.open(path, O_RDWR | O_CREAT | O_NOFOLLOW)
        try file.lock(subject: path)
    }

    /// Unlocks, not only closes: a child that another thread is just starting holds a copy of the descriptor until its
    /// exec, and the lock would live as long as that.
    deinit { _ = flock(file.number, LOCK_UN) }

    /// True when some process holds the lock now. A missing file is not held.
    public static func isHeld(directory: String, name: String = "lock") throws(SystemError) -> Bool {
        let path = directory + "/" + name
        do {
            let file = try Descriptor.open(path, O_RDONLY | O_NOFOLLOW)
            try file.lock(shared: true, subject: path)
            return false
        } catch {
            if error.wouldBlock { return true }
            if error.isMissing { return false }
            throw error
        }
    }
}

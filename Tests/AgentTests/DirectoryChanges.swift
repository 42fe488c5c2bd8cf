import CLinux
import Glibc
import Reactor
import System

/// Waits for what another thread does in a directory: looks again at each change, for half a minute at most.
func waitForChanges(of directory: String, until isMet: () throws -> Bool) throws -> Bool {
    let number = cm_directory_watch(directory)
    guard number >= 0 else { throw SystemError("inotify", directory, code: -number) }
    let watch = Descriptor(owning: number)
    let end = monotonicNanoseconds() + 30_000_000_000
    while try !isMet() {
        let now = monotonicNanoseconds()
        guard now < end else { return false }
        var item = pollfd(fd: watch.number, events: Int16(POLLIN), revents: 0)
        _ = poll(&item, 1, Int32((end - now) / 1_000_000) + 1)
        _ = cm_directory_watch_drain(watch.number)
    }
    return true
}

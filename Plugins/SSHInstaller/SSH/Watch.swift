import Glibc
import Synchronization

/// The end that somebody else may put to a wait: every wait of an installation looks at one of these, so that cancelling
/// takes effect at once. Any thread.
final class Watch: Sendable {
    /// A pipe: its reading end becomes ready with `cancel`.
    private let reader: Int32
    private let writer: Int32
    private let isOver = Atomic(false)

    init() {
        var ends: [Int32] = [-1, -1]
        // Without a pipe a cancelled wait goes on until its deadline, which every wait has.
        if pipe(&ends) == 0 {
            for end in ends {
                _ = fcntl(end, F_SETFD, FD_CLOEXEC)
                _ = fcntl(end, F_SETFL, O_NONBLOCK)
            }
        }
        (reader, writer) = (ends[0], ends[1])
    }

    deinit { for descriptor in [reader, writer] where descriptor >= 0 { close(descriptor) } }

    var isCancelled: Bool { isOver.load(ordering: .acquiring) }

    func cancel() {
        isOver.store(true, ordering: .releasing)
        var one: UInt8 = 1
        _ = write(writer, &one, 1)
    }

    /// Waits until the socket is ready, the time has come or the watch is cancelled; a socket of -1 is never ready.
    /// - Returns: whether the socket is ready.
    /// - Throws: `cancelled`.
    @discardableResult
    func wait(_ socket: Int32, _ events: Int32, until deadline: Deadline, atMost slice: Int32 = .max) throws(Failure) -> Bool {
        guard !isCancelled else { throw .cancelled }
        var items = [
            pollfd(fd: reader, events: Int16(POLLIN), revents: 0), pollfd(fd: socket, events: Int16(events), revents: 0),
        ]
        let milliseconds = min(deadline.millisecondsLeft, slice)
        // An interrupted wait is one that ended early: whoever waits looks again.
        _ = poll(&items, socket < 0 ? 1 : 2, milliseconds)
        guard !isCancelled else { throw .cancelled }
        return items[1].revents != 0
    }
}

/// A point of the monotonic clock.
struct Deadline: Sendable {
    private let nanoseconds: UInt64

    init(seconds: Double) { nanoseconds = Self.now + UInt64(seconds * 1e9) }

    static var now: UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }

    var isOver: Bool { Self.now >= nanoseconds }

    var millisecondsLeft: Int32 {
        let now = Self.now
        return now >= nanoseconds ? 0 : Int32(clamping: (nanoseconds - now + 999_999) / 1_000_000)
    }
}

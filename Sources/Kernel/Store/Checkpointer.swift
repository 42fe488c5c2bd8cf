import Reactor
import Synchronization
import System

/// Moves the write-ahead log into the database on a thread and connection of its own, so that the writer does not
/// stand still for it.
///
/// `@unchecked Sendable`: the flags are atomics; connection and file belong to the checkpointer's thread from `start` on.
final class Checkpointer: @unchecked Sendable {
    private let doorbell = Doorbell()
    private let wanted = Atomic<Bool>(false)
    private let running = Atomic<Bool>(false)
    private let moved = Atomic<Bool>(false)
    private let stopping = Atomic<Bool>(false)
    private let connection: Connection
    /// The database once more. A process that closes any descriptor of a file loses its locks of it, SQLite's too (fcntl(2)):
    /// this one stays open as long as the writer's thread, which ends last, has this object. A core opens its database once.
    private let file: Descriptor
    private let threshold: Int
    private let fault: StoreFault
    private let statistics: StoreStatistics

    init(_ connection: sending Connection, file: consuming Descriptor, threshold: Int, fault: StoreFault, statistics: StoreStatistics) {
        self.connection = connection
        self.file = file
        self.threshold = threshold
        self.fault = fault
        self.statistics = statistics
    }

    /// On the writer thread, between two commits. `finish` moves the rest; the log then starts over.
    func afterCommit(logPages: Int, finish: () -> Void) {
        guard logPages >= threshold, !running.load(ordering: .acquiring), fault.error == nil else { return }
        if moved.exchange(false, ordering: .acquiringAndReleasing) {
            finish()
        } else {
            running.store(true, ordering: .releasing)
            wanted.store(true, ordering: .sequentiallyConsistent)
            doorbell.ring()
        }
    }

    func stop() {
        stopping.store(true, ordering: .sequentiallyConsistent)
        doorbell.ring()
    }

    func run() {
        defer { connection.close() }
        while true {
            if stopping.load(ordering: .sequentiallyConsistent) { return }
            if wanted.exchange(false, ordering: .sequentiallyConsistent) {
                move()
                running.store(false, ordering: .releasing)
                continue
            }
            doorbell.wait {
                wanted.load(ordering: .sequentiallyConsistent) || stopping.load(ordering: .sequentiallyConsistent)
            }
        }
    }

    private func move() {
        do throws(StoreError) {
            _ = try connection.checkpoint()
            writeOut()
            statistics.checkpoints.wrappingAdd(1, ordering: .relaxed)
            moved.store(true, ordering: .releasing)
        } catch {
            // Out of space: the log grows, and the next commit asks again. A failed sync: the end of the store.
            fault.note(error, during: .checkpoint)
        }
    }

    private static let piece = 1 << 20

    /// Before the log starts over the writer has to sync the database, and every commit waits for that. What was moved goes to
    /// the disk here, in pieces, so that commits find their turn in between: 5 ms of the writer's time become 0.6 (see
    /// Docs/decisions/0007-commands-per-cpu-second.md). A sync here would hold them up as long as one there.
    private func writeOut() {
        guard let size = try? file.status().size else { return }
        for offset in stride(from: 0, to: size, by: Self.piece) {
            if stopping.load(ordering: .sequentiallyConsistent) { return }
            file.writeOut(from: offset, count: Self.piece)
        }
    }
}

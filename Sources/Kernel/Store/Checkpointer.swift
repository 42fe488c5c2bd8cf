import Reactor
import Synchronization

/// Moves the write-ahead log into the database on a thread and connection of its own, so that the writer does not
/// stand still for it.
///
/// `@unchecked Sendable`: the flags are atomics; the connection belongs to the checkpointer's thread from `start` on.
final class Checkpointer: @unchecked Sendable {
    private let doorbell = Doorbell()
    private let wanted = Atomic<Bool>(false)
    private let running = Atomic<Bool>(false)
    private let moved = Atomic<Bool>(false)
    private let stopping = Atomic<Bool>(false)
    private let connection: Connection
    private let threshold: Int
    private let fault: StoreFault
    private let statistics: StoreStatistics

    init(_ connection: sending Connection, threshold: Int, fault: StoreFault, statistics: StoreStatistics) {
        self.connection = connection
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
            statistics.checkpoints.wrappingAdd(1, ordering: .relaxed)
            moved.store(true, ordering: .releasing)
        } catch {
            // Out of space: the log grows, and the next commit asks again. A failed sync: the end of the store.
            fault.note(error, during: .checkpoint)
        }
    }
}

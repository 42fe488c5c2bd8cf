import AgentProtocol
import Glibc
import Synchronization
import System
import Testing

@testable import Kernel

/// A disk that fails to sync, once: what it says afterwards proves nothing about what was written before.
@Suite struct OutputFaultTests {
    private final class Disk: Sendable {
        let syncs = Mutex(0)

        @Sendable func flush(_ file: borrowing Descriptor, _ path: String) throws(SystemError) {
            let isFirst = syncs.withLock { count in
                count += 1
                return count == 1
            }
            if isFirst { throw SystemError("fdatasync", path, code: EIO) }
        }
    }

    @Test func aFailedSyncIsFinal() throws {
        let directory = CommandsDirectory()
        let disk = Disk()
        var writer = SegmentWriter(SegmentDirectory(path: directory.path), after: 0, flush: disk.flush)
        _ = try writer.append([1, 2, 3])
        #expect(throws: SystemError.self) { try writer.sync() }
        #expect(throws: SystemError.self) { try writer.sync() }
        #expect(throws: SystemError.self) { _ = try writer.append([4]) }
        #expect(disk.syncs.withLock { $0 } == 1)
    }

    /// A busy disk writes many pieces in one go; none of them may leave anything behind.
    @Test(.timeLimit(.minutes(2))) func manyPiecesCostNoMoreThanOne() async throws {
        let directory = CommandsDirectory()
        let store = try OutputStore(directory: directory.path) { (_, _) throws(SystemError) in }
        let written = Mutex(0)
        store.setOnWritten { _ in written.withLock { $0 += 1 } }
        let client = ClientID(high: 1, low: 1)
        let output = LiveOutput(command: CommandID(high: 1, low: 3), client: client, limit: 1 << 30)
        let link = FakeLink(client)
        let piece = [UInt8](repeating: 7, count: LiveOutput.inlineBytes + 1)
        let pieces = 12_000
        for number in 0..<pieces {
            let isTaken = store.take(
                output, .standardOutput, at: UInt64(number * piece.count), piece.span.bytes, from: link)
            guard isTaken, await store.commit(output) else {
                Issue.record("piece \(number) was not taken")
                return
            }
        }
        #expect(written.withLock { $0 } == pieces)
        store.stop()
    }

    @Test func noEndIsRecordedWhoseOutputDidNotComeToTheDisk() async throws {
        let directory = CommandsDirectory()
        let disk = Disk()
        let store = try OutputStore(directory: directory.path, flush: disk.flush)
        let client = ClientID(high: 1, low: 1)
        let output = LiveOutput(command: CommandID(high: 1, low: 2), client: client, limit: 1 << 20)
        let bytes = [UInt8](repeating: 7, count: LiveOutput.inlineBytes + 1)
        let isTaken = store.take(output, .standardOutput, at: 0, bytes.span.bytes, from: FakeLink(client))
        #expect(isTaken)
        let first = Task { await store.commit(output) }
        while store.backlog.fault == nil { await Task.yield() }
        let second = Task { await store.commit(output) }
        #expect(disk.syncs.withLock { $0 } == 1)
        store.stop()
        #expect(await first.value == false)
        #expect(await second.value == false)
        #expect(disk.syncs.withLock { $0 } == 1)
    }
}

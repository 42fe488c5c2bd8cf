import Glibc
import Reactor
import Synchronization
import Testing

@Suite struct EventLoopTests {
    func withLoop(_ body: (EventLoop) async throws -> Void) async throws {
        let loop = try EventLoop.start(name: "test")
        try await body(loop)
        loop.stop()
    }

    @Test func mailRunsOnTheLoopInOrder() async throws {
        try await withLoop { loop in
            let seen: [Int] = await withCheckedContinuation { continuation in
                let list = Mutex<[Int]>([])
                let box = Shared(list: list)
                for index in 0..<1_000 {
                    loop.post {
                        loop.preconditionCurrent()
                        let whole = box.list.withLock { list in
                            list.append(index)
                            return list
                        }
                        if whole.count == 1_000 { continuation.resume(returning: whole) }
                    }
                }
            }
            #expect(seen == Array(0..<1_000))
        }
    }

    @Test func spawnedTasksStayOnTheLoopAfterEachAwait() async throws {
        try await withLoop { loop in
            let stayed: Bool = await withCheckedContinuation { continuation in
                loop.spawn {
                    var stayed = loop.isCurrent
                    await helper()
                    stayed = stayed && loop.isCurrent
                    await withUnsafeContinuation { (inner: UnsafeContinuation<Void, Never>) in
                        resumeElsewhere(inner)
                    }
                    stayed = stayed && loop.isCurrent
                    await loop.sleep(milliseconds: 1)
                    continuation.resume(returning: stayed && loop.isCurrent)
                }
            }
            #expect(stayed)
        }
    }

    @Test func timersFireByDeadlineAndCancelledOnesDoNot() async throws {
        try await withLoop { loop in
            let order: [Int] = await withCheckedContinuation { continuation in
                loop.post {
                    let fired = Fired()
                    for delay in [30, 10, 20, 5] {
                        loop.schedule(Timer { fired.list.append(delay) }, afterMilliseconds: UInt64(delay))
                    }
                    let cancelled = Timer { fired.list.append(-1) }
                    loop.schedule(cancelled, afterMilliseconds: 15)
                    loop.cancel(cancelled)
                    loop.schedule(Timer { continuation.resume(returning: fired.list) }, afterMilliseconds: 40)
                }
            }
            #expect(order == [5, 10, 20, 30])
        }
    }

    @Test func sourceHearsOfBytesAndNotAfterItsRemoval() async throws {
        var ends: [Int32] = [0, 0]
        #expect(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
        let (mine, theirs) = (ends[0], ends[1])
        defer {
            close(mine)
            close(theirs)
        }
        try await withLoop { loop in
            let heard: UInt8 = await withCheckedContinuation { continuation in
                loop.post {
                    let source = Reader(descriptor: mine) { reader, byte in
                        loop.remove(reader)
                        continuation.resume(returning: byte)
                    }
                    try? loop.add(source)
                }
                var byte: UInt8 = 42
                write(theirs, &byte, 1)
            }
            #expect(heard == 42)
            write(theirs, "x", 1)  // A second event would resume the continuation twice and trap.
            await withCheckedContinuation { continuation in loop.post { continuation.resume() } }
        }
    }

    /// What the peer takes wakes nobody who has not asked; who asks hears at once of room that is there already.
    @Test func roomToWriteIsToldOnlyToWhoAsks() async throws {
        var ends: [Int32] = [0, 0]
        #expect(socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue), 0, &ends) == 0)
        let (mine, theirs) = (ends[0], ends[1])
        defer {
            close(mine)
            close(theirs)
        }
        try await withLoop { loop in
            let heard: [Bool] = await withCheckedContinuation { continuation in
                loop.post {
                    let fired = Writable(descriptor: mine) { loop.remove($0); continuation.resume(returning: $0.heard) }
                    do { try loop.add(fired, writable: false) } catch { Issue.record(error) }
                    var byte: UInt8 = 1
                    send(mine, &byte, 1, Int32(MSG_NOSIGNAL))
                    recv(theirs, &byte, 1, 0)
                    // A byte of the peer makes a turn in which room to write would have been told, too.
                    send(theirs, &byte, 1, Int32(MSG_NOSIGNAL))
                    loop.schedule(Timer { loop.watchWritable(fired, true) }, afterMilliseconds: 5)
                }
            }
            #expect(heard == [false, true])
        }
    }

    @Test func stopEndsTheThread() throws {
        let loop = try EventLoop.start(name: "test")
        loop.stop()
        loop.join()
        loop.post {}
    }
}

private func helper() async {}

private func resumeElsewhere(_ continuation: UnsafeContinuation<Void, Never>) {
    Task.detached { continuation.resume() }
}

private final class Shared: Sendable {
    let list: Mutex<[Int]>
    init(list: consuming sending Mutex<[Int]>) { self.list = list }
}

private final class Fired {
    var list: [Int] = []
}

private final class Reader: Source {
    let heard: (Reader, UInt8) -> Void
    init(descriptor: Int32, heard: @escaping (Reader, UInt8) -> Void) {
        self.heard = heard
        super.init(descriptor: descriptor)
    }
    override func ready(_ readiness: Readiness) {
        var byte: UInt8 = 0
        while recv(descriptor, &byte, 1, Int32(MSG_DONTWAIT)) == 1 { heard(self, byte) }
    }
}

/// Reads what comes, and notes of each event whether it told of room to write; done with the first that did.
private final class Writable: Source {
    private(set) var heard: [Bool] = []
    private let done: (Writable) -> Void
    init(descriptor: Int32, _ done: @escaping (Writable) -> Void) {
        self.done = done
        super.init(descriptor: descriptor)
    }
    override func ready(_ readiness: Readiness) {
        var byte: UInt8 = 0
        while recv(descriptor, &byte, 1, Int32(MSG_DONTWAIT)) == 1 {}
        heard.append(readiness.contains(.writable))
        if readiness.contains(.writable) { done(self) }
    }
}

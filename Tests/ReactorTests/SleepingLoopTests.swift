import Glibc
import Reactor
import Synchronization
import Testing

/// A loop that sleeps has its mail done by the loop that posts it; nobody may notice, except by the clock.
@Suite(.timeLimit(.minutes(2))) struct SleepingLoopTests {
    /// Both with nothing to do, so that their threads sleep without an end.
    private func withLoops(_ body: (EventLoop, EventLoop) async throws -> Void) async throws {
        let first = try EventLoop.start(name: "first")
        let second = try EventLoop.start(name: "second")
        try await body(first, second)
        for loop in [first, second] {
            loop.stop()
            loop.join()
        }
    }

    /// Runs `work` on `second` by mail from `first`, in which nothing else is going on.
    private func through(_ first: EventLoop, _ second: EventLoop, _ work: @escaping @Sendable () -> Void) {
        first.post { second.post(work) }
    }

    @Test func aMessageGoesBackAndForthAndEachRunsOnItsLoop() async throws {
        try await withLoops { first, second in
            await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
                volley(20_000, first, second) { continuation.resume() }
            }
        }
    }

    @Test func aTimerThatSuchMailSetsFires() async throws {
        try await withLoops { first, second in
            for _ in 0..<50 {
                await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
                    through(first, second) {
                        second.schedule(Timer { continuation.resume() }, afterMilliseconds: 2)
                    }
                }
            }
            // Earlier than one that its thread waits for already.
            await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
                second.post { second.schedule(Timer {}, afterMilliseconds: 600_000) }
                through(first, second) {
                    second.schedule(Timer { continuation.resume() }, afterMilliseconds: 2)
                }
            }
        }
    }

    @Test func whatSuchMailPostsToItsOwnLoopRuns() async throws {
        try await withLoops { first, second in
            let count = await withCheckedContinuation { continuation in
                through(first, second) { countDown(1_000, 0, on: second) { continuation.resume(returning: $0) } }
            }
            #expect(count == 1_000)
        }
    }

    @Test func aTaskOfSuchMailStaysOnItsLoop() async throws {
        try await withLoops { first, second in
            let stayed: Bool = await withCheckedContinuation { continuation in
                through(first, second) {
                    second.spawn {
                        var stayed = true
                        for _ in 0..<100 {
                            await withUnsafeContinuation { (inner: UnsafeContinuation<Void, Never>) in
                                first.post { inner.resume() }
                            }
                            stayed = stayed && second.isCurrent
                        }
                        continuation.resume(returning: stayed)
                    }
                }
            }
            #expect(stayed)
        }
    }

    @Test func aSourceIsAddedAndRemovedBySuchMail() async throws {
        try await withLoops { first, second in
            for round in 0..<200 {
                var ends: [Int32] = [0, 0]
                try #require(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
                let (mine, theirs) = (ends[0], ends[1])
                let counter = Counted()
                await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
                    through(first, second) {
                        let source = Listening(descriptor: mine, counter) { continuation.resume() }
                        counter.keep(source)
                        do { try second.add(source) } catch { Issue.record(error) }
                    }
                    poke(theirs)
                }
                // The bytes come while it is removed: it may hear of them before, never after.
                await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
                    through(first, second) {
                        counter.drop { second.remove($0) }
                        close(mine)
                        counter.close()
                        continuation.resume()
                    }
                    for _ in 0..<(round % 8) { poke(theirs) }
                }
                close(theirs)
                #expect(counter.late == 0)
            }
        }
    }

    /// Mail of two loops and of threads that are none, while bytes arrive: nothing is lost, each sender's order is kept, and
    /// what belongs to the loop is touched by one at a time.
    @Test func nothingIsLostOrOutOfOrderUnderLoad() async throws {
        try await withLoops { first, second in
            var ends: [Int32] = [0, 0]
            try #require(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
            let (mine, theirs) = (ends[0], ends[1])
            defer { close(theirs) }
            let ledger = Ledger()
            second.post {
                do { try second.add(ByteCounter(descriptor: mine, ledger)) } catch { Issue.record(error) }
            }
            let threads = 3, each = 20_000
            await withTaskGroup(of: Void.self) { group in
                for sender in 0..<threads {
                    group.addTask {
                        for number in 0..<each {
                            if sender == 0 {
                                first.post { second.post { ledger.note(sender, number, on: second) } }
                            } else {
                                second.post { ledger.note(sender, number, on: second) }
                            }
                            if number % 64 == 0 {
                                poke(theirs)
                                sched_yield()
                            }
                        }
                    }
                }
            }
            await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
                first.post { second.post { second.post { continuation.resume() } } }
            }
            let seen = await withCheckedContinuation { continuation in
                second.post { continuation.resume(returning: ledger.seen) }
            }
            #expect(seen.noted == threads * each)
            #expect(seen.disorder == 0)
            close(mine)
        }
    }
}

/// One byte; the other end may be closed already.
private func poke(_ descriptor: Int32) {
    var byte: UInt8 = 1
    send(descriptor, &byte, 1, Int32(MSG_NOSIGNAL))
}

private func volley(_ left: Int, _ here: EventLoop, _ there: EventLoop, _ done: @escaping @Sendable () -> Void) {
    here.post {
        here.preconditionCurrent()
        if left == 0 { done() } else { volley(left - 1, there, here, done) }
    }
}

private func countDown(_ left: Int, _ count: Int, on loop: EventLoop, _ done: @escaping @Sendable (Int) -> Void) {
    guard left > 0 else { return done(count) }
    loop.post { countDown(left - 1, count + 1, on: loop, done) }
}

/// `@unchecked Sendable`: touched only on the second loop, which is what the test is about.
private final class Ledger: @unchecked Sendable {
    struct Seen: Sendable {
        var noted = 0
        var disorder = 0
        var bytes = 0
    }
    private(set) var seen = Seen()
    private var next = [Int: Int]()
    private var isInside = false

    func note(_ sender: Int, _ number: Int, on loop: EventLoop) {
        loop.preconditionCurrent()
        enter()
        if next[sender, default: 0] != number { seen.disorder += 1 }
        next[sender] = number + 1
        seen.noted += 1
        isInside = false
    }

    func byte() {
        enter()
        seen.bytes += 1
        isInside = false
    }

    private func enter() {
        precondition(!isInside, "two threads run one loop")
        isInside = true
    }
}

private final class ByteCounter: Source {
    private let ledger: Ledger
    init(descriptor: Int32, _ ledger: Ledger) {
        self.ledger = ledger
        super.init(descriptor: descriptor)
    }
    override func ready(_ readiness: Readiness) {
        var byte: UInt8 = 0
        while recv(descriptor, &byte, 1, Int32(MSG_DONTWAIT)) == 1 { ledger.byte() }
    }
}

/// `@unchecked Sendable`: on the second loop only, but for `late`, which is read when that has nothing more to do.
private final class Counted: @unchecked Sendable {
    private var source: Listening?
    private var isClosed = false
    private(set) var late = 0
    func keep(_ source: Listening) { self.source = source }
    func drop(_ body: (Listening) -> Void) {
        if let source { body(source) }
        source = nil
    }
    func close() { isClosed = true }
    func heard() { if isClosed { late += 1 } }
}

private final class Listening: Source {
    private let counter: Counted
    private var first: (() -> Void)?
    init(descriptor: Int32, _ counter: Counted, _ first: @escaping () -> Void) {
        self.counter = counter
        self.first = first
        super.init(descriptor: descriptor)
    }
    override func ready(_ readiness: Readiness) {
        counter.heard()
        first?()
        first = nil
    }
}

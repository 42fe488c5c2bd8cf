import Kernel
import Reactor
import Synchronization
import Testing
import Transport

@testable import Web

/// Counts and keeps what a request told it; grants as much body as it is told to.
private final class Recorder: ExchangeReceiver {
    let handle: ResponseHandle
    let bytes = Mutex<[UInt8]>([])
    let ended = TestLatch()
    let drains = Atomic<Int>(0)
    let onBody: @Sendable (Recorder, Int) -> Void

    init(_ handle: ResponseHandle, onBody: @escaping @Sendable (Recorder, Int) -> Void = { _, _ in }) {
        self.handle = handle
        self.onBody = onBody
    }
    func body(_ piece: RawSpan, isLast: Bool) {
        let count = piece.byteCount
        piece.withUnsafeBytes { piece in bytes.withLock { $0.append(contentsOf: piece) } }
        if isLast { ended.open() } else { onBody(self, count) }
    }
    func drained() { drains.add(1, ordering: .relaxed) }
}

@Suite struct StreamedBodyTests {
    private func upload(limit: Int = 64 << 20) -> Route {
        Route(
            .put, "/upload", right: "client.read", "t", body: .stream(limit: limit), answers: [], auditedRead: "upload"
        ) { (request) async throws(Problem) in
            guard let stream = request.stream else { throw .invalid("no stream") }
            var count = 0
            var sum = 0
            while let piece = try await stream.next() {
                count += piece.count
                sum = piece.reduce(sum) { ($0 &* 31 &+ Int($1)) & 0xFFFF_FFFF }
            }
            return .text("\(count) \(sum)")
        }
    }

    private func sum(_ bytes: [UInt8]) -> Int { bytes.reduce(0) { ($0 &* 31 &+ Int($1)) & 0xFFFF_FFFF } }
    private let pattern = (0..<3_000_000).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 9) }

    @Test func aBodyWithLengthAndAChunkedOneArriveWhole() async throws {
        let web = try await WebFixture([upload()])
        #expect(try web.call("PUT", "/upload", body: pattern).hasSuffix("3000000 \(sum(pattern))"))
        let client = try web.client()
        try client.send("PUT /upload HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nAuthorization: Bearer reader\r\n\r\n")
        for start in stride(from: 0, to: pattern.count, by: 70_001) {
            let piece = Array(pattern[start..<min(start + 70_001, pattern.count)])
            try client.send(String(piece.count, radix: 16) + "\r\n")
            try client.send(piece + [13, 10])
        }
        try client.send("0\r\n\r\n")
        #expect(client.rest().hasSuffix("3000000 \(sum(pattern))"))
        #expect(try web.call("PUT", "/upload").hasSuffix("0 0"))
        #expect(web.gate.records.withLock { $0.count } == 3)
    }

    @Test func aBodyEndsWithItsCredential() async throws {
        let web = try await WebFixture([upload()])
        let client = try web.client()
        try client.send("PUT /upload HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer reader\r\nExpect: 100-continue\r\nContent-Length: 9000000\r\n\r\n")
        #expect(client.until("\r\n\r\n").hasPrefix("HTTP/1.1 100"))
        try client.send([1, 2, 3])
        web.gate.end("reader")
        #expect(client.until("revoked").contains("401"), "long before its end")
    }

    @Test func nothingIsReadOfThoseWhoMayNot() async throws {
        let web = try await WebFixture([upload()])
        for (token, status) in [(nil, "401"), ("nobody", "403"), ("limited", "429")] as [(String?, String)] {
            let client = try web.client()
            let field = token.map { "Authorization: Bearer \($0)\r\n" } ?? ""
            try client.send("PUT /upload HTTP/1.1\r\nHost: 127.0.0.1\r\n\(field)Expect: 100-continue\r\nContent-Length: 9\r\n\r\n")
            let answer = client.until("\r\n\r\n")
            #expect(answer.hasPrefix("HTTP/1.1 \(status)"), "\(answer)")
        }
    }

    @Test(arguments: ["/upload", "/whole"])
    func whoMayIsToldToGoOn(_ path: String) async throws {
        let whole = Route(
            .put, "/whole", right: "client.read", "t", body: .bytes(contentType: "a/b", limit: 100), answers: []
        ) { (request) async throws(Problem) in .text("\(request.body.count) whole") }
        let web = try await WebFixture([upload(limit: 100), whole])
        let client = try web.client()
        let head = "PUT \(path) HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nExpect: 100-continue\r\n"
        try client.send(head + "Authorization: Bearer reader\r\nContent-Length: 5\r\n\r\n")
        #expect(client.until("\r\n\r\n") == "HTTP/1.1 100 Continue\r\n\r\n")
        try client.send("hello")
        #expect(client.rest().contains("\r\n\r\n5 "))
        let stranger = try web.client()
        try stranger.send(head + "Content-Length: 5\r\n\r\n")
        #expect(stranger.until("\r\n\r\n").hasPrefix("HTTP/1.1 401"))
        let large = try web.client()
        try large.send(head + "Authorization: Bearer reader\r\nContent-Length: 101\r\n\r\n")
        #expect(large.until("\r\n\r\n").hasPrefix("HTTP/1.1 413"))
    }

    @Test func aChunkedBodyBeyondTheLimitIsRefused() async throws {
        let web = try await WebFixture([upload(limit: 1_000)])
        let client = try web.client()
        try client.send("PUT /upload HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\nAuthorization: Bearer reader\r\n\r\n3e9\r\n")
        try client.send([UInt8](repeating: 0x61, count: 1_001))
        #expect(client.until("\r\n\r\n").hasPrefix("HTTP/1.1 413"))
    }

    @Test func theSenderWaitsWhileTheHandlerDoesNotTake() async throws {
        let (entered, leave) = (TestLatch(), TestLatch())
        let slow = Route(.put, "/upload", right: "client.read", "t", body: .stream(limit: 1 << 30), answers: []) {
            (request) async throws(Problem) in
            var count = try await request.stream?.next()?.count ?? 0
            entered.open()
            await leave.wait()
            while let piece = try await request.stream?.next() { count += piece.count }
            return .text("\(count) bytes")
        }
        let web = try await WebFixture([slow])
        let client = try web.client()
        let total = 64 << 20
        try client.send("PUT /upload HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Length: \(total)\r\nAuthorization: Bearer reader\r\n\r\n")
        try client.send([0x61])
        await entered.wait()
        let piece = [UInt8](repeating: 0x61, count: 1 << 20)
        var sent = 1
        // The kernel's buffers of both sides and 256 KiB of ours, then no more until somebody takes.
        var refusals = 0
        while sent < total, refusals < 50 {
            let count = client.trySend(Array(piece.prefix(total - sent)))
            if count > 0 {
                sent += count
                refusals = 0
            } else {
                refusals += 1
                await web.loop.sleep(milliseconds: 2)
            }
        }
        #expect(sent < total / 2, "\(sent) bytes were taken by nobody")
        leave.open()
        while sent < total {
            let rest = Array(piece.prefix(total - sent))
            try client.send(rest)
            sent += rest.count
        }
        #expect(client.rest().hasSuffix("\(total) bytes"))
    }

    @Test func aSenderThatLeavesIsAnErrorForTheHandler() async throws {
        let failed = TestLatch()
        let route = Route(.put, "/upload", right: "client.read", "t", body: .stream(limit: 1 << 20), answers: []) {
            (request) async throws(Problem) in
            do throws(Problem) { while try await request.stream?.next() != nil {} } catch {
                failed.open()
                throw error
            }
            return .empty
        }
        let web = try await WebFixture([route])
        do {
            let client = try web.client()
            try client.send("PUT /upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\nAuthorization: Bearer reader\r\n\r\nabc")
        }
        await failed.wait()
    }
}

@Suite struct ResponseHandleTests {
    private func route(
        body: Route.Body = .none, timeout: UInt64 = 20_000, _ handler: @escaping ExchangeHandler
    ) -> Route {
        Route(
            .post, "/later", access: .right("client.read"), "t", body: body, answers: [],
            action: .exchange(timeoutMilliseconds: timeout, handler))
    }

    @Test func anAnswerComesFromAnotherThreadAndCarriesTheCoresFields() async throws {
        let other = try EventLoop.start(name: "other")
        defer { other.stop() }
        let web = try await WebFixture([
            route { _, handle in
                other.post {
                    #expect(handle.respond(201, ["x-own": "1", "content-length": "7", "connection": "close"], body: Array("done".utf8)))
                    #expect(!handle.respond(200))
                    #expect(!handle.begin(200) && !handle.finish() && handle.write([1]) != .accepted && !handle.abort())
                }
                return nil
            }
        ])
        let answer = try web.call("POST", "/later").lowercased()
        #expect(answer.hasPrefix("http/1.1 201") && answer.hasSuffix("\r\n\r\ndone"))
        #expect(answer.contains("x-own: 1") && answer.contains("ratelimit-limit: 100") && answer.contains("x-correlation-id"))
        #expect(answer.contains("content-length: 4") && !answer.contains("content-length: 7"))
    }

    @Test func aHandleThatIsLetGoIsAnsweredForIt() async throws {
        let web = try await WebFixture([route { _, _ in nil }])
        let answer = try web.call("POST", "/later")
        #expect(answer.hasPrefix("HTTP/1.1 500") && answer.contains("handler-gave-up"))
    }

    @Test func aHandlerThatNeverAnswersIsBounded() async throws {
        let kept = Mutex<[ResponseHandle]>([])
        let gone = TestLatch()
        let web = try await WebFixture([
            route(timeout: 30) { _, handle in
                kept.withLock { $0.append(handle) }
                return Gone(gone)
            }
        ])
        let answer = try web.call("POST", "/later")
        #expect(answer.hasPrefix("HTTP/1.1 504") && answer.contains("handler-timeout"))
        await gone.wait()
        #expect(kept.withLock { $0[0].respond(200) } == false)
    }

    @Test func streamedAnswersKeepTheirOrderAndTheirLength() async throws {
        let web = try await WebFixture([
            route { _, handle in
                #expect(handle.write([1]) == .misuse)
                #expect(!handle.begin(100) && !handle.begin(600))
                #expect(handle.begin(200, ["content-type": "text/plain"], length: 10))
                #expect(handle.write(Array("01234".utf8)) == .accepted && handle.write(Array("56789".utf8)) == .accepted)
                #expect(handle.write([1]) == .misuse)
                #expect(handle.finish())
                return nil
            }
        ])
        #expect(try web.call("POST", "/later").hasSuffix("\r\n\r\n0123456789"))
    }

    @Test func anAnswerShorterThanAnnouncedIsBrokenOff() async throws {
        let web = try await WebFixture([
            route { _, handle in
                #expect(handle.begin(200, length: 20) && handle.write(Array("0123456789".utf8)) == .accepted)
                #expect(!handle.finish())
                return nil
            }
        ])
        // The connection ends before the announced length: no reader takes it for whole.
        let answer = try web.call("POST", "/later")
        #expect(answer.isEmpty || answer.contains("content-length: 20") && answer.hasSuffix("0123456789"))
    }

    @Test func whoWritesFasterThanThePeerReadsIsHeldBackAndCalledAgain() async throws {
        let total = 48 << 20
        let writer = Mutex<BulkWriter?>(nil)
        let web = try await WebFixture([
            route { _, handle in
                let bulk = BulkWriter(handle, total)
                writer.withLock { $0 = bulk }
                #expect(handle.begin(200))
                bulk.drained()
                return bulk
            }
        ])
        let client = try web.client()
        try client.send("POST /later HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nAuthorization: Bearer reader\r\n\r\n")
        let bulk = try await eventually(web.loop) { writer.withLock { $0 } }
        _ = try await eventually(web.loop) { bulk.refusals.load(ordering: .relaxed) > 0 ? true : nil }
        let before = bulk.written.load(ordering: .relaxed)
        #expect(before < total)
        var count = 0
        while case let piece = client.next(), !piece.isEmpty { count += piece.count }
        #expect(count > total && bulk.written.load(ordering: .relaxed) == total)
    }

    @Test func aPeerThatLeavesIsToldOnce() async throws {
        let (begun, gone) = (TestLatch(), TestLatch())
        let kept = Mutex<[ResponseHandle]>([])
        let web = try await WebFixture([
            route { _, handle in
                kept.withLock { $0.append(handle) }
                #expect(handle.begin(200))
                begun.open()
                return Gone(gone)
            }
        ])
        do {
            let client = try web.client()
            try client.send("POST /later HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer reader\r\n\r\n")
            await begun.wait()
            _ = client.until("\r\n\r\n")
        }
        await gone.wait()
        #expect(kept.withLock { $0[0].write([1]) } == .gone)
    }

    @Test func theBodyComesOnlyAsFarAsItIsAskedFor() async throws {
        let recorder = Mutex<Recorder?>(nil)
        let web = try await WebFixture([
            route(body: .stream(limit: 1 << 20)) { _, handle in
                let new = Recorder(handle)
                recorder.withLock { $0 = new }
                return new
            }
        ])
        let client = try web.client()
        let head = "POST /later HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nAuthorization: Bearer reader\r\nContent-Length: 10\r\n\r\n"
        try client.send(head + "0123456789")
        let held = try await eventually(web.loop) { recorder.withLock { $0 } }
        held.handle.take(4)
        _ = try await eventually(web.loop) { held.bytes.withLock { $0.count } == 4 ? true : nil }
        held.handle.take(3)
        _ = try await eventually(web.loop) { held.bytes.withLock { $0.count } == 7 ? true : nil }
        held.handle.take(100)
        await held.ended.wait()
        #expect(String(decoding: held.bytes.withLock { $0 }, as: UTF8.self) == "0123456789")
        #expect(held.handle.respond(200, body: Array("thanks".utf8)))
        #expect(client.rest().hasSuffix("thanks"))
    }
}

/// Tries until there is a value; a bound of some seconds.
func eventually<Value: Sendable>(_ loop: EventLoop, _ value: () -> Value?) async throws -> Value {
    for _ in 0..<10_000 {
        if let value = value() { return value }
        await loop.sleep(milliseconds: 1)
    }
    throw WireFault()
}

private final class Gone: ExchangeReceiver {
    private let latch: TestLatch
    init(_ latch: TestLatch) { self.latch = latch }
    func gone() { latch.open() }
}

/// Writes as much as is taken, and goes on when it is called.
private final class BulkWriter: ExchangeReceiver {
    private let handle: ResponseHandle
    private let total: Int
    let written = Atomic<Int>(0)
    let refusals = Atomic<Int>(0)

    init(_ handle: ResponseHandle, _ total: Int) {
        self.handle = handle
        self.total = total
    }

    func drained() {
        let piece = [UInt8](repeating: 0x61, count: 64 << 10)
        while written.load(ordering: .relaxed) < total {
            guard handle.write(piece) == .accepted else {
                refusals.add(1, ordering: .relaxed)
                return
            }
            written.add(piece.count, ordering: .relaxed)
        }
        _ = handle.finish()
    }
}

import JSON
import Kernel
import Reactor
import Synchronization
import Testing

@testable import Transport
@testable import Web

/// A WebSocket client at the level of frames; the masking key is zero.
private final class WireSocket {
    let client: WireClient
    private var bytes: [UInt8] = []
    let head: String

    init(_ web: WebFixture, _ target: String, token: String? = "reader", headers: [String] = []) throws {
        client = try web.client()
        var lines = [
            "GET \(target) HTTP/1.1", "Host: 127.0.0.1", "Upgrade: websocket", "Connection: Upgrade",
            "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        ] + headers
        if let token { lines.append("Authorization: Bearer \(token)") }
        try client.send(lines.joined(separator: "\r\n") + "\r\n\r\n")
        var received: [UInt8] = []
        let end: [UInt8] = [13, 10, 13, 10]
        var split: Int?
        while split == nil, case let piece = client.next(), !piece.isEmpty {
            received += piece
            split = (0..<max(0, received.count - 3)).first { Array(received[$0..<($0 + 4)]) == end }.map { $0 + 4 }
        }
        head = String(decoding: received.prefix(split ?? received.count), as: UTF8.self)
        bytes = Array(received.dropFirst(split ?? received.count))
    }

    var isOpen: Bool { head.hasPrefix("HTTP/1.1 101") }
    var status: String { String(head.dropFirst(9).prefix(3)) }

    func send(_ opcode: UInt8, _ payload: [UInt8]) throws {
        var frame: [UInt8] = [0x80 | opcode]
        if payload.count < 126 {
            frame.append(0x80 | UInt8(payload.count))
        } else {
            frame += [0x80 | 126, UInt8(payload.count >> 8), UInt8(payload.count & 255)]
        }
        try client.send(frame + [0, 0, 0, 0] + payload)
    }

    private func fill(_ count: Int) -> Bool {
        while bytes.count < count {
            let piece = client.next()
            guard !piece.isEmpty else { return false }
            bytes += piece
        }
        return true
    }

    /// The next frame: opcode and payload; nil at the end.
    func frame() -> (opcode: UInt8, payload: [UInt8])? {
        guard fill(2) else { return nil }
        let opcode = bytes[0] & 15
        var (count, start) = (Int(bytes[1] & 127), 2)
        if count >= 126 {
            let wide = count == 126 ? 2 : 8
            guard fill(2 + wide) else { return nil }
            count = bytes[2..<(2 + wide)].reduce(0) { $0 << 8 | Int($1) }
            start = 2 + wide
        }
        guard fill(start + count) else { return nil }
        defer { bytes.removeFirst(start + count) }
        return (opcode, Array(bytes[start..<(start + count)]))
    }

    func text() -> String? { frame().map { String(decoding: $0.payload, as: UTF8.self) } }

    /// The code of the next close frame; others are passed over.
    func closeCode() -> Int? {
        while let (opcode, payload) = frame() {
            if opcode == 8 { return payload.count < 2 ? 1005 : Int(payload[0]) << 8 | Int(payload[1]) }
        }
        return nil
    }
}

/// Echoes; keeps what it heard.
private final class EchoReceiver: OperatorSocketReceiver {
    let socket = Mutex<OperatorSocket?>(nil)
    let pongs = Atomic<Int>(0)
    let heard = Atomic<Int>(0)
    let drains = Atomic<Int>(0)
    let ended = TestLatch()
    let end = Mutex<[(UInt16, String)]>([])

    func message(_ payload: RawSpan, isText: Bool) {
        heard.add(1, ordering: .relaxed)
        socket.withLock { $0 }.map { _ = $0.send(payload, isText: isText) }
    }
    func pong(_ payload: RawSpan) { pongs.add(1, ordering: .relaxed) }
    func drained() { drains.add(1, ordering: .relaxed) }
    func closed(_ code: UInt16, _ reason: String) {
        end.withLock { $0.append((code, reason)) }
        ended.open()
    }
}

@Suite struct OperatorSocketTests {
    private final class Box: Sendable {
        let receivers = Mutex<[EchoReceiver]>([])
        var last: EchoReceiver? { receivers.withLock { $0.last } }
    }

    private func route(_ box: Box, _ limits: WebSocketLimits = WebSocketLimits(), path: String = "/api/v1/demo/socket") -> Route {
        Route(
            .get, path, access: .right("client.read"), "t", auditedRead: "demo.open",
            action: .webSocket(limits, timeoutMilliseconds: 20_000) { request, handle in
                let receiver = EchoReceiver()
                box.receivers.withLock { $0.append(receiver) }
                let socket = handle.accept(receiver)
                receiver.socket.withLock { $0 = socket }
                _ = socket?.send(Array("hello \(request.principal.id)".utf8), isText: true)
                return nil
            })
    }

    private func fixture(_ box: Box, times: WebSocketTimes = WebSocketTimes()) async throws -> WebFixture {
        let web = try await WebFixture([], times: times)
        try web.table.apply([
            .set(RouteGroup(try RouteOwner(plugin: "demo"), routes: [route(box)], prefixes: ["/api/v1/demo"]))
        ])
        return web
    }

    @Test func messagesGoBothWaysAndTheOpeningIsOnRecord() async throws {
        let box = Box()
        let web = try await fixture(box)
        let socket = try WireSocket(web, "/api/v1/demo/socket")
        #expect(socket.isOpen && socket.text() == "hello reader")
        try socket.send(1, Array("héllo".utf8))
        #expect(socket.text() == "héllo")
        try socket.send(2, [UInt8](repeating: 7, count: 300))
        let echoed = socket.frame()
        #expect(echoed?.opcode == 2 && echoed?.payload == [UInt8](repeating: 7, count: 300))
        #expect(web.gate.records.withLock { $0 } == ["demo.open reader /api/v1/demo/socket"])
        #expect(web.table.socketCount(of: try RouteOwner(plugin: "demo")) == 1)
        box.last?.socket.withLock { $0 }?.close(4001, "done")
        #expect(socket.closeCode() == 4001)
        try socket.send(8, [0x0F, 0xA1])
        await box.last?.ended.wait()
        #expect(box.last?.end.withLock { $0.count } == 1)
        #expect(box.last?.socket.withLock { $0 }?.send([1]) == .gone)
        #expect(web.table.socketCount(of: try RouteOwner(plugin: "demo")) == 0)
    }

    @Test func onlyThoseWhoMayReachTheHandler() async throws {
        let box = Box()
        let web = try await fixture(box)
        let target = "/api/v1/demo/socket"
        #expect(try WireSocket(web, target, token: nil).status == "401")
        #expect(try WireSocket(web, target, token: "nobody").status == "403")
        #expect(try WireSocket(web, target, token: "limited").status == "429")
        #expect(try WireSocket(web, target, headers: ["Origin: https://evil.test"]).status == "403")
        #expect(try WireSocket(web, target + "?token=reader").status == "400")
        let plain = try web.call("GET", target).lowercased()
        #expect(plain.hasPrefix("http/1.1 426") && plain.contains("upgrade: websocket") && plain.contains("websocket-required"))
        #expect(box.last == nil)
    }

    @Test func aTicketOpensOnceWhatItWasIssuedFor() async throws {
        let box = Box()
        let web = try await fixture(box)
        let target = "/api/v1/demo/socket"
        let origin = "http://127.0.0.1"
        let reader = Principal(kind: .user, id: "reader", address: "127.0.0.1", credential: "reader")
        func ticket(_ principal: Principal? = nil, origin: String? = nil) throws -> String {
            "\(target)?ticket=\(try web.table.issueTicket(principal ?? reader, path: target, origin: origin))"
        }
        let good = try ticket(origin: origin)
        let socket = try WireSocket(web, good, token: nil, headers: ["Origin: \(origin)"])
        #expect(socket.isOpen && socket.text() == "hello reader")
        #expect(try WireSocket(web, good, token: nil, headers: ["Origin: \(origin)"]).status == "401")
        #expect(try WireSocket(web, try ticket(origin: origin), token: nil).status == "401")
        #expect(try WireSocket(web, try ticket(), token: nil, headers: ["Origin: \(origin)"]).status == "401")
        let elsewhere = Principal(kind: .user, id: "reader", address: "192.0.2.1", credential: "reader")
        #expect(try WireSocket(web, try ticket(elsewhere), token: nil).status == "401")
        let nobody = Principal(kind: .user, id: "nobody", address: "127.0.0.1", credential: "reader")
        #expect(try WireSocket(web, try ticket(nobody), token: nil).status == "403")
        #expect(throws: Problem.self) { try web.table.issueTicket(reader, path: "/api/v1/demo", origin: nil) }
        #expect(throws: Problem.self) { try web.table.issueTicket(reader, path: target + "?x=1", origin: nil) }
        let late = try ticket()
        web.gate.end("reader")
        #expect(try WireSocket(web, late, token: nil).status == "401")
    }

    @Test func ticketsLapseAndAreBounded() throws {
        let clock = TestClock()
        let book = TicketBook(now: { clock.time.load(ordering: .relaxed) })
        let one = Principal(kind: .user, id: "one", address: "192.0.2.1")
        let ticket = try book.issue(one, path: ["a"], origin: nil)
        let other = try book.issue(one, path: ["a"], origin: nil)
        #expect(book.redeem(ticket, path: ["b"], origin: nil, address: "192.0.2.1") == nil)
        #expect(book.redeem(ticket, path: ["a"], origin: nil, address: "192.0.2.1") == nil)
        clock.time.store(30_000_000_000, ordering: .relaxed)
        #expect(book.redeem(other, path: ["a"], origin: nil, address: "192.0.2.1") == nil)
        for _ in 0..<TicketBook.maximumPerPrincipal { _ = try book.issue(one, path: ["a"], origin: nil) }
        #expect(throws: Problem.self) { try book.issue(one, path: ["a"], origin: nil) }
        _ = try book.issue(Principal(kind: .user, id: "two"), path: ["a"], origin: nil)
        clock.time.store(60_000_000_000, ordering: .relaxed)
        _ = try book.issue(one, path: ["a"], origin: nil)
    }

    @Test func aCredentialThatEndsClosesIt() async throws {
        let box = Box()
        let web = try await fixture(box)
        let socket = try WireSocket(web, "/api/v1/demo/socket")
        #expect(socket.text() == "hello reader")
        web.gate.end("reader")
        #expect(socket.closeCode() == 1008)
    }

    @Test func aNewVersionAndAStopCloseWith1012() async throws {
        let box = Box()
        let web = try await fixture(box)
        let demo = try RouteOwner(plugin: "demo")
        let first = try WireSocket(web, "/api/v1/demo/socket")
        #expect(first.text() != nil)
        let group = RouteGroup(demo, routes: [route(box)], prefixes: ["/api/v1/demo"])
        try web.table.apply([.set(group, keepingSockets: true)])
        try first.send(1, Array("still".utf8))
        #expect(first.text() == "still")
        try web.table.apply([.set(group)])
        #expect(first.closeCode() == 1012)
        let second = try WireSocket(web, "/api/v1/demo/socket")
        #expect(second.text() != nil)
        try web.table.apply([.remove(demo)])
        #expect(second.closeCode() == 1012)
        try web.table.apply([.set(group)])
        let third = try WireSocket(web, "/api/v1/demo/socket")
        #expect(third.text() != nil)
        web.table.stop()
        #expect(third.closeCode() == 1012)
        #expect(try WireSocket(web, "/api/v1/demo/socket").status == "503")
    }

    @Test func aMessageBeyondTheLimitEndsItAndASubprotocolIsChosen() async throws {
        let box = Box()
        let web = try await WebFixture([route(box, WebSocketLimits(maximumMessage: 100, subprotocols: ["b", "c"]), path: "/s")])
        let socket = try WireSocket(web, "/s", headers: ["Sec-WebSocket-Protocol: a, c, b"])
        #expect(socket.head.lowercased().contains("sec-websocket-protocol: b\r\n"))
        #expect(socket.text() != nil)
        try socket.send(2, [UInt8](repeating: 1, count: 101))
        #expect(socket.closeCode() == 1009)
        let document = try JSONValue(parsing: web.table.document().bytes)
        let shown = try #require(document["paths"]?["/s"]?["get"])
        #expect(shown["x-websocket"]?["maximum_message_bytes"]?.integer == 100 && shown["responses"]?["101"] != nil)
    }

    @Test func aSilentPeerIsAskedAndThenGivenUp() async throws {
        var times = WebSocketTimes()
        (times.pingMilliseconds, times.deadMilliseconds) = (8, 200)
        let box = Box()
        let web = try await fixture(box, times: times)
        let socket = try WireSocket(web, "/api/v1/demo/socket")
        #expect(socket.text() != nil)
        #expect(socket.frame()?.opcode == 9)
        try socket.send(10, [])
        await box.last?.ended.wait()
        #expect(box.last?.pongs.load(ordering: .relaxed) == 1)
        #expect(box.last?.end.withLock { $0.first?.0 } == 1006)
    }

    @Test func manyThreadsSendWithoutLossAndAFullSocketSaysSo() async throws {
        let box = Box()
        // On a slow machine no ping may come between what is counted.
        var times = WebSocketTimes()
        (times.pingMilliseconds, times.deadMilliseconds) = (600_000, 1_200_000)
        let web = try await fixture(box, times: times)
        let socket = try WireSocket(web, "/api/v1/demo/socket")
        #expect(socket.text() != nil)
        let handle = try #require(box.last?.socket.withLock { $0 })
        let threads = try (0..<3).map { try EventLoop.start(name: "sender-\($0)") }
        defer { for thread in threads { thread.stop() } }
        for (number, thread) in threads.enumerated() {
            thread.post {
                for index in 0..<1_000 { #expect(handle.send([UInt8(number), UInt8(index >> 8), UInt8(index & 255)]) == .accepted) }
            }
        }
        var next = [0, 0, 0]
        for _ in 0..<3_000 {
            let payload = try #require(socket.frame()).payload
            #expect(next[Int(payload[0])] == Int(payload[1]) << 8 | Int(payload[2]))
            next[Int(payload[0])] += 1
        }
        // Nobody reads now: the kernel's buffers fill, then ours up to the mark.
        let piece = [UInt8](repeating: 9, count: 32 << 10)
        var accepted = 0
        // Full for good: not only until the loop has passed on what waits for it.
        var refused = 0
        for _ in 0..<100_000 where refused < 50 {
            if handle.send(piece) == .accepted { (accepted, refused) = (accepted + 1, 0) } else { refused += 1 }
            if refused > 0 || accepted % 16 == 0 { await web.loop.sleep(milliseconds: 1) }
        }
        #expect(handle.send(piece) == .full && accepted < 10_000)
        let before = box.last?.drains.load(ordering: .relaxed) ?? 0
        for _ in 0..<accepted { #expect(socket.frame()?.payload.count == piece.count) }
        _ = try await eventually(web.loop) { (box.last?.drains.load(ordering: .relaxed) ?? 0) == before + 1 ? true : nil }
        #expect(handle.send([1]) == .accepted)
    }

    @Test func aReceiverThatTakesNothingHoldsThePeerBack() async throws {
        let box = Box()
        let web = try await fixture(box)
        let socket = try WireSocket(web, "/api/v1/demo/socket")
        #expect(socket.text() != nil)
        let receiver = try #require(box.last)
        receiver.socket.withLock { $0 }?.receive(false)
        await web.loop.sleep(milliseconds: 1)
        let heard = receiver.heard.load(ordering: .relaxed)
        for _ in 0..<10 { try socket.send(1, [0x61]) }
        #expect(receiver.heard.load(ordering: .relaxed) == heard)
        receiver.socket.withLock { $0 }?.receive(true)
        for _ in 0..<10 { #expect(socket.text() == "a") }
    }
}

private final class TestClock: Sendable {
    let time = Atomic<UInt64>(0)
}

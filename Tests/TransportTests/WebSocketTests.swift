import Reactor
import Testing

@testable import Transport

/// Gathers what a WebSocket says.
final class Gatherer: WebSocketDelegate {
    private(set) var messages: [[UInt8]] = []
    private(set) var pongs = 0
    private(set) var end: (WebSocketCloseCode, String)?
    private let signal = LoopSignal()

    func webSocket(_ socket: WebSocketConnection, received message: RawSpan, isText: Bool) {
        messages.append(message.withUnsafeBytes { Array($0) })
        signal.wake()
    }
    func webSocket(_ socket: WebSocketConnection, pong payload: RawSpan) {
        pongs += 1
        signal.wake()
    }
    func webSocketClosed(_ socket: WebSocketConnection, _ code: WebSocketCloseCode, _ reason: String) {
        end = (code, reason)
        signal.wake()
    }
    func until(_ condition: (Gatherer) -> Bool) async {
        while !condition(self), end == nil { await signal.wait { condition(self) || end != nil } }
    }
}

@Suite struct WebSocketTests {
    static func server(_ loop: EventLoop, maximum: Int = 1 << 20) async throws -> HTTPServer {
        try await HTTPServer.test(loop) { exchange in
            do throws(HTTPRefusal) {
                let chosen = WebSocketHandshake.offered("echo.v1", by: exchange.head) ? "echo.v1" : nil
                try exchange.upgrade(subprotocol: chosen, maximumMessage: maximum).delegate = Echo()
            } catch {
                exchange.refuse(error)
            }
        }
    }

    @Test func echoesMessagesOfAllSizes() async throws {
        let sizes = [0, 1, 125, 126, 127, 65_535, 65_536, 700_000]
        let (lengths, chosen, isRight, code) = try await onLoop { loop in
            let server = try await Self.server(loop)
            defer { server.stop() }
            let gatherer = Gatherer()
            let socket = try await WebSocketClient.connect(
                to: server.url, subprotocols: ["other", "echo.v1"], delegate: gatherer)
            for size in sizes { socket.send((0..<size).map { UInt8(truncatingIfNeeded: $0 &* 7) }) }
            socket.ping("p".utf8Span.span.bytes)
            await gatherer.until { $0.messages.count == sizes.count && $0.pongs == 1 }
            let isRight = gatherer.messages.allSatisfy { message in
                message.enumerated().allSatisfy { $1 == UInt8(truncatingIfNeeded: $0 &* 7) }
            }
            socket.close(.normal, "bye")
            await gatherer.until { _ in false }
            return (gatherer.messages.map(\.count), socket.subprotocol, isRight, gatherer.end?.0)
        }
        #expect(lengths == sizes)
        #expect(isRight)
        #expect(chosen == "echo.v1")
        #expect(code == .normal)
    }

    /// Parts of any length, so that the mask goes on in the middle of a word; many at once, so that later ones must wait.
    @Test func aMessageInTwoPartsArrivesAsOne() async throws {
        let parts = [(0, 16_384), (1, 20_001), (24, 61_440), (27, 16_385), (3, 10)] + (0..<40).map { ($0, 60_000 + $0) }
        let pattern = (0..<70_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        let (lengths, isRight) = try await onLoop { loop in
            let server = try await Self.server(loop)
            defer { server.stop() }
            let gatherer = Gatherer()
            let socket = try await WebSocketClient.connect(to: server.url, delegate: gatherer)
            for (head, body) in parts {
                let whole = pattern.span.bytes
                socket.send(whole.extracting(0..<head), whole.extracting(head..<(head + body)))
            }
            await gatherer.until { $0.messages.count == parts.count }
            return (gatherer.messages.map(\.count), gatherer.messages.allSatisfy { $0.elementsEqual(pattern.prefix($0.count)) })
        }
        #expect(lengths == parts.map { $0 + $1 })
        #expect(isRight)
    }

    @Test func fragmentsWithAPingBetween() async throws {
        let message = try await onLoop { loop in
            let server = try await Self.server(loop)
            defer { server.stop() }
            let gatherer = Gatherer()
            let socket = try await WebSocketClient.connect(to: server.url, delegate: gatherer)
            // "é" is cut in two by the fragments.
            socket.sendFragment(([0x61, 0xC3] as [UInt8]).span.bytes, isText: true, isFirst: true, isLast: false)
            socket.ping([UInt8]().span.bytes)
            socket.sendFragment(([0xA9] as [UInt8]).span.bytes, isText: true, isFirst: false, isLast: false)
            socket.sendFragment([UInt8]().span.bytes, isText: true, isFirst: false, isLast: true)
            await gatherer.until { !$0.messages.isEmpty && $0.pongs == 1 }
            return gatherer.messages.first.map { String(decoding: $0, as: UTF8.self) }
        }
        #expect(message == "aé")
    }

    /// Frames by hand, already masked with the key 0; the close code that must come back.
    static let broken: [([UInt8], UInt16)] = [
        ([0xC1, 0x80, 0, 0, 0, 0], 1002),  // RSV1
        ([0x83, 0x80, 0, 0, 0, 0], 1002),  // reserved data opcode
        ([0x8B, 0x80, 0, 0, 0, 0], 1002),  // reserved control opcode
        ([0x81, 0x01, 0x61], 1002),  // not masked
        ([0x09, 0x80, 0, 0, 0, 0], 1002),  // fragmented ping
        ([0x89, 0xFE, 0, 126, 0, 0, 0, 0], 1002),  // long ping
        ([0x80, 0x80, 0, 0, 0, 0], 1002),  // continuation of nothing
        ([0x01, 0x80, 0, 0, 0, 0, 0x81, 0x80, 0, 0, 0, 0], 1002),  // message inside a message
        ([0x82, 0xFE, 0, 1, 0, 0, 0, 0], 1002),  // length not minimal
        ([0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 1002),  // highest bit of the length
        ([0x82, 0xFF, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0, 0], 1009),  // announced too large
        ([0x81, 0x81, 0, 0, 0, 0, 0xFF], 1007),  // not UTF-8
        ([0x81, 0x82, 0, 0, 0, 0, 0xC0, 0x80], 1007),  // overlong
        ([0x81, 0x83, 0, 0, 0, 0, 0xED, 0xA0, 0x80], 1007),  // surrogate
        ([0x81, 0x81, 0, 0, 0, 0, 0xC3], 1007),  // ends inside a character
        ([0x01, 0x81, 0, 0, 0, 0, 0xFF], 1007),  // fails at once, not at the end
        ([0x88, 0x81, 0, 0, 0, 0, 3], 1002),  // close with one byte
        ([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xED], 1002),  // close with 1005
        ([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE7], 1002),  // close with 999
        ([0x88, 0x83, 0, 0, 0, 0, 0x03, 0xE8, 0xFF], 1007),  // reason not UTF-8
        ([0x88, 0x82, 0, 0, 0, 0, 0x0B, 0xB8], 3000),  // a good private code comes back
        ([0x88, 0x80, 0, 0, 0, 0], 0),  // no code: none comes back
    ]

    @Test(arguments: broken.indices)
    func malformedFramesGetTheirCloseCode(index: Int) async throws {
        let (frames, expected) = Self.broken[index]
        // Whole, and byte by byte.
        for piecewise in [false, true] {
            let bytes = try await onLoop { loop in
                let server = try await Self.server(loop)
                defer { server.stop() }
                let client = try await RawClient.connect(server, loop)
                client.send(
                    "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        + "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
                await client.until { $0.text.contains("\r\n\r\n") }
                let head = client.bytes.count
                if piecewise {
                    for byte in frames {
                        client.send([byte])
                        await loop.sleep(milliseconds: 0)
                    }
                } else {
                    client.send(frames)
                }
                await client.until { _ in false }
                return Array(client.bytes[head...])
            }
            if expected == 0 {
                #expect(bytes == [0x88, 0x00])
            } else {
                let isClose = bytes.count >= 4 && bytes[0] == 0x88
                #expect(isClose)
                #expect(isClose && UInt16(bytes[2]) << 8 | UInt16(bytes[3]) == expected)
            }
        }
    }

    @Test func acceptKeyOfTheStandard() {
        #expect(WebSocketHandshake.accept("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    }

    @Test func requestsThatAreNoUpgradeAreRefused() async throws {
        let texts = try await onLoop { loop in
            let server = try await Self.server(loop)
            defer { server.stop() }
            var texts: [String] = []
            let good = "Upgrade: websocket\r\nConnection: Upgrade\r\n"
            for request in [
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: a\r\n\(good)Sec-WebSocket-Version: 8\r\nConnection: close\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: a\r\n\(good)Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\nConnection: close\r\n\r\n",
            ] {
                let client = try await RawClient.connect(server, loop)
                texts.append(String(await client.request(request).prefix(12)))
            }
            return texts
        }
        #expect(texts == ["HTTP/1.1 426", "HTTP/1.1 426", "HTTP/1.1 400"])
    }
}

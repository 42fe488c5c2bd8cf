import Reactor
import Testing

@testable import Transport

@Suite struct HTTPServerTests {
    @Test func answersAndKeepsTheConnection() async throws {
        let text = try await onLoop { loop in
            let server = try await HTTPServer.test(loop) { exchange in
                exchange.respond(200, ["content-type": "text/plain"], body: Array("you asked \(exchange.head.target)".utf8))
            }
            defer { server.stop() }
            let client = try await RawClient.connect(server, loop)
            return await client.request(
                "GET /one HTTP/1.1\r\nHost: a\r\n\r\nGET /two?x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        }
        #expect(text.components(of: "HTTP/1.1 200 OK") == 2)
        #expect(text.contains("you asked /one"))
        #expect(text.hasSuffix("you asked /two?x"))
        #expect(text.contains("connection: close"))
    }

    @Test(arguments: [
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\nabc",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\nabc",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nabc",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\u{0}b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\u{7f}b\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\r\nHost: a\r\n\r\n",
        "G@T / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n: v\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nnocolon\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "\u{16}\u{3}\u{1}GET / HTTP/1.1\r\n\r\n",
    ])
    func refusesWhatCouldBeReadInTwoWays(request: String) async throws {
        let (text, reached) = try await onLoop { loop in
            let server = try await HTTPServer.test(loop) { exchange in
                // A request with a broken body may reach the service; it must not be completed.
                exchange.respond(204)
            }
            defer { server.stop() }
            let client = try await RawClient.connect(server, loop)
            let text = await client.request(request)
            return (text, text.contains("204"))
        }
        #expect(!reached)
        #expect(text.hasPrefix("HTTP/1.1 400 ") || text.hasPrefix("HTTP/1.1 5"))
    }

    @Test func boundsOnHeads() async throws {
        let texts = try await onLoop { loop in
            var configuration = HTTPServerConfiguration()
            configuration.limits.headBytes = 2_000
            configuration.limits.targetBytes = 500
            configuration.limits.fieldCount = 10
            let server = try await HTTPServer.test(loop, configuration) { $0.respond(204) }
            defer { server.stop() }
            var texts: [String] = []
            for request in [
                "GET /\(String(repeating: "a", count: 700)) HTTP/1.1\r\nHost: a\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: a\r\nX: \(String(repeating: "b", count: 3_000))\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: a\r\n\(String(repeating: "X: b\r\n", count: 11))\r\n",
                "BREW / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
                "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            ] {
                let client = try await RawClient.connect(server, loop)
                texts.append(String(await client.request(request).prefix(12)))
            }
            return texts
        }
        #expect(texts == [
            "HTTP/1.1 414", "HTTP/1.1 431", "HTTP/1.1 431", "HTTP/1.1 501", "HTTP/1.1 505", "HTTP/1.1 501",
        ])
    }

    @Test func readsBodiesOfBothKinds() async throws {
        let text = try await onLoop { loop in
            let server = try await HTTPServer.test(loop) { exchange in
                nonisolated(unsafe) let exchange = exchange
                loop.spawn {
                    let body = (try? await exchange.body(maximum: 1_000)) ?? Array("too large".utf8)
                    exchange.respond(200, body: body)
                }
            }
            defer { server.stop() }
            let client = try await RawClient.connect(server, loop)
            return await client.request(
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nfirst"
                    + "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
                    + "3;x=y\r\nsec\r\n3\r\nond\r\n0\r\nTrailer: t\r\n\r\n"
                    + "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2000\r\n\r\n")
        }
        #expect(text.contains("\r\n\r\nfirst"))
        #expect(text.contains("HTTP/1.1 100 Continue\r\n\r\n"))
        #expect(text.contains("\r\n\r\nsecond"))
        #expect(text.hasSuffix("too large"))
    }

    /// A head that comes again byte by byte is not parsed again: what differs from it must be, however little, and whatever the
    /// pieces in which it comes.
    @Test(arguments: [1, 7, 100_000]) func headsThatRepeatAndHeadsThatDifferAreToldApart(piece: Int) async throws {
        func post(_ path: String, _ body: String, _ more: String = "") -> String {
            "POST \(path) HTTP/1.1\r\nHost: a\r\n\(more)Content-Length: \(body.utf8.count)\r\n\r\n\(body)"
        }
        let long = "X: \(String(repeating: "x", count: 2_000))\r\n"
        let requests = [
            post("/a", "1111"), post("/a", "2222"), post("/a", "3333"), post("/b", "4444"), post("/a", "55555"), post("/a", "6666"),
            post("/a", "7777"), post("/a", "8888", long), post("/a", "9999", long), post("/a", "aaaa"),
            post("/a", "bbbb", "Connection: close\r\n"),
        ]
        let text = try await onLoop { loop in
            let server = try await HTTPServer.test(loop) { exchange in
                nonisolated(unsafe) let exchange = exchange
                loop.spawn {
                    let body = (try? await exchange.body(maximum: 1_000)) ?? []
                    let length = exchange.head.headers["x"]?.utf8.count ?? 0
                    exchange.respond(200, body: Array("<\(exchange.head.target) \(length) ".utf8) + body + Array(">".utf8))
                }
            }
            defer { server.stop() }
            let client = try await RawClient.connect(server, loop)
            let bytes = Array(requests.joined().utf8)
            for start in stride(from: 0, to: bytes.count, by: piece) {
                client.send(String(decoding: bytes[start..<min(start + piece, bytes.count)], as: UTF8.self))
                if piece < 100 { await loop.sleep(milliseconds: 0) }
            }
            return await client.request("")
        }
        let answers = text.split(separator: "<").dropFirst().map { $0.prefix { $0 != ">" } }
        #expect(answers == [
            "/a 0 1111", "/a 0 2222", "/a 0 3333", "/b 0 4444", "/a 0 55555", "/a 0 6666", "/a 0 7777", "/a 2000 8888", "/a 2000 9999",
            "/a 0 aaaa", "/a 0 bbbb",
        ])
    }

    @Test func streamsWithBackPressure() async throws {
        let (count, peak) = try await onLoop { loop in
            let peak = Peak()
            let server = try await HTTPServer.test(loop) { exchange in
                nonisolated(unsafe) let exchange = exchange
                loop.spawn {
                    exchange.begin(200)
                    let piece = [UInt8](repeating: 120, count: 100_000)
                    for _ in 0..<200 {
                        guard (try? await exchange.send(piece)) != nil else { return }
                        peak.note(exchange.bufferedBytes)
                    }
                    exchange.finish()
                }
            }
            defer { server.stop() }
            let client = try await RawClient.connect(server, loop)
            let text = await client.request("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            return (text.utf8.count { $0 == 120 }, peak.value)
        }
        #expect(count == 20_000_000)
        #expect(peak < 1 << 20)
    }

    @Test func slowHeadsAreCutOff() async throws {
        let text = try await onLoop { loop in
            var configuration = HTTPServerConfiguration()
            configuration.headMilliseconds = 50
            let server = try await HTTPServer.test(loop, configuration) { $0.respond(204) }
            defer { server.stop() }
            let client = try await RawClient.connect(server, loop)
            return await client.request("GET / HTTP/1.1\r\nHost:")
        }
        #expect(text.hasPrefix("HTTP/1.1 408 "))
    }

    @Test func aStreamedAnswerHearsThatItsClientHasGone() async throws {
        try await onLoop { loop in
            let held = Held()
            let server = try await HTTPServer.test(loop) { exchange in
                held.exchange = exchange
                exchange.begin(200, ["content-type": "text/event-stream"])
                exchange.write("data: 1\n\n".utf8Span.span.bytes)
            }
            defer { server.stop() }
            let client = try await RawClient.connect(server, loop)
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await client.until { $0.text.contains("data: 1") }
            client.close()
            await held.exchange?.untilOver()
            #expect(held.exchange?.isOver == true)
        }
    }

    @Test func aPortInUseIsAnError() async throws {
        try await onLoop { loop in
            let server = try await HTTPServer.test(loop) { $0.respond(204) }
            defer { server.stop() }
            await #expect(throws: TransportError.self) {
                try await HTTPServer.start(at: server.address, on: [loop]) { _ in ClosureService { $0.respond(204) } }
            }
        }
    }

    @Test func drainWaitsForTheAnswer() async throws {
        let text = try await onLoop { loop in
            let held = Held()
            let server = try await HTTPServer.test(loop) { held.exchange = $0 }
            let idle = try await RawClient.connect(server, loop)
            let busy = try await RawClient.connect(server, loop)
            busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            while held.exchange == nil { await loop.sleep(milliseconds: 1) }
            loop.spawn {
                await idle.until { _ in false }
                held.exchange?.respond(200, body: Array("late".utf8))
            }
            await server.drain()
            return await busy.rest()
        }
        #expect(text.hasSuffix("late"))
        #expect(text.contains("connection: close"))
    }
}

/// Test state that only the test's loop touches.
final class Held: @unchecked Sendable { var exchange: HTTPExchange? }
final class Peak: @unchecked Sendable {
    private(set) var value = 0
    func note(_ number: Int) { value = max(value, number) }
}

extension String {
    func components(of part: String) -> Int { split(separator: part, omittingEmptySubsequences: false).count - 1 }
}

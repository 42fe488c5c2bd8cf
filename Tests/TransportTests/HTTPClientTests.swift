import Reactor
import Testing

@testable import Transport

@Suite struct HTTPClientTests {
    @Test func requestsReuseTheConnection() async throws {
        try await onLoop { loop in
            let server = try await HTTPServer.test(loop) { exchange in
                nonisolated(unsafe) let exchange = exchange
                loop.spawn {
                    let body = (try? await exchange.body(maximum: 1 << 20)) ?? []
                    if exchange.head.path == "/stream" {
                        exchange.begin(200)
                        for piece in ["a", "bc", "def"] { _ = try? await exchange.send(Array(piece.utf8)) }
                        exchange.finish()
                    } else {
                        exchange.respond(201, ["x-length": "\(body.count)"], body: body)
                    }
                }
            }
            defer { server.stop() }
            let client = HTTPClient(server.url)
            let large = [UInt8](repeating: 7, count: 900_000)
            let first = try await client.request(.post, "/echo", body: large)
            #expect(first.status == 201)
            #expect(first.head.headers["X-Length"] == "900000")
            #expect(try await first.body(maximum: 1 << 20) == large)
            let second = try await client.request(.get, "/stream")
            #expect(try await second.body(maximum: 100) == Array("abcdef".utf8))
            let third = try await client.request(.head, "/echo")
            #expect(try await third.body(maximum: 100).isEmpty)
            await #expect(throws: TransportError.self) {
                try await client.request(.post, "/echo", body: large).body(maximum: 10)
            }
            let fourth = try await client.request(.get, "/stream")
            #expect(try await fourth.body(maximum: 100).count == 6)
            client.close()
        }
    }

    @Test(arguments: [true, false]) func aBodyIsSentAsItComes(isKnown: Bool) async throws {
        try await onLoop { loop in
            let server = try await HTTPServer.test(loop) { exchange in
                nonisolated(unsafe) let exchange = exchange
                loop.spawn {
                    let body = (try? await exchange.body(maximum: 8 << 20)) ?? []
                    let framing = exchange.head.headers["transfer-encoding"] ?? "length"
                    exchange.respond(200, ["x-sum": "\(body.reduce(0) { ($0 &* 31 &+ Int($1)) & 0xFFFF })", "x-framing": framing])
                }
            }
            defer { server.stop() }
            let bytes = (0..<3_000_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
            let client = HTTPClient(server.url)
            for _ in 0..<2 {
                var offset = 0
                let answer = try await client.request(.put, "/", length: isKnown ? UInt64(bytes.count) : nil, body: { () throws(TransportError) in
                    defer { offset = min(offset + 70_001, bytes.count) }
                    return offset < bytes.count ? Array(bytes[offset..<min(offset + 70_001, bytes.count)]) : nil
                })
                #expect(answer.head.headers["x-sum"] == "\(bytes.reduce(0) { ($0 &* 31 &+ Int($1)) & 0xFFFF })")
                #expect(answer.head.headers["x-framing"] == (isKnown ? "length" : "chunked"))
                #expect(try await answer.body(maximum: 1).isEmpty)
            }
            let after = try await client.request(.get, "/")
            #expect(after.status == 200, "the connection goes on")
            client.close()
        }
    }

    @Test func anEarlyAnswerEndsTheSending() async throws {
        try await onLoop { loop in
            let server = try await HTTPServer.test(loop) { $0.respond(413, body: Array("no".utf8)) }
            defer { server.stop() }
            var pieces = 0
            let answer = try await HTTPClient(server.url).request(.put, "/", length: 1 << 40, body: { () async throws(TransportError) in
                pieces += 1
                await loop.sleep(milliseconds: 1)
                return [UInt8](repeating: 1, count: 1_000)
            })
            #expect(answer.status == 413 && pieces < 10_000)
            #expect(try await answer.body(maximum: 10) == Array("no".utf8))
        }
    }

    @Test(arguments: [2, 4]) func aBodyOfAnotherLengthIsNotSent(_ count: Int) async throws {
        try await onLoop { loop in
            let server = try await HTTPServer.test(loop) { exchange in
                nonisolated(unsafe) let exchange = exchange
                loop.spawn { _ = try? await exchange.body(maximum: 100) }
            }
            defer { server.stop() }
            var isDone = false
            await #expect(throws: TransportError.self) {
                try await HTTPClient(server.url).request(.put, "/", length: 3, body: { () throws(TransportError) in
                    defer { isDone = true }
                    return isDone ? nil : [UInt8](repeating: 1, count: count)
                })
            }
        }
    }

    @Test func errorsTellApart() async throws {
        try await onLoop { loop in
            func code(_ url: ServerURL, headMilliseconds: UInt64 = 1_000) async -> TransportError.Code? {
                do throws(TransportError) {
                    _ = try await HTTPClient(url).request(.get, "/", headMilliseconds: headMilliseconds)
                    return nil
                } catch {
                    return error.code
                }
            }
            let server = try await HTTPServer.test(loop) { _ in }
            #expect(await code(server.url, headMilliseconds: 20) == .timeout)
            let gone = server.url
            server.stop()
            await loop.sleep(milliseconds: 1)
            #expect(await code(gone) == .refused)
            #expect(await code(try ServerURL("http://name.invalid")) == .resolve)
        }
    }

    @Test(arguments: [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabX",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\n\r\n", "ICY 200 OK\r\n\r\n",
    ])
    func cutAndCrookedAnswersAreErrors(answer: String) async throws {
        try await onLoop { loop in
            let server = try await HTTPServer.test(loop) { exchange in
                exchange.connection?.stream.send(text: answer)
                exchange.connection?.stream.closeAfterFlush()
            }
            defer { server.stop() }
            await #expect(throws: TransportError.self) {
                try await HTTPClient(server.url).request(.get, "/").body(maximum: 100)
            }
        }
    }

    @Test func urls() throws {
        #expect(try ServerURL("https://core.example").authority == "core.example")
        #expect(try ServerURL("wss://[::1]:8443/agent?x").target == "/agent?x")
        #expect(try ServerURL("http://a:8080").port == 8_080)
        for text in ["core.example", "ftp://a", "http://", "http://a:0", "http://a:b", "http://u@a", "http://a/ b", "http://[x]"] {
            #expect(throws: TransportError.self) { try ServerURL(text) }
        }
    }
}

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

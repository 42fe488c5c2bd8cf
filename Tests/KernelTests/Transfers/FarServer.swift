import Crypto
import Glibc
import Reactor
import Synchronization
import Testing

@testable import Transport

/// A server with files over TLS on loopback, as an object store behind presigned URLs is: GET with ranges and ETag, PUT.
final class FarServer: Sendable {
    struct Request: Sendable {
        var method: String
        var target: String
        var range: String?
        var condition: String?
    }

    struct Tells: Sendable {
        var tag = true
        var length = true
        var encoding: String?
    }

    struct State: Sendable {
        var content: [UInt8] = []
        var tag = "\"1\""
        var requests: [Request] = []
        var received: [UInt8] = []
        var sent = 0
        /// The next answer ends its connection after so many bytes; or only stops there.
        var cutAfter: Int?
        var holdsAfter: Int?
        /// Every answer ends its connection after so many bytes.
        var cutsAlways: Int?
        /// Answers have no ETag, no Content-Length, or say that they are encoded.
        var tells = Tells()
        /// Bodies of requests are not read.
        var takesNothing = false
        /// The next requests are answered so.
        var failures: [(status: Int, body: String)] = []
    }

    let loop: EventLoop
    let server: HTTPServer
    let authority: String
    private let state: Mutex<State>

    private final class Service: HTTPService {
        weak var owner: FarServer?
        let box: Box
        init(_ box: Box) { self.box = box }
        func exchangeBegan(_ exchange: HTTPExchange) {
            nonisolated(unsafe) let exchange = exchange
            let box = box
            exchange.loop?.spawn { await box.server.withLock { $0 }?.answer(exchange) }
        }
    }
    private final class Box: Sendable { let server = Mutex<FarServer?>(nil) }
    private let box: Box

    /// - Parameter name: of the server beside its address, in its certificate.
    static func start(_ content: [UInt8] = [], isSecure: Bool = true, name: String = "localhost") async throws -> FarServer {
        let now = Int64(time(nil))
        let validity = CertificateValidity(notBefore: now - 60, notAfter: now + 3_600)
        let (authorityKey, key) = (try P256.PrivateKey.generate(), try P256.PrivateKey.generate())
        let authority = try Certificate.authority(key: authorityKey, commonName: "far", validity: validity)
        let leaf = try Certificate.server(
            publicKey: key.publicKey, commonName: "far", names: [.address("127.0.0.1"), .dns(name)], validity: validity,
            authority: authority, authorityKey: authorityKey)
        let tls = isSecure ? try TLSContext.server(chain: try leaf.pem() + authority.pem(), key: try key.pem()) : nil
        let loop = try EventLoop.start(name: "far")
        let box = Box()
        let server = try await HTTPServer.start(at: SocketAddress(ip: .loopback, port: 0), on: [loop], tls: tls) { _ in Service(box) }
        return FarServer(loop, server, try authority.pem(), content, box)
    }

    private init(_ loop: EventLoop, _ server: HTTPServer, _ authority: String, _ content: [UInt8], _ box: Box) {
        (self.loop, self.server, self.authority, self.box) = (loop, server, authority, box)
        var first = State()
        first.content = content
        state = Mutex(first)
        box.server.withLock { $0 = self }
    }

    func stop() {
        box.server.withLock { $0 = nil }
        server.stop()
        loop.stop()
        loop.join()
    }

    var host: String { "127.0.0.1:\(server.address.port)" }
    func change<R: Sendable>(_ body: (inout State) -> R) -> R { state.withLock { body(&$0) } }
    var requests: [Request] { change { $0.requests } }

    private func answer(_ exchange: HTTPExchange) async {
        let head = exchange.head
        let failure = change { state -> (Int, String)? in
            state.requests.append(
                Request(
                    method: head.method.rawValue, target: head.target, range: head.headers["range"],
                    condition: head.headers["if-range"]))
            return state.failures.isEmpty ? nil : state.failures.removeFirst()
        }
        if let failure { return exchange.respond(failure.0, ["location": "https://elsewhere.example/"], body: Array(failure.1.utf8)) }
        guard head.method == .get else {
            if change({ $0.takesNothing }) { return await exchange.untilOver() }
            guard let body = try? await exchange.body(maximum: 64 << 20) else { return }
            change { $0.received = body }
            return exchange.respond(200, ["etag": "\"up\""])
        }
        let (content, tag, cut, hold, tells) = change { state in
            defer { (state.cutAfter, state.holdsAfter) = (nil, nil) }
            return (state.content, state.tag, state.cutAfter ?? state.cutsAlways, state.holdsAfter, state.tells)
        }
        var start = 0
        if let range = head.headers["range"], head.headers["if-range"] == tag {
            start = Int(range.dropFirst(6).dropLast()) ?? 0
        }
        guard start < content.count || start == 0 else {
            return exchange.respond(416, ["content-range": "bytes */\(content.count)"], body: Array("none there".utf8))
        }
        var headers: HTTPHeaders = [:]
        if tells.tag { headers.set("etag", tag) }
        if let encoding = tells.encoding { headers.set("content-encoding", encoding) }
        if start > 0 { headers.set("content-range", "bytes \(start)-\(content.count - 1)/\(content.count)") }
        exchange.begin(start > 0 ? 206 : 200, headers, length: tells.length ? UInt64(content.count - start) : nil)
        var position = start
        while position < content.count {
            let end = min(position + 64 << 10, content.count, hold ?? .max, cut ?? .max)
            guard end > position else { break }
            guard (try? await exchange.send(Array(content[position..<end]))) != nil else { return }
            change { $0.sent += end - position }
            position = end
        }
        if position == content.count { return exchange.finish() }
        if cut != nil { return exchange.abort() }
        await exchange.untilOver()
    }
}

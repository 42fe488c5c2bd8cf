import Crypto
import Glibc
import Reactor
import Synchronization
import Transport

/// `cm-bench ws-echo`: Transport's own server, each message sent back.
enum EchoServer {
    private final class Echo: WebSocketDelegate {
        func webSocket(_ socket: WebSocketConnection, received message: RawSpan, isText: Bool) {
            socket.send(message, isText: isText)
        }
        func webSocketClosed(_ socket: WebSocketConnection, _ code: WebSocketCloseCode, _ reason: String) {}
    }

    private final class Service: HTTPService {
        /// It keeps nothing, so all connections of the loop share it.
        private let echo = Echo()

        func exchangeBegan(_ exchange: HTTPExchange) {
            guard WebSocketHandshake.isUpgrade(exchange.head) else { return answer(exchange) }
            do throws(HTTPRefusal) {
                let socket = try exchange.upgrade(maximumMessage: 16 << 20)
                socket.markAuthenticated()
                socket.delegate = echo
            } catch {
                exchange.refuse(error)
            }
        }

        /// Plain HTTP: a body comes back as it is.
        private func answer(_ exchange: HTTPExchange) {
            guard exchange.head.method == .post else {
                return exchange.respond(
                    200, ["content-type": "text/plain"], body: Array("an echo: POST something, or upgrade\n".utf8))
            }
            exchange.begin(200, ["content-type": "application/octet-stream"])
            exchange.readBody(to: Copier())
        }
    }

    private final class Copier: HTTPExchangeDelegate {
        func exchange(_ exchange: HTTPExchange, body: RawSpan) {
            if !exchange.write(body) { exchange.pauseBody() }
        }
        func exchangeBodyEnded(_ exchange: HTTPExchange) { exchange.finish() }
        func exchangeDrained(_ exchange: HTTPExchange) { exchange.resumeBody() }
        func exchangeEnded(_ exchange: HTTPExchange, _ error: TransportError?) {}
    }

    static func run(_ options: Options) throws(BenchError) {
        let text = options["listen"] ?? "127.0.0.1:0"
        guard let address = SocketAddress(text) else {
            throw BenchError(status: 2, "--listen must be an address and a port such as 127.0.0.1:0, not \(text)\n")
        }
        let isSecure = options["tls"] != nil
        let count = max(1, try options.number("loops", 1))
        let failure = Mutex<String?>(nil)
        do {
            let tls = isSecure ? try selfSigned() : nil
            let loops = try (0..<count).map { try EventLoop.start(name: "echo-\($0)") }
            guard let first = loops.first else { return }
            first.spawn {
                do throws(TransportError) {
                    let server = try await HTTPServer.start(at: address, on: loops, tls: tls) { _ in Service() }
                    BenchCommand.announce(server.address.description, isSecure: isSecure)
                } catch {
                    failure.withLock { $0 = error.message }
                    first.stop()
                }
            }
            first.join()
        } catch {
            throw BenchError(status: 4, "\(error)\n")
        }
        throw BenchError(status: 4, (failure.withLock { $0 } ?? "the loop ended") + "\n")
    }

    private static func selfSigned() throws -> TLSContext {
        let key = try P256.PrivateKey.generate()
        let leaf = try P256.PrivateKey.generate()
        let now = Int64(unixMilliseconds() / 1_000)
        let validity = CertificateValidity(notBefore: now - 60, notAfter: now + 86_400)
        let authority = try Certificate.authority(key: key, commonName: "cm-bench", validity: validity)
        let certificate = try Certificate.server(
            publicKey: leaf.publicKey, commonName: "cm-bench", names: [.address("127.0.0.1"), .dns("localhost")],
            validity: validity, authority: authority, authorityKey: key)
        return try TLSContext.server(chain: certificate.pem() + authority.pem(), key: leaf.pem())
    }
}

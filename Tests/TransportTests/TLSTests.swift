import Crypto
import Reactor
import Testing

@testable import Transport

/// An authority and a server's certificate for 127.0.0.1 and localhost.
struct TestIdentity: Sendable {
    let authority: Certificate
    let authorityPin: String
    let leafPin: String
    let chain: String
    let key: String

    init(chainAlsoShows other: Certificate? = nil) throws {
        let validity = CertificateValidity(notBefore: 1_600_000_000, notAfter: 4_000_000_000)
        let authorityKey = try P256.PrivateKey.generate()
        let leafKey = try P256.PrivateKey.generate()
        authority = try Certificate.authority(key: authorityKey, commonName: "test authority", validity: validity)
        let leaf = try Certificate.server(
            publicKey: leafKey.publicKey, commonName: "test", names: [.address("127.0.0.1"), .dns("localhost")],
            validity: validity, authority: authority, authorityKey: authorityKey)
        authorityPin = authorityKey.publicKey.fingerprint
        leafPin = leafKey.publicKey.fingerprint
        chain = try leaf.pem() + authority.pem() + (other?.pem() ?? "")
        key = try leafKey.pem()
    }
}

@Suite struct TLSTests {
    /// The code of the error that connecting with this trust to this server ends with; nil when it works.
    private func connect(
        _ identity: TestIdentity, _ trust: TLSTrust, host: String = "127.0.0.1"
    ) async throws -> TransportError.Code? {
        try await onLoop { loop in
            let server = try await HTTPServer.start(
                at: SocketAddress(ip: IPAddress(host) ?? .loopback, port: 0), on: [loop],
                tls: .server(chain: identity.chain, key: identity.key)
            ) { _ in ClosureService { (try? $0.upgrade())?.delegate = Echo() } }
            defer { server.stop() }
            var options = ClientOptions()
            options.tls = try .client(trust)
            let gatherer = Gatherer()
            do throws(TransportError) {
                let socket = try await WebSocketClient.connect(
                    to: ServerURL(isSecure: true, host: host, port: server.address.port), options: options,
                    delegate: gatherer)
                socket.send(text: "hello")
                await gatherer.until { !$0.messages.isEmpty }
                #expect(gatherer.messages == [Array("hello".utf8)])
                return nil
            } catch {
                return error.code
            }
        }
    }

    @Test func trust() async throws {
        let identity = try TestIdentity()
        let stranger = try TestIdentity()
        let authorities = TLSTrust.authorities(pem: try identity.authority.pem())
        #expect(try await connect(identity, .pins([identity.authorityPin])) == nil)
        #expect(try await connect(identity, .pins([identity.leafPin, stranger.leafPin])) == nil)
        #expect(try await connect(identity, authorities) == nil)
        #expect(try await connect(identity, authorities, host: "localhost") == nil)
        #expect(try await connect(identity, .handshakeInside) == nil)
        #expect(try await connect(identity, .pins([stranger.authorityPin])) == .untrusted)
        #expect(try await connect(identity, .systemRoots) == .untrusted)
        #expect(try await connect(identity, authorities, host: "127.0.0.2") == .untrusted)
        #expect(try await connect(stranger, authorities) == .untrusted)
    }

    @Test func aShownCertificateThatSignedNothingProvesNothing() async throws {
        let real = try TestIdentity()
        let impostor = try TestIdentity(chainAlsoShows: real.authority)
        #expect(try await connect(impostor, .pins([real.authorityPin])) == .untrusted)
    }

    @Test func reloadServesTheNewCertificateAndKeepsOldConnections() async throws {
        let first = try TestIdentity()
        let second = try TestIdentity()
        try await onLoop { loop in
            let tls = try TLSContext.server(chain: first.chain, key: first.key)
            let server = try await HTTPServer.start(
                at: SocketAddress(ip: .loopback, port: 0), on: [loop], tls: tls
            ) { _ in ClosureService { (try? $0.upgrade())?.delegate = Echo() } }
            defer { server.stop() }
            let url = ServerURL(isSecure: true, host: "127.0.0.1", port: server.address.port)
            var options = ClientOptions()
            options.tls = try .client(.pins([first.leafPin]))
            let old = Gatherer()
            let socket = try await WebSocketClient.connect(to: url, options: options, delegate: old)
            #expect(throws: TransportError.self) { try tls.reload(chain: first.chain, key: second.key) }
            try tls.reload(chain: second.chain, key: second.key)
            options.tls = try .client(.pins([second.leafPin]))
            _ = try await WebSocketClient.connect(to: url, options: options, delegate: Gatherer())
            socket.send(text: "still here")
            await old.until { !$0.messages.isEmpty }
            #expect(old.messages.count == 1)
        }
    }

    @Test func bothSidesExportTheSameMaterial() async throws {
        let identity = try TestIdentity()
        try await onLoop { loop in
            let kept = KeptSocket()
            let server = try await HTTPServer.start(
                at: SocketAddress(ip: .loopback, port: 0), on: [loop],
                tls: .server(chain: identity.chain, key: identity.key)
            ) { _ in
                ClosureService { exchange in
                    kept.socket = try? exchange.upgrade()
                    kept.socket?.delegate = Echo()
                }
            }
            defer { server.stop() }
            var options = ClientOptions()
            options.tls = try .client(.handshakeInside)
            let url = ServerURL(isSecure: true, host: "127.0.0.1", port: server.address.port)
            let socket = try await WebSocketClient.connect(to: url, options: options, delegate: Gatherer())
            let material = socket.exportKeyingMaterial(label: "EXPERIMENTAL test", count: 32)
            #expect(material?.count == 32)
            #expect(material == kept.socket?.exportKeyingMaterial(label: "EXPERIMENTAL test", count: 32))
            #expect(material != kept.socket?.exportKeyingMaterial(label: "EXPERIMENTAL other", count: 32))
            let other = try await WebSocketClient.connect(to: url, options: options, delegate: Gatherer())
            #expect(material != other.exportKeyingMaterial(label: "EXPERIMENTAL test", count: 32))
        }
    }

    @Test func largeMessagesBothWays() async throws {
        let identity = try TestIdentity()
        let isRight = try await onLoop { loop in
            let server = try await HTTPServer.start(
                at: SocketAddress(ip: .loopback, port: 0), on: [loop],
                tls: .server(chain: identity.chain, key: identity.key)
            ) { _ in ClosureService { (try? $0.upgrade(maximumMessage: 4 << 20))?.delegate = Echo() } }
            defer { server.stop() }
            var options = ClientOptions()
            options.tls = try .client(.pins([identity.authorityPin]))
            let gatherer = Gatherer()
            let socket = try await WebSocketClient.connect(
                to: ServerURL(isSecure: true, host: "127.0.0.1", port: server.address.port),
                maximumMessage: 4 << 20, options: options, delegate: gatherer)
            let message = (0..<3_000_000).map { UInt8(truncatingIfNeeded: $0 / 1_000) }
            for _ in 0..<3 { socket.send(message) }
            await gatherer.until { $0.messages.count == 3 }
            return gatherer.messages == [message, message, message]
        }
        #expect(isRight)
    }

    /// Ciphertext that the kernel has not taken counts as waiting, too: 64 KiB at a time come to exactly the high mark.
    @Test(.timeLimit(.minutes(1))) func aStreamedAnswerGoesOnWhenItsReaderHasCaughtUp() async throws {
        let identity = try TestIdentity()
        let count = try await onLoop { loop in
            let server = try await HTTPServer.start(
                at: SocketAddress(ip: .loopback, port: 0), on: [loop],
                tls: .server(chain: identity.chain, key: identity.key)
            ) { _ in
                ClosureService { exchange in
                    nonisolated(unsafe) let exchange = exchange
                    loop.spawn {
                        exchange.begin(200)
                        let piece = [UInt8](repeating: 120, count: 64 << 10)
                        for _ in 0..<300 { guard (try? await exchange.send(piece)) != nil else { return } }
                        exchange.finish()
                    }
                }
            }
            defer { server.stop() }
            var options = ClientOptions()
            options.tls = try .client(.pins([identity.authorityPin]))
            let http = HTTPClient(ServerURL(isSecure: true, host: "127.0.0.1", port: server.address.port), options: options)
            defer { http.close() }
            return try await http.request(.get, "/").body(maximum: 32 << 20).count
        }
        #expect(count == 300 * 64 << 10)
    }

    @Test func clientCertificatesAreOptionalButChecked() async throws {
        let identity = try TestIdentity()
        let member = try TestIdentity()
        let stranger = try TestIdentity()
        let shown: [String?] = try await onLoop { loop in
            let server = try await HTTPServer.start(
                at: SocketAddress(ip: .loopback, port: 0), on: [loop],
                tls: .server(
                    chain: identity.chain, key: identity.key, clientAuthorities: try member.authority.pem())
            ) { _ in
                ClosureService { exchange in
                    let print = exchange.clientCertificate.flatMap { try? Certificate(der: $0).fingerprint() } ?? "none"
                    exchange.respond(200, body: Array(print.utf8))
                }
            }
            defer { server.stop() }
            var shown: [String?] = []
            for client in [nil, stranger] {
                var options = ClientOptions()
                options.tls = try .client(
                    .pins([identity.leafPin]), chain: client?.chain, key: client?.key)
                let url = ServerURL(isSecure: true, host: "127.0.0.1", port: server.address.port)
                let http = HTTPClient(url, options: options)
                do throws(TransportError) {
                    let response = try await http.request(.get, "/")
                    shown.append(String(decoding: try await response.body(maximum: 100), as: UTF8.self))
                } catch {
                    shown.append(nil)
                }
                http.close()
            }
            return shown
        }
        #expect(shown == ["none", nil])
    }

    @Test func silentStrangersAreCutOff() async throws {
        let identity = try TestIdentity()
        let isOver = try await onLoop { loop in
            var configuration = HTTPServerConfiguration()
            configuration.tlsMilliseconds = 50
            let server = try await HTTPServer.start(
                at: SocketAddress(ip: .loopback, port: 0), on: [loop], configuration: configuration,
                tls: .server(chain: identity.chain, key: identity.key)
            ) { _ in ClosureService { $0.respond(204) } }
            defer { server.stop() }
            let client = try await RawClient.connect(server, loop)
            client.send([0x16, 0x03, 0x01])
            _ = await client.rest()
            return client.isOver
        }
        #expect(isOver)
    }
}

/// Test state that only the test's loop touches.
final class KeptSocket: @unchecked Sendable { var socket: WebSocketConnection? }

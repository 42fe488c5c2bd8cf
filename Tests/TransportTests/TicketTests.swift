import Crypto
import Reactor
import Testing

@testable import Transport

/// Sessions that are resumed with tickets.
@Suite struct TicketTests {
    private struct Seen: Equatable {
        var resumed: [Bool] = []
        var exported: [[UInt8]] = []
        var hasTicket = false
    }

    private static func key() throws -> TLSTicketKey { try #require(TLSTicketKey(Random.bytes(TLSTicketKey.count))) }

    /// Connects once for each set of keys, to a server that has just taken it into use (a new context each time, as after
    /// a restart), and says which connections were resumed.
    private func connect(
        _ generations: [[TLSTicketKey]], of identity: TestIdentity? = nil, trust: TLSTrust = .handshakeInside,
        ending: @escaping @Sendable (WebSocketConnection) -> Void = { $0.abort() }
    ) async throws -> Seen {
        let identity = try identity ?? TestIdentity()
        return try await onLoop { loop in
            var seen = Seen()
            var options = ClientOptions()
            options.tls = try .client(trust)
            let resumption = TLSResumption()
            options.resumption = resumption
            let tls = try TLSContext.server(chain: identity.chain, key: identity.key)
            let server = try await HTTPServer.start(
                at: SocketAddress(ip: .loopback, port: 0), on: [loop], tls: tls
            ) { _ in
                ClosureService { exchange in
                    let socket = try? exchange.upgrade()
                    socket?.delegate = Echo()
                    socket?.issueTicket()
                    socket?.send(text: "welcome")
                }
            }
            defer { server.stop() }
            let port = server.address.port
            for keys in generations {
                try tls.reload(chain: identity.chain, key: identity.key)
                tls.use(ticketKeys: keys)
                let url = ServerURL(isSecure: true, host: "127.0.0.1", port: port)
                let gatherer = Gatherer()
                let socket = try await WebSocketClient.connect(to: url, options: options, delegate: gatherer)
                await gatherer.until { !$0.messages.isEmpty }
                seen.resumed.append(socket.isResumed)
                seen.exported.append(socket.exportKeyingMaterial(label: "EXPERIMENTAL test", count: 32) ?? [])
                seen.hasTicket = resumption.hasTicket(of: "127.0.0.1:\(port)")
                ending(socket)
            }
            return seen
        }
    }

    @Test func aServerWithTheSameKeysResumesAfterARestart() async throws {
        let key = try Self.key()
        for ending: @Sendable (WebSocketConnection) -> Void in [{ $0.abort() }, { $0.close(.normal) }] {
            let seen = try await connect([[key], [key], [key]], ending: ending)
            #expect(seen.resumed == [false, true, true])
            #expect(seen.hasTicket)
            // What handshakes inside are bound to is another on each connection.
            #expect(Set(seen.exported).count == 3)
            #expect(seen.exported.allSatisfy { $0.count == 32 })
        }
    }

    @Test func theKeyBeforeStillOpensAndAnUnknownOneDoesNot() async throws {
        let (first, second) = (try Self.key(), try Self.key())
        #expect(try await connect([[first], [second, first], [second]]).resumed == [false, true, true])
        #expect(try await connect([[first], [second]]).resumed == [false, false])
    }

    @Test func withoutKeysThereAreNoTickets() async throws {
        let seen = try await connect([[], []])
        #expect(seen.resumed == [false, false])
        #expect(!seen.hasTicket)
    }

    @Test func whoTrustsCertificatesSeesOneEachTime() async throws {
        let key = try Self.key()
        let identity = try TestIdentity()
        let seen = try await connect([[key], [key]], of: identity, trust: .pins([identity.leafPin]))
        #expect(seen.resumed == [false, false])
        #expect(!seen.hasTicket)
    }

    @Test func keysHaveEightyBytes() {
        #expect(TLSTicketKey([UInt8](repeating: 1, count: 79)) == nil)
        #expect(TLSTicketKey([UInt8](repeating: 1, count: 80)) != nil)
    }
}

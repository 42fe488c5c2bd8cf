import Crypto
import Glibc
import Reactor
import Testing

@testable import Transport

@Suite struct LimitsAndProxiesTests {
    @Test func overflowOfAnAddressWaitsItsTurnAndOthersDoNotNotice() {
        var machine = AddressLimitStateMachine(limit: 2, parkedLimit: 2)
        let noisy = IPAddress("192.0.2.1")!
        #expect((1...5).map { machine.arrived(noisy, $0) } == [.admit, .admit, .park, .park, .refuse])
        #expect(machine.arrived(IPAddress("192.0.2.2")!, 6) == .admit)
        #expect((3...4).map { machine.spoke(noisy, $0, isReturning: false) } == [.park, .park])
        #expect(machine.released(noisy) == 3)
        #expect(machine.arrived(noisy, 7) == .park)
        #expect(machine.spoke(noisy, 7, isReturning: false) == .park)
        #expect((0..<5).map { _ in machine.released(noisy) } == [4, 7, nil, nil, nil])
        #expect(machine.addressCount == 1)
    }

    @Test func whoSaysNothingHasNoTurn() {
        var machine = AddressLimitStateMachine(limit: 1, parkedLimit: 2)
        let address = IPAddress("192.0.2.1")!
        #expect((1...3).map { machine.arrived(address, $0) } == [.admit, .park, .park])
        #expect(machine.released(address) == nil)
        // There is room when it speaks at last.
        #expect(machine.spoke(address, 3, isReturning: false) == .admit)
        machine.left(address, 2)
        #expect(machine.released(address) == nil)
        #expect(machine.addressCount == 0)
    }

    @Test func returningAgentsAndStrangersOfAnAddressTakeTurns() {
        var machine = AddressLimitStateMachine(limit: 1, parkedLimit: 3)
        let office = IPAddress("192.0.2.1")!
        #expect((1...4).map { machine.arrived(office, $0) } == [.admit, .park, .park, .park])
        #expect(machine.spoke(office, 2, isReturning: false) == .park)
        #expect((3...4).map { machine.spoke(office, $0, isReturning: true) } == [.park, .park])
        #expect((5...8).map { machine.arrived(office, $0) } == [.park, .park, .park, .refuse])
        // The rest of a first word shows the ticket.
        #expect([false, true, true].map { machine.spoke(office, 5, isReturning: $0) } == [.park, .park, .park])
        // A lane is full for itself only.
        #expect(machine.spoke(office, 6, isReturning: true) == .refuse)
        #expect(machine.spoke(office, 7, isReturning: false) == .park)
        machine.left(office, 4)
        #expect((0..<6).map { _ in machine.released(office) } == [3, 2, 5, 7, nil, nil])
        #expect(machine.addressCount == 0)
    }

    @Test func anIPv6SiteIsOneAddress() {
        var machine = AddressLimitStateMachine(limit: 1, parkedLimit: 0)
        #expect(machine.arrived(IPAddress("2001:db8:1:2::1")!, 1) == .admit)
        #expect(machine.arrived(IPAddress("2001:db8:1:2:ffff::9")!, 2) == .refuse)
        #expect(machine.arrived(IPAddress("2001:db8:1:3::1")!, 3) == .admit)
    }

    @Test func parkedConnectionsAreServedInTurn() async throws {
        let answers = try await onLoop { loop in
            var configuration = HTTPServerConfiguration()
            configuration.unauthenticatedPerAddress = 1
            configuration.parkedPerAddress = 1
            let server = try await HTTPServer.test(loop, configuration) { exchange in
                exchange.markAuthenticated()
                exchange.respond(200, body: Array("served".utf8))
            }
            defer { server.stop() }
            let silent = try await RawClient.connect(server, loop)
            let waiting = try await RawClient.connect(server, loop)
            let refused = try await RawClient.connect(server, loop)
            let nothing = await refused.rest()
            waiting.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            #expect(waiting.bytes.isEmpty)
            // Showing who it is makes room while the connection stays open.
            silent.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            let served = await waiting.rest()
            return (nothing, served, silent.isOver)
        }
        #expect(answers.0 == "")
        #expect(answers.1.hasSuffix("served"))
        #expect(!answers.2)
    }

    @Test func aReturningAgentDoesNotWaitForTheCrowdOfItsAddress() async throws {
        let identity = try TestIdentity()
        let key = try #require(TLSTicketKey(Random.bytes(TLSTicketKey.count)))
        let resumed = try await onLoop { loop in
            var configuration = HTTPServerConfiguration()
            configuration.unauthenticatedPerAddress = 1
            let tls = try TLSContext.server(chain: identity.chain, key: identity.key)
            tls.use(ticketKeys: [key])
            let server = try await HTTPServer.start(
                at: SocketAddress(ip: .loopback, port: 0), on: [loop], configuration: configuration, tls: tls
            ) { _ in
                ClosureService { exchange in
                    let socket = try? exchange.upgrade()
                    socket?.delegate = Echo()
                    socket?.markAuthenticated()
                    socket?.issueTicket()
                    socket?.send(text: "welcome")
                }
            }
            defer { server.stop() }
            var options = ClientOptions()
            options.tls = try .client(.handshakeInside)
            options.resumption = TLSResumption()
            let url = ServerURL(isSecure: true, host: "127.0.0.1", port: server.address.port)
            func connect() async throws -> Bool {
                let gatherer = Gatherer()
                let socket = try await WebSocketClient.connect(to: url, options: options, delegate: gatherer)
                await gatherer.until { !$0.messages.isEmpty }
                return socket.isResumed
            }
            _ = try await connect()
            // One has the only place, two wait in front; none of them ever says a word.
            var silent: [RawClient] = []
            for _ in 0..<3 { silent.append(try await RawClient.connect(server, loop)) }
            loop.post { [first = Confined(silent[0], on: loop)] in first.assumeOnLoop { $0.close() } }
            let resumed = try await connect()
            for client in silent { client.close() }
            return resumed
        }
        #expect(resumed)
    }

    @Test func aClientHelloThatEndsTooEarlyShowsNoTicket() {
        // Version, random, no session id, one suite, no compression, one extension of two bytes, pre_shared_key.
        let extensions: [UInt8] = [0, 43, 0, 2, 3, 4, 0, 41, 0, 1, 0]
        let body = [3, 3] + [UInt8](repeating: 7, count: 32) + [0, 0, 2, 0x13, 1, 1, 0, 0, UInt8(extensions.count)] + extensions
        let hello = [22, 3, 1, 0, UInt8(body.count + 4), 1, 0, 0, UInt8(body.count)] + body
        func shows(_ bytes: [UInt8]) -> Bool { ClientHello.offersTicket(bytes.span) }
        #expect(shows(hello))
        for count in 0..<(hello.count - 1) {
            // The last extension is seen by its four first bytes; one byte of content follows them here.
            #expect(!shows(Array(hello[..<count])))
        }
        #expect(!shows([23] + hello[1...]))
        #expect(!shows(Array("GET / HTTP/1.1\r\nHost: a\r\nAccept: text/plain, text/html\r\n\r\n".utf8)))
    }

    @Test func onlyTrustedProxiesAreBelieved() {
        let trusted = [AddressRange("10.0.0.0/8")!, AddressRange("::1")!]
        func client(_ peer: String, _ headers: HTTPHeaders) -> String {
            ForwardedAddress.client(peer: IPAddress(peer)!, headers: headers, trusted: trusted).description
        }
        #expect(client("192.0.2.9", ["x-forwarded-for": "1.1.1.1"]) == "192.0.2.9")
        #expect(client("10.1.1.1", ["x-forwarded-for": "1.1.1.1"]) == "1.1.1.1")
        // What a client writes itself stands in front of what the proxy saw.
        #expect(client("10.1.1.1", ["x-forwarded-for": "127.0.0.1, 1.1.1.1"]) == "1.1.1.1")
        #expect(client("10.1.1.1", ["x-forwarded-for": "2.2.2.2, 1.1.1.1, 10.2.2.2"]) == "1.1.1.1")
        #expect(client("10.1.1.1", ["x-forwarded-for": "2.2.2.2, junk"]) == "10.1.1.1")
        #expect(client("::1", ["forwarded": "for=\"[2001:db8::7]:1234\";proto=https"]) == "2001:db8::7")
        #expect(client("::1", ["forwarded": "for=unknown", "x-forwarded-for": "1.1.1.1"]) == "::1")
        #expect(client("10.1.1.1", [:]) == "10.1.1.1")
    }

    static let proxyHeader: [UInt8] =
        [13, 10, 13, 10, 0, 13, 10, 81, 85, 73, 84, 10, 0x21, 0x11, 0, 12]
        + [203, 0, 113, 7, 127, 0, 0, 1, 0x12, 0x34, 0x1F, 0x90]

    @Test(arguments: [true, false])
    func proxyProtocolOnlyFromTrustedProxies(isTrusted: Bool) async throws {
        let text = try await onLoop { loop in
            var configuration = HTTPServerConfiguration()
            if isTrusted { configuration.trustedProxies = [AddressRange("127.0.0.1")!] }
            let server = try await HTTPServer.test(loop, configuration) { exchange in
                exchange.respond(200, body: Array("you are \(exchange.address)".utf8))
            }
            defer { server.stop() }
            let client = try await RawClient.connect(server, loop)
            for byte in Self.proxyHeader {
                client.send([byte])
                await loop.sleep(milliseconds: 0)
            }
            return await client.request("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        }
        #expect(isTrusted ? text.hasSuffix("you are 203.0.113.7") : text.hasPrefix("HTTP/1.1 400"))
    }

    @Test(arguments: [
        "http://127.0.0.1:1", "http://user:secret@127.0.0.1:1", "socks5://127.0.0.1:1",
        "socks5://user:secret@127.0.0.1:1",
    ])
    func clientsGoThroughProxies(proxy: String) async throws {
        let identity = try TestIdentity()
        let (body, greeted) = try await onLoop { loop in
            let server = try await HTTPServer.start(
                at: SocketAddress(ip: .loopback, port: 0), on: [loop],
                tls: .server(chain: identity.chain, key: identity.key)
            ) { _ in ClosureService { $0.respond(200, body: Array("through".utf8)) } }
            defer { server.stop() }
            let relay = try TestProxy(loop, target: server.address)
            defer { relay.stop() }
            var options = ClientOptions()
            options.tls = try .client(.authorities(pem: identity.authority.pem()))
            options.proxy = try ClientProxy(proxy.replacing(":1", with: ":\(relay.port)"))
            // Only the proxy can know this port.
            let http = HTTPClient(ServerURL(isSecure: true, host: "localhost", port: 1), options: options)
            let answer = try await http.request(.get, "/")
            let body = try await answer.body(maximum: 100)
            http.close()
            return (body, relay.greeted)
        }
        #expect(body == Array("through".utf8))
        let text = String(decoding: greeted, as: UTF8.self)
        #expect(text.contains("localhost"))
        if proxy.hasPrefix("http"), proxy.contains("@") {
            #expect(text.contains("Basic dXNlcjpzZWNyZXQ="))
        }
    }

    @Test func proxiesThatRefuseAreNamed() {
        let proxy = try! ClientProxy("socks5://127.0.0.1:1")
        var machine = ProxyGreetingStateMachine(proxy, host: "a", port: 1)
        #expect(machine.received([5, 255].span) == .refused("the proxy accepts none of the ways to log in"))
        var web = ProxyGreetingStateMachine(try! ClientProxy("http://127.0.0.1:1"), host: "a", port: 1)
        #expect(web.received(Array("HTTP/1.1 407 No\r\n\r\n".utf8).span) == .refused("the proxy answered 407"))
    }
}

/// A proxy of both kinds that connects everybody to one target and answers as RFC 1928, 1929 and 9110 say.
final class TestProxy: Source {
    let port: UInt16
    private(set) var greeted: [UInt8] = []
    private let loop: EventLoop
    private let target: SocketAddress

    init(_ loop: EventLoop, target: SocketAddress) throws {
        self.loop = loop
        self.target = target
        let descriptor = try ListeningSocket.open(SocketAddress(ip: .loopback, port: 0))
        port = ListeningSocket.localAddress(descriptor)?.port ?? 0
        super.init(descriptor: descriptor)
        try loop.add(self)
    }

    func stop() {
        loop.remove(self)
        close(descriptor)
    }

    override func ready(_ readiness: Readiness) {
        var storage = sockaddr_storage()
        let accepted = acceptConnection(descriptor, &storage)
        guard accepted >= 0, let peer = SocketAddress(storage: storage) else { return }
        let stream = ByteStream(descriptor: accepted, peer: peer, context: StreamLoop.of(loop))
        try? stream.start(Greeter(self))
    }

    private final class Greeter: StreamHandler {
        private unowned let proxy: TestProxy
        private var step = 0
        init(_ proxy: TestProxy) {
            self.proxy = proxy
            super.init()
        }
        override func received(_ bytes: inout MutableRawSpan, on stream: ByteStream) -> Int {
            let input = bytes.bytes.withUnsafeBytes { Array($0) }
            proxy.greeted += input
            if input[0] == 5, step == 0 {
                step = 1
                let wantsLogin = input.dropFirst(2).contains(2)
                stream.send(([5, wantsLogin ? 2 : 0] as [UInt8]).span.bytes)
            } else if input[0] == 1 {
                let isRight = input == [1, 4] + Array("user".utf8) + [6] + Array("secret".utf8)
                stream.send(([1, isRight ? 0 : 1] as [UInt8]).span.bytes)
            } else {
                let answer: [UInt8] =
                    input[0] == 5 ? [5, 0, 0, 1, 0, 0, 0, 0, 0, 0] : Array("HTTP/1.1 200 Connected\r\nVia: x\r\n\r\n".utf8)
                stream.send(answer.span.bytes)
                proxy.relay(stream)
            }
            return input.count
        }
    }

    private func relay(_ near: ByteStream) {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
        _ = target.withSocketAddress { connect(descriptor, $0, $1) }
        let far = ByteStream(descriptor: descriptor, peer: target, context: StreamLoop.of(loop), connecting: true)
        near.hand(to: Pipe(far))
        try? far.start(Pipe(near))
    }

    private final class Pipe: StreamHandler {
        private weak var other: ByteStream?
        init(_ other: ByteStream) {
            self.other = other
            super.init()
        }
        override func received(_ bytes: inout MutableRawSpan, on stream: ByteStream) -> Int {
            other?.send(bytes.bytes)
            return bytes.byteCount
        }
        override func closed(_ stream: ByteStream, _ end: StreamEnd) { other?.close(.closed) }
    }
}

import Glibc
import JSON
import Kernel
import Reactor
import Synchronization

@testable import Transport
@testable import Web

/// Bearers are names. "nobody" holds nothing, "limited" is always over its rate, all others hold `rights`.
final class FixtureGate: Gate {
    let records = Mutex<[String]>([])
    let authentications = Atomic<Int>(0)
    let rights: Set<Right>

    init(_ rights: Set<Right> = ["client.read"]) { self.rights = rights }

    func admitStranger(_ address: String) throws(Problem) {}
    func authenticate(authorization: String?, address: String, correlation: String) async throws(Problem) -> Principal {
        authentications.add(1, ordering: .relaxed)
        guard let authorization, authorization.hasPrefix("Bearer ") else {
            throw Problem(401, "authentication-required", "send credentials")
        }
        let name = String(authorization.dropFirst(7))
        return Principal(kind: .user, id: name, address: address, correlation: correlation, credential: name)
    }
    func spend(_ principal: Principal) throws(Problem) -> RateLimitState? {
        guard principal.id != "limited" else { throw Problem(429, "rate-limited", "too many", retryAfter: 1) }
        return RateLimitState(limit: 100, remaining: 99, resetSeconds: 1)
    }
    func grants(_ principal: Principal, _ right: Right) -> Bool { principal.id != "nobody" && rights.contains(right) }
    private let ended = Mutex<(ids: Set<String>, watchers: [@Sendable () -> Void])>(([], []))

    func isLive(_ principal: Principal) -> Bool { ended.withLock { !$0.ids.contains(principal.id) } }
    func watch(_ principal: Principal, _ closed: @escaping @Sendable () -> Void) -> AnyObject? {
        guard isLive(principal) else { return nil }
        ended.withLock { $0.watchers.append(closed) }
        return self
    }
    /// The credential of this name holds no longer.
    func end(_ id: String) {
        let watchers = ended.withLock { ended in
            ended.ids.insert(id)
            return ended.watchers
        }
        for watcher in watchers { watcher() }
    }
    func recordRefusal(_ principal: Principal, _ right: Right, path: String, reason: String) async {
        records.withLock { $0.append("refused \(principal.id) \(path)") }
    }
    func recordRead(_ principal: Principal, action: String, path: String) async throws(Problem) {
        records.withLock { $0.append("\(action) \(principal.id) \(path)") }
    }
}

/// A table behind a server on a free loopback port, on a loop of its own.
final class WebFixture: Sendable {
    let table: RouteTable
    let gate: FixtureGate
    let loop: EventLoop
    let server: HTTPServer
    let pipeline: Pipeline

    init(
        _ core: [Route] = [], rights: Set<Right> = ["client.read"], times: WebSocketTimes = WebSocketTimes()
    ) async throws {
        gate = FixtureGate(rights)
        table = try RouteTable(core: core)
        pipeline = Pipeline(
            table: table, gate: gate, origins: OriginPolicy(hosts: [], origins: []), observe: { _ in })
        loop = try EventLoop.start(name: "web")
        server = try await HTTPServer.start(at: SocketAddress(ip: .loopback, port: 0), on: [loop]) { [pipeline] loop in
            WebService(pipeline: pipeline, loop: loop, times: times)
        }
    }

    deinit {
        server.stop()
        loop.stop()
    }

    func client() throws -> WireClient { try WireClient(port: server.address.port) }

    /// One request on a connection of its own; the whole answer as text.
    func call(
        _ method: String, _ target: String, token: String? = "reader", headers: [String] = [], body: [UInt8] = []
    ) throws -> String {
        let client = try client()
        var lines = ["\(method) \(target) HTTP/1.1", "Host: 127.0.0.1", "Connection: close"] + headers
        if let token { lines.append("Authorization: Bearer \(token)") }
        if !body.isEmpty { lines.append("Content-Length: \(body.count)") }
        try client.send(lines.joined(separator: "\r\n") + "\r\n\r\n")
        try client.send(body)
        return client.rest()
    }
}

struct WireFault: Error {}

/// A blocking TCP client on loopback; nothing waits longer than 20 s.
final class WireClient: Sendable {
    private let descriptor: Int32

    init(port: UInt16) throws {
        descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        var limit = timeval(tv_sec: 20, tv_usec: 0)
        for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
            setsockopt(descriptor, SOL_SOCKET, option, &limit, socklen_t(MemoryLayout<timeval>.size))
        }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        let status = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard status == 0 else { throw WireFault() }
    }

    deinit { close(descriptor) }

    func send(_ text: String) throws { try send(Array(text.utf8)) }

    func send(_ bytes: [UInt8]) throws {
        var offset = 0
        while offset < bytes.count {
            let sent = bytes[offset...].withUnsafeBytes { Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
            guard sent > 0 else { throw WireFault() }
            offset += sent
        }
    }

    /// Sends what the peer's window and the kernel take without waiting.
    func trySend(_ bytes: [UInt8]) -> Int {
        bytes.withUnsafeBytes {
            Glibc.send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT))
        }
    }

    func endSending() { shutdown(descriptor, Int32(SHUT_WR)) }

    /// What comes next; empty at the end.
    func next() -> [UInt8] {
        var buffer = [UInt8](repeating: 0, count: 65_536)
        let count = recv(descriptor, &buffer, buffer.count, 0)
        return count > 0 ? Array(buffer[..<count]) : []
    }

    /// Everything up to and with this text.
    func until(_ text: String) -> String {
        var bytes: [UInt8] = []
        while case let piece = next(), !piece.isEmpty {
            bytes += piece
            if String(decoding: bytes, as: UTF8.self).contains(text) { break }
        }
        return String(decoding: bytes, as: UTF8.self)
    }

    func rest() -> String {
        var bytes: [UInt8] = []
        while case let piece = next(), !piece.isEmpty { bytes += piece }
        return String(decoding: bytes, as: UTF8.self)
    }
}

/// Opens once; tasks wait for it.
final class TestLatch: Sendable {
    private struct State: ~Copyable {
        var isOpen = false
        var waiting: [UnsafeContinuation<Void, Never>] = []
    }
    private let state = Mutex(State())

    func open() {
        let waiting = state.withLock { state in
            state.isOpen = true
            defer { state.waiting = [] }
            return state.waiting
        }
        for continuation in waiting { continuation.resume() }
    }

    func wait() async {
        await withUnsafeContinuation { (continuation: UnsafeContinuation<Void, Never>) in
            let isOpen = state.withLock { state in
                if !state.isOpen { state.waiting.append(continuation) }
                return state.isOpen
            }
            if isOpen { continuation.resume() }
        }
    }
}

import Crypto
import Reactor

/// A proxy that a client goes through to reach its server.
public struct ClientProxy: Sendable, Equatable {
    public enum Kind: Sendable { case httpConnect, socks5 }
    public let kind: Kind
    public let host: String
    public let port: UInt16
    public let user: String?
    public let password: String?

    /// `http://[user:password@]host:port` or `socks5://[user:password@]host:port`; names are resolved by the proxy.
    /// Throws `invalid-argument` with what is wrong; the text is not repeated, because it may hold a password.
    public init(_ text: String) throws(TransportError) {
        let kind: Kind
        var rest = text[...]
        if text.hasPrefix("http://") {
            kind = .httpConnect
            rest = rest.dropFirst(7)
        } else if text.hasPrefix("socks5://") {
            kind = .socks5
            rest = rest.dropFirst(9)
        } else {
            throw TransportError(.invalid, "a proxy is http://host:port or socks5://host:port")
        }
        var user: String?
        var password: String?
        if let at = rest.lastIndex(of: "@") {
            let credentials = rest[..<at].split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            guard credentials.count == 2, (1...255).contains(credentials[0].utf8.count),
                (1...255).contains(credentials[1].utf8.count)
            else {
                throw TransportError(.invalid, "a proxy's credentials are user:password, 1 to 255 bytes each")
            }
            user = String(credentials[0])
            password = String(credentials[1])
            rest = rest[rest.index(after: at)...]
        }
        if rest.hasSuffix("/") { rest = rest.dropLast() }
        let address = try ServerURL("http://\(rest)")
        guard address.target == "/" else { throw TransportError(.invalid, "a proxy has no path") }
        self.kind = kind
        host = address.host
        port = address.port
        self.user = user
        self.password = password
    }
}

/// The greeting of a proxy: what to send, and when the way is free. A value: bytes in, actions out.
struct ProxyGreetingStateMachine {
    enum Action: Equatable {
        case more
        case send([UInt8], consumed: Int)
        /// The next byte is the server's.
        case open(consumed: Int)
        case refused(String)
    }
    private enum State {
        case connectAnswer(HTTPHeadScanner)
        case socksMethod
        case socksLogin
        case socksAnswer
    }
    private let proxy: ClientProxy
    private let host: String
    private let port: UInt16
    private var state: State
    /// The first bytes to send.
    let greeting: [UInt8]

    init(_ proxy: ClientProxy, host: String, port: UInt16) {
        self.proxy = proxy
        self.host = host
        self.port = port
        switch proxy.kind {
        case .httpConnect:
            state = .connectAnswer(HTTPHeadScanner())
            let authority = host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
            var request = Array("CONNECT \(authority) HTTP/1.1\r\nhost: \(authority)\r\n".utf8)
            if let user = proxy.user, let password = proxy.password {
                let credentials = Base64.encode(Array("\(user):\(password)".utf8))
                request.append(text: "proxy-authorization: Basic \(credentials)\r\n")
            }
            request.append(text: "\r\n")
            greeting = request
        case .socks5:
            state = .socksMethod
            greeting = proxy.user == nil ? [5, 1, 0] : [5, 2, 0, 2]
        }
    }

    mutating func received(_ input: Span<UInt8>) -> Action {
        switch state {
        case .connectAnswer(var scanner):
            do throws(HTTPRefusal) {
                let limits = HTTPLimits()
                guard let end = try scanner.end(of: input, limits: limits) else {
                    state = .connectAnswer(scanner)
                    return .more
                }
                let head = try HTTPResponseHead.parsing(input.extracting(0..<end), answering: .connect, limits: limits)
                guard head.status >= 200, head.status < 300 else {
                    return .refused("the proxy answered \(head.status)")
                }
                return .open(consumed: end)
            } catch {
                return .refused("the proxy does not speak HTTP: \(error.message)")
            }
        case .socksMethod:
            guard input.count >= 2 else { return .more }
            guard input[0] == 5 else { return .refused("the proxy does not speak SOCKS 5") }
            switch input[1] {
            case 0:
                state = .socksAnswer
                return .send(request(), consumed: 2)
            case 2:
                guard let user = proxy.user, let password = proxy.password else {
                    return .refused("the proxy wants a user and a password")
                }
                state = .socksLogin
                return .send(
                    [1, UInt8(user.utf8.count)] + Array(user.utf8) + [UInt8(password.utf8.count)]
                        + Array(password.utf8), consumed: 2)
            default: return .refused("the proxy accepts none of the ways to log in")
            }
        case .socksLogin:
            guard input.count >= 2 else { return .more }
            guard input[1] == 0 else { return .refused("the proxy refused the user or the password") }
            state = .socksAnswer
            return .send(request(), consumed: 2)
        case .socksAnswer:
            guard input.count >= 5 else { return .more }
            guard input[0] == 5 else { return .refused("the proxy does not speak SOCKS 5") }
            guard input[1] == 0 else { return .refused("the proxy answered: \(Self.reason(input[1]))") }
            let addressBytes: Int
            switch input[3] {
            case 1: addressBytes = 4
            case 3: addressBytes = 1 + Int(input[4])
            case 4: addressBytes = 16
            default: return .refused("the proxy's answer holds an unknown kind of address")
            }
            let total = 4 + addressBytes + 2
            return input.count >= total ? .open(consumed: total) : .more
        }
    }

    /// RFC 1928 §4: connect to the name or address.
    private func request() -> [UInt8] {
        var request: [UInt8] = [5, 1, 0]
        if let address = IPAddress(host) {
            if address.isV4 {
                request.append(1)
                for shift in [24, 16, 8, 0] { request.append(UInt8(truncatingIfNeeded: address.low >> UInt64(shift))) }
            } else {
                request.append(4)
                for half in [address.high, address.low] {
                    for shift in stride(from: 56, through: 0, by: -8) {
                        request.append(UInt8(truncatingIfNeeded: half >> UInt64(shift)))
                    }
                }
            }
        } else {
            request.append(3)
            request.append(UInt8(clamping: host.utf8.count))
            request += Array(host.utf8.prefix(255))
        }
        return request + [UInt8(port >> 8), UInt8(port & 0xFF)]
    }

    /// RFC 1928 §6.
    private static func reason(_ code: UInt8) -> String {
        switch code {
        case 1: "general failure"
        case 2: "not allowed by its rules"
        case 3: "network unreachable"
        case 4: "host unreachable"
        case 5: "connection refused"
        case 6: "time to live expired"
        case 7: "command not supported"
        case 8: "kind of address not supported"
        default: "code \(code)"
        }
    }
}

/// Goes through a proxy's greeting on a stream and then pauses it for the next handler.
final class ProxyGreetingHandler: StreamHandler {
    private var machine: ProxyGreetingStateMachine
    private let signal = LoopSignal()
    private var result: Result<Void, TransportError>?

    init(_ machine: ProxyGreetingStateMachine) {
        self.machine = machine
        super.init()
    }

    func run(_ stream: ByteStream, within milliseconds: UInt64) async throws(TransportError) {
        stream.hand(to: self)
        let greeting = machine.greeting
        stream.send(greeting.span.bytes)
        let timer = Timer { [weak stream] in
            stream?.close(.timeout("the proxy did not open the way within \(milliseconds) ms"))
        }
        let loop = stream.loop
        loop.schedule(timer, afterMilliseconds: milliseconds)
        stream.resume()
        while result == nil { await signal.wait { result != nil } }
        loop.cancel(timer)
        try result?.get()
    }

    override func received(_ bytes: inout MutableRawSpan, on stream: ByteStream) -> Int {
        switch machine.received(Span(_bytes: bytes.bytes)) {
        case .more: return 0
        case .send(let answer, let consumed):
            stream.send(answer.span.bytes)
            return consumed
        case .open(let consumed):
            stream.pause()
            finish(.success(()))
            return consumed
        case .refused(let reason):
            finish(.failure(TransportError(.proxy, reason)))
            stream.close(.closed)
            return bytes.byteCount
        }
    }

    override func closed(_ stream: ByteStream, _ end: StreamEnd) { finish(.failure(end.error)) }

    private func finish(_ value: Result<Void, TransportError>) {
        if result == nil { result = value }
        signal.wake()
    }
}

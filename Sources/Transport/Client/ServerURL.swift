/// Where a server is: `https://host:port/path`, `wss://…`, or their plain forms. Immutable.
public struct ServerURL: Sendable, Hashable, CustomStringConvertible {
    public let isSecure: Bool
    /// A name or an address, without brackets.
    public let host: String
    public let port: UInt16
    /// Begins with `/`; holds the query too.
    public let target: String

    public init(isSecure: Bool, host: String, port: UInt16, target: String = "/") {
        self.isSecure = isSecure
        self.host = host
        self.port = port
        self.target = target
    }

    /// Throws `invalid-argument` with what is wrong.
    public init(_ text: String) throws(TransportError) {
        func wrong(_ why: String) -> TransportError {
            TransportError(.invalid, "'\(text)' is not a server URL such as https://core.example:8443: \(why)")
        }
        let schemes: [(String, Bool, UInt16)] = [
            ("https://", true, 443), ("http://", false, 80), ("wss://", true, 443), ("ws://", false, 80),
        ]
        guard let (scheme, secure, standard) = schemes.first(where: { text.lowercased().hasPrefix($0.0) }) else {
            throw wrong("it must begin with https://, http://, wss:// or ws://")
        }
        let rest = text.dropFirst(scheme.count)
        guard rest.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F && $0 != 0x23 }) else {
            throw wrong("it holds a space, a fragment or a byte that is not ASCII")
        }
        let slash = rest.firstIndex { $0 == "/" || $0 == "?" } ?? rest.endIndex
        let authority = rest[..<slash]
        guard !authority.contains("@") else { throw wrong("credentials do not belong into a URL") }
        var name = authority
        var port = standard
        if authority.hasPrefix("[") {
            guard let end = authority.firstIndex(of: "]") else { throw wrong("the bracket of the address is open") }
            name = authority[authority.index(after: authority.startIndex)..<end]
            let after = authority[authority.index(after: end)...]
            if !after.isEmpty {
                guard after.hasPrefix(":"), let number = UInt16(after.dropFirst()), number > 0 else {
                    throw wrong("the port must be a number from 1 to 65535")
                }
                port = number
            }
            guard IPAddress(String(name)) != nil else { throw wrong("\(name) is not an IPv6 address") }
        } else if let colon = authority.firstIndex(of: ":") {
            name = authority[..<colon]
            guard let number = UInt16(authority[authority.index(after: colon)...]), number > 0 else {
                throw wrong("the port must be a number from 1 to 65535")
            }
            port = number
        }
        guard !name.isEmpty, name.utf8.count <= 253 else { throw wrong("the host is missing or too long") }
        let path = String(rest[slash...])
        self.init(
            isSecure: secure, host: String(name), port: port,
            target: path.isEmpty ? "/" : path.hasPrefix("/") ? path : "/" + path)
    }

    /// The same server, another target.
    public func with(target: String) -> ServerURL {
        ServerURL(isSecure: isSecure, host: host, port: port, target: target)
    }

    /// The value of the Host field.
    public var authority: String {
        let name = host.contains(":") ? "[\(host)]" : host
        return port == (isSecure ? 443 : 80) ? name : "\(name):\(port)"
    }

    public var description: String { "\(isSecure ? "https" : "http")://\(authority)\(target)" }
}

import Kernel
import Transport

/// Which names the server answers to, and which other sites' pages may read its answers.
///
/// A name that is neither an address, `localhost` nor configured is refused: otherwise a page that rebinds its own name
/// to this machine's address would be of the same origin as the API.
public struct OriginPolicy: Sendable {
    /// Lower-case host names without port; `*` allows any.
    public var hosts: [String]
    /// Origins as browsers send them, `https://console.example`.
    public var origins: [String]

    public init(hosts: [String] = [], origins: [String] = []) {
        self.hosts = hosts.map { $0.lowercased() }
        self.origins = origins.map { $0.lowercased() }
    }

    func check(_ head: HTTPRequestHead) throws(Problem) {
        // An address and no origin: programs, that is nearly everybody. Makes no text.
        if head.origin == nil, head.headers.withValue("host", OriginPolicy.isAddressAndPort) == true { return }
        guard let host = head.headers["host"]?.lowercased() else { throw Problem(400, "invalid", "the Host field is missing") }
        let name = OriginPolicy.name(of: host)
        guard OriginPolicy.isAddress(name.utf8) || name == "localhost" || hosts.contains(name) || hosts.contains("*") else {
            throw Problem(
                421, "host-unknown",
                "this server does not answer to the name \"\(name.prefix(255))\"; list it in the setting http.hosts")
        }
        // "null" is any sandboxed or local page: foreign like the others.
        guard let origin = head.origin?.lowercased() else { return }
        guard OriginPolicy.authority(of: origin) == host || origins.contains(origin) else {
            throw Problem(
                403, "origin-refused",
                "pages of \(origin.prefix(255)) may not call this server; list the origin in the setting http.origins")
        }
    }

    /// The field values for a listed foreign origin.
    func headers(for head: HTTPRequestHead) -> HTTPHeaders? {
        guard let origin = head.origin, origins.contains(origin.lowercased()) else { return nil }
        return [
            "access-control-allow-origin": origin,
            "access-control-expose-headers": "location, etag, ratelimit-limit, ratelimit-remaining, ratelimit-reset, retry-after",
            "vary": "origin",
        ]
    }

    private static func authority(of origin: String) -> String {
        let parts = origin.split(separator: "/", maxSplits: 2, omittingEmptySubsequences: false)
        guard parts.count == 3, parts[0].hasSuffix(":"), parts[1].isEmpty else { return origin }
        return String(parts[2])
    }

    private static func name(of host: String) -> String {
        let bytes = host.utf8
        if bytes.first == 0x5B, let end = bytes.firstIndex(of: 0x5D) { return String(host[...end]) }
        guard let colon = bytes.firstIndex(of: 0x3A) else { return host }
        return String(host[..<colon])
    }

    private static func isAddressAndPort(_ host: Span<UInt8>) -> Bool {
        guard host.count > 0, host[0] != 0x5B else { return false }
        var end = 0
        while end < host.count, host[end] != 0x3A { end += 1 }
        return host.extracting(0..<end).withUnsafeBufferPointer { isAddress($0) }
    }

    /// Four decimal numbers below 256 with dots between, or an IPv6 address in brackets.
    private static func isAddress(_ name: some Collection<UInt8>) -> Bool {
        if name.first == 0x5B { return true }
        var parts = 1
        var value = -1
        for byte in name {
            switch byte {
            case 0x30...0x39:
                value = max(value, 0) * 10 + Int(byte - 0x30)
                guard value < 256 else { return false }
            case 0x2E where value >= 0:
                parts += 1
                value = -1
            default: return false
            }
        }
        return parts == 4 && value >= 0
    }
}

/// A request's head after all checks of RFC 9112 that need no body. An object, since it goes from hand to hand, and because a
/// connection that repeats its head has it read once (`HTTPKnownHead`).
public final class HTTPRequestHead: Sendable {
    public let method: HTTPMethod
    /// The target as sent, in origin form (`/path?query`) or `*`. An absolute target has been cut to this; its
    /// authority then stands in `host`.
    public let target: String
    /// 0 or 1: HTTP/1.0 or HTTP/1.1.
    public let minorVersion: Int
    public let headers: HTTPHeaders
    public let framing: HTTPFraming
    /// The authority that the client asked for; empty only in HTTP/1.0.
    public let host: String

    /// The target's path, still percent-encoded, without the query.
    public var path: Substring { target.utf8.firstIndex(of: 0x3F).map { target[..<$0] } ?? target[...] }
    /// Whether the target's path is this one, letter by letter. Makes no text.
    public func isPath(_ path: String) -> Bool {
        let target = target.utf8Span.span
        let count = path.utf8.count
        guard target.count == count || target.count > count && target[count] == 0x3F else { return false }
        return target.extracting(0..<count).matches(path)
    }
    /// What follows the first `?`, still encoded; nil without one.
    public var query: Substring? {
        target.utf8.firstIndex(of: 0x3F).map { target[target.utf8.index(after: $0)...] }
    }
    /// What nearly every request is asked for.
    public let expectsContinue: Bool
    public let keepsAlive: Bool
    public let authorization: String?
    public let origin: String?

    init(
        method: HTTPMethod, target: String, minorVersion: Int, headers: HTTPHeaders, framing: HTTPFraming, host: String
    ) {
        self.method = method
        self.target = target
        self.minorVersion = minorVersion
        self.headers = headers
        self.framing = framing
        self.host = host
        expectsContinue = minorVersion >= 1 && headers.list("expect", contains: "100-continue")
        keepsAlive =
            minorVersion >= 1 ? !headers.list("connection", contains: "close") : headers.list("connection", contains: "keep-alive")
        authorization = headers["authorization"]
        origin = headers["origin"]
    }

    /// `head` is a whole head, as measured by `HTTPHeadScanner`.
    static func parsing(_ head: Span<UInt8>, limits: HTTPLimits) throws(HTTPRefusal) -> HTTPRequestHead {
        let start = head[0] == HTTPBytes.carriageReturn ? 2 : 0
        var end = start
        while head[end] != HTTPBytes.carriageReturn { end += 1 }
        let line = head.extracting(start..<end)

        var methodEnd = 0
        while methodEnd < line.count, HTTPBytes.isToken(line[methodEnd]) { methodEnd += 1 }
        guard methodEnd > 0, methodEnd < line.count, line[methodEnd] == HTTPBytes.space else {
            throw HTTPRefusal(400, "the request line does not begin with a method and one space")
        }
        var targetEnd = methodEnd + 1
        while targetEnd < line.count, line[targetEnd] > HTTPBytes.space, line[targetEnd] < 0x7F { targetEnd += 1 }
        let targetBytes = line.extracting((methodEnd + 1)..<targetEnd)
        guard targetBytes.count > 0, targetEnd < line.count, line[targetEnd] == HTTPBytes.space else {
            throw HTTPRefusal(400, "the request target is empty or holds a byte that is not visible ASCII")
        }
        guard targetBytes.count <= limits.targetBytes else {
            throw HTTPRefusal(414, "the request target is longer than \(limits.targetBytes) bytes")
        }
        let minorVersion = try version(line.extracting((targetEnd + 1)..<line.count))
        guard let method = HTTPMethod(bytes: line.extracting(0..<methodEnd)) else {
            throw HTTPRefusal(501, "unknown method")
        }
        let headers = try HTTPHeaders.parsing(head, from: end + 2, limit: limits.fieldCount)
        let framing = try HTTPFraming.declared(by: headers, minorVersion: minorVersion) ?? .none

        let hosts = headers.occurrences("host")
        guard hosts == 1 || (hosts == 0 && minorVersion == 0) else {
            throw HTTPRefusal(400, hosts == 0 ? "the Host field is missing" : "more than one Host field")
        }
        var host = headers["host"] ?? ""
        guard isAuthority(host.utf8Span.span) else { throw HTTPRefusal(400, "the Host field is not a host and port") }
        var target = String(repairing: targetBytes)
        if targetBytes[0] != 0x2F {
            (host, target) = try absolute(target, method: method, host: host)
        }
        for index in targetBytes.indices where targetBytes[index] == 0x23 {
            throw HTTPRefusal(400, "a fragment (#) in the request target")
        }
        return HTTPRequestHead(
            method: method, target: target, minorVersion: minorVersion, headers: headers, framing: framing,
            host: host)
    }

    private static func version(_ bytes: Span<UInt8>) throws(HTTPRefusal) -> Int {
        if bytes.matches("HTTP/1.1") { return 1 }
        if bytes.matches("HTTP/1.0") { return 0 }
        if bytes.count == 8, bytes.extracting(0..<5).matches("HTTP/") {
            throw HTTPRefusal(505, "only HTTP/1.1 and HTTP/1.0 are spoken here")
        }
        throw HTTPRefusal(400, "the request line does not end with HTTP/1.1")
    }

    /// RFC 9112 §3.2.2: a server accepts the absolute form, and it overrides Host.
    private static func absolute(
        _ target: String, method: HTTPMethod, host: String
    ) throws(HTTPRefusal) -> (String, String) {
        if target == "*", method == .options { return (host, target) }
        for scheme in ["http://", "https://"] where target.utf8.count > scheme.utf8.count {
            let prefix = target.utf8Span.span.extracting(0..<scheme.utf8.count)
            guard prefix.matchesIgnoringCase(scheme) else { continue }
            let rest = target.utf8.dropFirst(scheme.utf8.count)
            let slash = rest.firstIndex { $0 == 0x2F || $0 == 0x3F } ?? rest.endIndex
            let authority = String(target[rest.startIndex..<slash])
            guard !authority.isEmpty, isAuthority(authority.utf8Span.span) else { break }
            let path = String(target[slash...])
            return (authority, path.utf8.first == 0x2F ? path : "/" + path)
        }
        throw HTTPRefusal(method == .connect ? 501 : 400, "the request target must begin with / (origin form)")
    }

    /// Host and port without user information: letters, digits and the marks of RFC 3986 §3.2.2.
    private static func isAuthority(_ bytes: Span<UInt8>) -> Bool {
        guard bytes.count <= 270 else { return false }
        for index in bytes.indices {
            switch bytes[index] {
            case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x2E, 0x3A, 0x5B, 0x5D, 0x5F, 0x7E, 0x25: continue
            default: return false
            }
        }
        return true
    }
}

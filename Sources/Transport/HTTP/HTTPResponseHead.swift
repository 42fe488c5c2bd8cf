/// A response's head as the client reads it.
public struct HTTPResponseHead: Sendable {
    public let status: Int
    public let minorVersion: Int
    public let headers: HTTPHeaders
    public let framing: HTTPFraming

    public var keepsAlive: Bool {
        guard framing != .untilClose else { return false }
        return minorVersion >= 1
            ? !headers.list("connection", contains: "close") : headers.list("connection", contains: "keep-alive")
    }

    /// `head` is a whole head; `method` is that of the request it answers (a HEAD has no body, whatever it says).
    static func parsing(
        _ head: Span<UInt8>, answering method: HTTPMethod, limits: HTTPLimits
    ) throws(HTTPRefusal) -> HTTPResponseHead {
        var end = 0
        while head[end] != HTTPBytes.carriageReturn { end += 1 }
        let line = head.extracting(0..<end)
        guard line.count >= 12, line.extracting(0..<7).matches("HTTP/1."), line[8] == HTTPBytes.space else {
            throw HTTPRefusal(502, "the answer is not HTTP/1.x")
        }
        let minorVersion: Int
        switch line[7] {
        case 0x30: minorVersion = 0
        case 0x31: minorVersion = 1
        default: throw HTTPRefusal(502, "the answer is not HTTP/1.1 or HTTP/1.0")
        }
        var status = 0
        for index in 9..<12 {
            guard line[index] >= 0x30, line[index] <= 0x39 else {
                throw HTTPRefusal(502, "the status is not a number of three digits")
            }
            status = status * 10 + Int(line[index] - 0x30)
        }
        guard status >= 100, line.count == 12 || line[12] == HTTPBytes.space else {
            throw HTTPRefusal(502, "the status is not a number of three digits")
        }
        for index in 12..<line.count where !HTTPBytes.isFieldValue(line[index]) {
            throw HTTPRefusal(502, "a control byte in the reason phrase")
        }
        let headers = try HTTPHeaders.parsing(head, from: end + 2, limit: limits.fieldCount)
        let declared = try HTTPFraming.declared(by: headers, minorVersion: minorVersion)
        let hasNoBody =
            method == .head || status < 200 || status == 204 || status == 304
            || (method == .connect && status < 300)
        return HTTPResponseHead(
            status: status, minorVersion: minorVersion, headers: headers,
            framing: hasNoBody ? .none : declared ?? .untilClose)
    }
}

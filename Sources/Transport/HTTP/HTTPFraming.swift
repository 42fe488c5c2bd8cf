/// How the end of a message's body is found (RFC 9112 §6).
public enum HTTPFraming: Sendable, Equatable {
    case none
    case length(UInt64)
    case chunked
    /// Responses only: the body ends with the connection.
    case untilClose

    /// Everything by which two parties could come to disagree about where a message ends is refused, not repaired:
    /// request smuggling lives on such repairs (RFC 9112 §11.2).
    static func declared(by headers: HTTPHeaders, minorVersion: Int) throws(HTTPRefusal) -> HTTPFraming? {
        let codings = headers.occurrences("transfer-encoding")
        let lengths = headers.occurrences("content-length")
        if codings > 0 {
            guard lengths == 0 else {
                throw HTTPRefusal(400, "both Content-Length and Transfer-Encoding are present")
            }
            guard minorVersion >= 1 else {
                throw HTTPRefusal(400, "Transfer-Encoding in an HTTP/1.0 message")
            }
            guard codings == 1 else { throw HTTPRefusal(400, "more than one Transfer-Encoding field") }
            let coding = headers["transfer-encoding"] ?? ""
            guard coding.utf8Span.span.matchesIgnoringCase("chunked") else {
                throw HTTPRefusal(501, "transfer coding other than chunked")
            }
            return .chunked
        }
        guard lengths > 0 else { return nil }
        guard lengths == 1 else { throw HTTPRefusal(400, "more than one Content-Length field") }
        let text = headers["content-length"] ?? ""
        var length: UInt64 = 0
        let digits = text.utf8Span.span
        guard digits.count > 0, digits.count <= 18 else {
            throw HTTPRefusal(400, "Content-Length is not a number of at most 18 digits")
        }
        for index in digits.indices {
            guard digits[index] >= 0x30, digits[index] <= 0x39 else {
                throw HTTPRefusal(400, "Content-Length is not a plain decimal number")
            }
            length = length * 10 + UInt64(digits[index] - 0x30)
        }
        return .length(length)
    }
}

/// Finds the end of a head in bytes that arrive in pieces, and refuses a bad line end the moment it is seen.
/// Looks at each byte once, however small the pieces are.
struct HTTPHeadScanner {
    private var scanned = 0
    private var lineStart = 0
    private var lines = 0

    /// `input` begins with the head's first byte each time. The count of the head's bytes with its empty line, or nil
    /// while that has not arrived.
    mutating func end(of input: Span<UInt8>, limits: HTTPLimits) throws(HTTPRefusal) -> Int? {
        let count = min(input.count, limits.headBytes)
        while scanned < count {
            let byte = input[scanned]
            if byte == HTTPBytes.lineFeed {
                guard scanned > lineStart, input[scanned - 1] == HTTPBytes.carriageReturn else {
                    throw HTTPRefusal(400, "a line ends with a bare line feed; lines end with CR LF")
                }
                if scanned == lineStart + 1, lines > 0 {
                    return scanned + 1
                }
                // RFC 9112 §2.2: an empty line before the request line is ignored, once.
                if scanned == lineStart + 1, scanned > 1 {
                    throw HTTPRefusal(400, "more than one empty line before the request line")
                }
                if scanned > lineStart + 1 { lines += 1 }
                guard lines <= limits.fieldCount + 1 else {
                    throw HTTPRefusal(431, "more than \(limits.fieldCount) header fields")
                }
                lineStart = scanned + 1
            } else if scanned > lineStart, input[scanned - 1] == HTTPBytes.carriageReturn {
                throw HTTPRefusal(400, "a carriage return without a line feed")
            } else if byte == 0 {
                throw HTTPRefusal(400, "a NUL byte in the head")
            }
            scanned += 1
            // What follows a carriage return is looked at above; of plain text nothing else can be wrong here.
            if byte != HTTPBytes.carriageReturn { scanned = min(input.plainPrefix(from: scanned), count) }
        }
        guard lines > 0 || scanned - lineStart <= limits.targetBytes + 32 else {
            throw HTTPRefusal(414, "the request target is longer than \(limits.targetBytes) bytes")
        }
        guard input.count < limits.headBytes else {
            throw HTTPRefusal(431, "the head is longer than \(limits.headBytes) bytes")
        }
        return nil
    }

    mutating func reset() { self = HTTPHeadScanner() }
}

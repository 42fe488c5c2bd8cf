import Transport

/// What the path of a route may look like, and which two of them could match one request.
enum RoutePattern {
    static let maximumBytes = 256
    static let maximumSegments = 16

    /// What is wrong with a plugin's pattern; `nil` if nothing is. Fixed segments are of unreserved characters
    /// (RFC 3986 §2.3), so that no request can spell them in two ways.
    static func fault(_ pattern: String) -> String? {
        guard pattern.utf8.count <= maximumBytes else { return "it is longer than \(maximumBytes) bytes" }
        guard pattern.hasPrefix("/"), pattern != "/", !pattern.hasSuffix("/") else {
            return "it must begin with \"/\" and not end with it"
        }
        let segments = pattern.dropFirst().split(separator: "/", omittingEmptySubsequences: false)
        guard segments.count <= maximumSegments else { return "it has more than \(maximumSegments) segments" }
        var names: Set<Substring> = []
        for segment in segments {
            guard !segment.isEmpty, segment != ".", segment != ".." else { return "it has an empty or dot segment" }
            if segment.hasPrefix("{") {
                let name = segment.dropFirst().dropLast()
                guard segment.hasSuffix("}"), (1...64).contains(name.utf8.count), name.utf8.allSatisfy(isNameByte) else {
                    return "\"\(segment)\" is no parameter: braces around letters, digits and _"
                }
                guard names.insert(name).inserted else { return "it has the parameter \"\(name)\" twice" }
            } else if !segment.utf8.allSatisfy({ isNameByte($0) || $0 == 0x2D || $0 == 0x2E || $0 == 0x7E }) {
                return "\"\(segment)\" has other characters than letters, digits and -._~"
            }
        }
        return nil
    }

    private static func isNameByte(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x5F: true
        default: false
        }
    }

    /// Whether the pattern is the prefix itself or lies below it, segment by segment.
    static func lies(_ pattern: String, below prefix: String) -> Bool {
        let wanted = prefix.split(separator: "/")
        let segments = pattern.split(separator: "/")
        return !wanted.isEmpty && segments.starts(with: wanted)
    }

    /// Whether some path is matched by both. Parameters match every segment.
    static func overlap(_ left: [Substring], _ right: [Substring]) -> Bool {
        left.count == right.count
            && zip(left, right).allSatisfy { $0 == $1 || $0.hasPrefix("{") || $1.hasPrefix("{") }
    }

    /// The methods that a plugin's route may have.
    static let methods: Set<HTTPMethod> = [.get, .post, .put, .patch, .delete]
}

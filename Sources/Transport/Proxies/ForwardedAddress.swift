/// Finds the client behind trusted proxies: `Forwarded` (RFC 7239), else `X-Forwarded-For`.
enum ForwardedAddress {
    /// `peer`, unless it is trusted and says otherwise. Each proxy appends what it saw, so the list is read from its end
    /// and belief ends at the first address that is not a trusted proxy; what stands before it anybody can have written.
    static func client(peer: IPAddress, headers: HTTPHeaders, trusted: [AddressRange]) -> IPAddress {
        guard !trusted.isEmpty, isTrusted(peer, trusted) else { return peer }
        let forwarded = headers.values("forwarded")
        let hops =
            forwarded.isEmpty
            ? headers.values("x-forwarded-for").flatMap { $0.split(separator: ",").map { node(String($0)) } }
            : forwarded.flatMap { $0.split(separator: ",").map { forNode(String($0)) } }
        var client = peer
        for hop in hops.suffix(32).reversed() {
            // `unknown`, a name, or nonsense: the last address that we do know counts.
            guard let hop else { break }
            client = hop
            if !isTrusted(hop, trusted) { break }
        }
        return client
    }

    static func isTrusted(_ address: IPAddress, _ trusted: [AddressRange]) -> Bool {
        trusted.contains { $0.contains(address) }
    }

    /// The `for` of one element of Forwarded.
    private static func forNode(_ element: String) -> IPAddress? {
        for pair in element.split(separator: ";") {
            let parts = pair.split(separator: "=", maxSplits: 1)
            guard parts.count == 2, trimmed(parts[0]).lowercased() == "for" else { continue }
            var value = trimmed(parts[1])
            if value.hasPrefix("\""), value.hasSuffix("\""), value.count >= 2 { value = value.dropFirst().dropLast() }
            return node(String(value))
        }
        return nil
    }

    /// An address with or without port: `192.0.2.1`, `192.0.2.1:80`, `[2001:db8::1]:80`, `2001:db8::1`.
    private static func node(_ text: String) -> IPAddress? {
        let text = trimmed(text[...])
        if text.hasPrefix("[") {
            guard let end = text.firstIndex(of: "]") else { return nil }
            return IPAddress(String(text[text.index(after: text.startIndex)..<end]))
        }
        if let address = IPAddress(String(text)) { return address }
        guard let colon = text.firstIndex(of: ":") else { return nil }
        return IPAddress(String(text[..<colon]))
    }

    private static func trimmed(_ text: Substring) -> Substring {
        var text = text.drop { $0 == " " || $0 == "\t" }
        while let last = text.last, last == " " || last == "\t" { text.removeLast() }
        return text
    }
}

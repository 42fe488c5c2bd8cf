import Crypto
import JSON

/// The far end of a transfer that does not go through the core. The address is a secret: whoever has it may do what it is
/// for. It lives in memory and in the order on the wire, and is in no description.
public struct TransferURL: Sendable, Equatable, CustomStringConvertible {
    /// `https://host[:port]/path?query`, as it was given.
    public var address: String
    /// Push: what the server has to announce; `nil`: whatever it announces.
    public var size: UInt64?
    /// What the bytes have to have; `nil`: the agent only tells.
    public var digest: SHA256.Digest?

    public init(address: String, size: UInt64? = nil, digest: SHA256.Digest? = nil) {
        self.address = address
        self.size = size
        self.digest = digest
    }

    /// Without what makes it a secret.
    public var description: String { Self.shown(address) }

    /// Scheme, host and path; never the query.
    public static func shown(_ address: String) -> String {
        String(address.prefix { $0 != "?" && $0 != "#" })
    }

    func field(in writer: inout JSONWriter) {
        writer.object("url") {
            $0.field("address", address)
            $0.field("size", ifPresent: size)
            $0.field("sha256", ifPresent: digest?.hex)
        }
    }

    init(reading reader: inout JSONReader) throws(JSONError) {
        var url = TransferURL(address: "")
        try reader.object { key, reader throws(JSONError) in
            if key.is("address") {
                url.address = try reader.text(atMost: WireLimits.urlBytes)
            } else if key.is("size") {
                url.size = UInt64(try reader.integer(in: 0...Int(Int64.max)))
            } else if key.is("sha256") {
                url.digest = try SHA256.Digest(reading: &reader)
            }
        }
        guard !url.address.isEmpty else { throw reader.fail("the far end of a transfer has an address") }
        self = url
    }
}

extension SHA256.Digest {
    /// 64 hexadecimal digits.
    public init?(hex text: String) {
        guard let bytes = Hex.decode(text) else { return nil }
        self.init(bytes: bytes)
    }

    init(reading reader: inout JSONReader) throws(JSONError) {
        guard let digest = SHA256.Digest(hex: try reader.text(atMost: 64)) else {
            throw reader.fail("a SHA-256 has 64 hexadecimal digits")
        }
        self = digest
    }
}

import Crypto
import JSON

/// `move`, core → agent: from now on serve at these addresses, perhaps under another core's identity. The identity key of
/// the core that the agent obeys signs it, so that nobody who merely holds a link can send a machine away.
public struct MoveStatement: Sendable, Equatable {
    public let client: ClientID
    /// `URL[*WEIGHT][,…]`, as `cm-agent run --server` takes it.
    public let servers: String
    /// Of the core there; the signer's own when only the addresses change.
    public let fingerprint: String
    /// An enrollment token of the other core; empty when only the addresses change.
    public let token: String
    /// Unix seconds; an agent does not begin later than this.
    public let validUntil: UInt64
    /// The agent goes back if the core there has not accepted it after so many seconds.
    public let withinSeconds: UInt64
    public let signature: [UInt8]

    public static let serversBytes = 4_096
    public static let within: ClosedRange<Int> = 1...86_400

    /// - Parameter sign: with the core's identity key.
    public init<Failure: Error>(
        client: ClientID, servers: String, fingerprint: String, token: String = "", validUntil: UInt64,
        withinSeconds: UInt64, sign: ([UInt8]) throws(Failure) -> [UInt8]
    ) throws(Failure) {
        self.client = client
        self.servers = servers
        self.fingerprint = fingerprint
        self.token = token
        self.validUntil = validUntil
        self.withinSeconds = withinSeconds
        signature = try sign(
            Self.signed(client, servers, fingerprint, token, validUntil, withinSeconds))
    }

    /// Whether the holder of this key said it, to this client.
    public func isValid(for client: ClientID, signedBy key: P256.PublicKey) -> Bool {
        self.client == client
            && key.isValid(
                signature: signature, for: Self.signed(client, servers, fingerprint, token, validUntil, withinSeconds))
    }

    private static func signed(
        _ client: ClientID, _ servers: String, _ fingerprint: String, _ token: String, _ until: UInt64, _ within: UInt64
    ) -> [UInt8] {
        var text = SignedText("client-manager.v1 agent move")
        text.fixed(client.bytes)
        text.counted(Array(servers.utf8))
        text.counted(Array(fingerprint.utf8))
        text.counted(Array(token.utf8))
        text.number(until)
        text.number(within)
        return text.bytes
    }

    public var payload: [UInt8] {
        var writer = JSONWriter()
        writer.object {
            $0.field("client", client.description)
            $0.field("servers", servers)
            $0.field("fingerprint", fingerprint)
            $0.field("token", token)
            $0.field("until", validUntil)
            $0.field("within_s", withinSeconds)
            $0.field("signature", Base64.encodeURL(signature))
        }
        return writer.finish()
    }

    public init(reading payload: borrowing RawSpan) throws(WireError) {
        self = try readControl(payload) { reader throws(JSONError) in
            var client: ClientID?
            var servers = ""
            var fingerprint = ""
            var token = ""
            var until: UInt64 = 0
            var within: UInt64 = 0
            var signature: [UInt8] = []
            try reader.object { key, reader throws(JSONError) in
                if key.is("client") {
                    client = try reader.identifier()
                } else if key.is("servers") {
                    servers = try reader.text(atMost: Self.serversBytes)
                } else if key.is("fingerprint") {
                    fingerprint = try reader.text(atMost: 64)
                } else if key.is("token") {
                    token = try reader.text(atMost: EnrollmentToken.byteCount)
                } else if key.is("until") {
                    until = UInt64(try reader.integer(in: 0...Int(Int64.max)))
                } else if key.is("within_s") {
                    within = UInt64(try reader.integer(in: Self.within))
                } else if key.is("signature") {
                    signature = try reader.bytes(atMost: 80)
                }
            }
            guard let client else { throw reader.fail("a move names its client") }
            guard FingerprintText.isValid(fingerprint) else { throw reader.fail("a fingerprint has 64 hexadecimal digits") }
            guard token.isEmpty || EnrollmentToken(token)?.fingerprint == fingerprint else {
                throw reader.fail("the token is not one of the core with this fingerprint")
            }
            return MoveStatement(client, servers, fingerprint, token, until, within, signature)
        }
    }

    private init(
        _ client: ClientID, _ servers: String, _ fingerprint: String, _ token: String, _ until: UInt64, _ within: UInt64,
        _ signature: [UInt8]
    ) {
        self.client = client
        self.servers = servers
        self.fingerprint = fingerprint
        self.token = token
        validUntil = until
        withinSeconds = within
        self.signature = signature
    }
}

/// `move`, agent → core: the last move came to nothing, and why. Said once, after the agent came back.
public struct MoveFailure: Sendable, Equatable {
    public var servers: String
    public var code: String
    public var message: String

    public init(servers: String, code: String, message: String) {
        self.servers = servers
        self.code = code
        self.message = message
    }

    public var payload: [UInt8] {
        var writer = JSONWriter()
        writer.object {
            $0.field("servers", servers)
            $0.field("code", code)
            $0.field("message", message)
        }
        return writer.finish()
    }

    public init(reading payload: borrowing RawSpan) throws(WireError) {
        self = try readControl(payload) { reader throws(JSONError) in
            var failure = MoveFailure(servers: "", code: "", message: "")
            try reader.object { key, reader throws(JSONError) in
                if key.is("servers") {
                    failure.servers = try reader.text(atMost: MoveStatement.serversBytes)
                } else if key.is("code") {
                    failure.code = try reader.text(atMost: WireLimits.refusalCodeBytes)
                } else if key.is("message") {
                    failure.message = try reader.text(atMost: WireLimits.refusalTextBytes)
                }
            }
            return failure
        }
    }
}

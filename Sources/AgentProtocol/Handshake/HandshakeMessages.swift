import Crypto
import JSON

/// How the handshake is tied to the connection that it runs on.
public enum BindingKind: String, Sendable {
    /// Both ends of one TLS connection sign its exporter value.
    case tlsExporter = "tls-exporter"
    /// No TLS: only on a loopback connection.
    case none
    /// A proxy ends TLS: an X25519 exchange inside supplies the value, and what follows is sealed with its keys.
    case exchange = "x25519"
}

/// core → agent, the first frame.
public struct Challenge: Sendable, Equatable {
    public var versions: [Int]
    public var features: [String]
    /// 32 random bytes, used once, good for ten seconds.
    public var nonce: [UInt8]
    /// SubjectPublicKeyInfo of the core's identity key.
    public var coreKey: [UInt8]
    public var binding: BindingKind
    /// The core's ephemeral X25519 key, with `BindingKind.exchange` only.
    public var exchangeKey: [UInt8]?
    public var rotation: RotationStatement?

    public var payload: [UInt8] {
        var writer = JSONWriter(reserving: 512)
        writer.object {
            $0.array("versions") { for version in versions { $0.value(version) } }
            $0.array("features") { for feature in features { $0.value(feature) } }
            $0.field("nonce", Base64.encodeURL(nonce))
            $0.field("key", Base64.encodeURL(coreKey))
            $0.field("binding", binding.rawValue)
            $0.field("exchange", ifPresent: exchangeKey.map { Base64.encodeURL($0) })
            if let rotation {
                $0.key("rotation")
                rotation.write(to: &$0)
            }
        }
        return writer.finish()
    }

    public init(
        versions: [Int] = [1], features: [String], nonce: [UInt8], coreKey: [UInt8], binding: BindingKind,
        exchangeKey: [UInt8]? = nil, rotation: RotationStatement? = nil
    ) {
        self.versions = versions
        self.features = features
        self.nonce = nonce
        self.coreKey = coreKey
        self.binding = binding
        self.exchangeKey = exchangeKey
        self.rotation = rotation
    }

    public init(reading payload: borrowing RawSpan) throws(WireError) {
        self = try readControl(payload) { reader throws(JSONError) in
            var challenge = Challenge(versions: [], features: [], nonce: [], coreKey: [], binding: .none)
            var binding: BindingKind?
            try reader.object { key, reader throws(JSONError) in
                if key.is("versions") {
                    try reader.array { reader throws(JSONError) in
                        guard challenge.versions.count < 16 else { throw reader.fail("more than 16 versions") }
                        challenge.versions.append(try reader.integer(in: 1...65_535))
                    }
                } else if key.is("features") {
                    challenge.features = try reader.texts(atMost: 64, bytes: 64)
                } else if key.is("nonce") {
                    challenge.nonce = try reader.bytes(count: 32)
                } else if key.is("key") {
                    challenge.coreKey = try reader.bytes(count: 91)
                } else if key.is("binding") {
                    binding = BindingKind(rawValue: try reader.string())
                } else if key.is("exchange") {
                    challenge.exchangeKey = try reader.bytes(count: 32)
                } else if key.is("rotation") {
                    challenge.rotation = try RotationStatement(&reader)
                }
            }
            guard let binding, !challenge.nonce.isEmpty, !challenge.coreKey.isEmpty else {
                throw reader.fail("a challenge has versions, nonce, key and binding")
            }
            challenge.binding = binding
            return challenge
        }
    }
}

/// agent → core. Nothing in it is secret.
public struct Hello: Sendable, Equatable {
    public var version: Int
    public var features: [String]
    public var nonce: [UInt8]
    public var agentKey: [UInt8]
    public var client: ClientID?
    public var bootID: String
    /// Counted up durably before each hello.
    public var epoch: UInt64
    public var agentVersion: String
    public var hostname: String
    public var exchangeKey: [UInt8]?
    /// A `SuccessionStatement` as its JSON text.
    public var succession: [UInt8]?

    public init(
        version: Int = 1, features: [String], nonce: [UInt8], agentKey: [UInt8], client: ClientID?, bootID: String,
        epoch: UInt64, agentVersion: String, hostname: String, exchangeKey: [UInt8]? = nil,
        succession: [UInt8]? = nil
    ) {
        self.version = version
        self.features = features
        self.nonce = nonce
        self.agentKey = agentKey
        self.client = client
        self.bootID = bootID
        self.epoch = epoch
        self.agentVersion = agentVersion
        self.hostname = hostname
        self.exchangeKey = exchangeKey
        self.succession = succession
    }

    public var payload: [UInt8] {
        var writer = JSONWriter(reserving: 512)
        writer.object {
            $0.field("version", version)
            $0.array("features") { for feature in features { $0.value(feature) } }
            $0.field("nonce", Base64.encodeURL(nonce))
            $0.field("key", Base64.encodeURL(agentKey))
            $0.field("client", ifPresent: client.map { $0.description })
            $0.field("boot", bootID)
            $0.field("epoch", epoch)
            $0.field("agent_version", agentVersion)
            $0.field("hostname", hostname)
            $0.field("exchange", ifPresent: exchangeKey.map { Base64.encodeURL($0) })
            if let succession {
                $0.key("succession")
                $0.raw(succession)
            }
        }
        return writer.finish()
    }

    public init(reading payload: borrowing RawSpan) throws(WireError) {
        self = try readControl(payload) { reader throws(JSONError) in
            var hello = Hello(
                version: 0, features: [], nonce: [], agentKey: [], client: nil, bootID: "", epoch: 0,
                agentVersion: "", hostname: "")
            try reader.object { key, reader throws(JSONError) in
                if key.is("version") {
                    hello.version = try reader.integer(in: 1...65_535)
                } else if key.is("features") {
                    hello.features = try reader.texts(atMost: 64, bytes: 64)
                } else if key.is("nonce") {
                    hello.nonce = try reader.bytes(count: 32)
                } else if key.is("key") {
                    hello.agentKey = try reader.bytes(count: 91)
                } else if key.is("client") {
                    hello.client = try reader.identifier()
                } else if key.is("boot") {
                    hello.bootID = try reader.text(atMost: 64)
                } else if key.is("epoch") {
                    hello.epoch = UInt64(try reader.integer(in: 0...Int(Int64.max)))
                } else if key.is("agent_version") {
                    hello.agentVersion = try reader.text(atMost: 64)
                } else if key.is("hostname") {
                    hello.hostname = try reader.text(atMost: 255)
                } else if key.is("exchange") {
                    hello.exchangeKey = try reader.bytes(count: 32)
                } else if key.is("succession") {
                    hello.succession = try reader.raw()
                }
            }
            guard hello.version > 0, !hello.nonce.isEmpty, !hello.agentKey.isEmpty, !hello.bootID.isEmpty else {
                throw reader.fail("a hello has version, nonce, key, boot and epoch")
            }
            return hello
        }
    }
}

/// Both proofs: the signature over the transcript, and from the agent the enrollment token if it may show it.
public struct Proof: Sendable, Equatable {
    public var signature: [UInt8]
    public var token: String?

    public init(signature: [UInt8], token: String? = nil) {
        self.signature = signature
        self.token = token
    }

    public var payload: [UInt8] {
        var writer = JSONWriter()
        writer.object {
            $0.field("signature", Base64.encodeURL(signature))
            $0.field("token", ifPresent: token)
        }
        return writer.finish()
    }

    public init(reading payload: borrowing RawSpan) throws(WireError) {
        self = try readControl(payload) { reader throws(JSONError) in
            var proof = Proof(signature: [])
            try reader.object { key, reader throws(JSONError) in
                if key.is("signature") {
                    proof.signature = try reader.bytes(atMost: 80)
                } else if key.is("token") {
                    proof.token = try reader.text(atMost: 256)
                }
            }
            return proof
        }
    }
}

/// core → agent: the link has rights from here on.
public struct Accepted: Sendable, Equatable {
    public var client: ClientID
    public var epoch: UInt64
    /// What both sides can do.
    public var features: [String]
    public var heartbeatSeconds: Int
    public var channels: Int
    public var coreVersion: String
    /// The core's clock, Unix milliseconds.
    public var time: UInt64
    /// Fingerprints of keys that may take over if the identity key is lost.
    public var backupPins: [String]

    public init(
        client: ClientID, epoch: UInt64, features: [String], heartbeatSeconds: Int,
        channels: Int = WireLimits.channels, coreVersion: String = "", time: UInt64 = 0, backupPins: [String] = []
    ) {
        self.client = client
        self.epoch = epoch
        self.features = features
        self.heartbeatSeconds = heartbeatSeconds
        self.channels = channels
        self.coreVersion = coreVersion
        self.time = time
        self.backupPins = backupPins
    }

    public var payload: [UInt8] {
        var writer = JSONWriter()
        writer.object {
            $0.field("client", client.description)
            $0.field("epoch", epoch)
            $0.array("features") { for feature in features { $0.value(feature) } }
            $0.field("heartbeat_s", heartbeatSeconds)
            $0.field("channels", channels)
            $0.field("core_version", coreVersion)
            $0.field("time_ms", time)
            $0.array("backup_pins") { for pin in backupPins { $0.value(pin) } }
        }
        return writer.finish()
    }

    public init(reading payload: borrowing RawSpan) throws(WireError) {
        self = try readControl(payload) { reader throws(JSONError) in
            var client: ClientID?
            var accepted = Accepted(client: ClientID(high: 0, low: 0), epoch: 0, features: [], heartbeatSeconds: 15)
            try reader.object { key, reader throws(JSONError) in
                if key.is("client") {
                    client = try reader.identifier()
                } else if key.is("epoch") {
                    accepted.epoch = UInt64(try reader.integer(in: 0...Int(Int64.max)))
                } else if key.is("features") {
                    accepted.features = try reader.texts(atMost: 64, bytes: 64)
                } else if key.is("heartbeat_s") {
                    accepted.heartbeatSeconds = try reader.integer(in: 1...86_400)
                } else if key.is("channels") {
                    accepted.channels = try reader.integer(in: 1...WireLimits.channels)
                } else if key.is("core_version") {
                    accepted.coreVersion = try reader.text(atMost: 64)
                } else if key.is("time_ms") {
                    accepted.time = UInt64(try reader.integer(in: 0...Int(Int64.max)))
                } else if key.is("backup_pins") {
                    accepted.backupPins = try reader.texts(atMost: 8, bytes: 64)
                }
            }
            guard let client else { throw reader.fail("an acceptance names the client") }
            accepted.client = client
            return accepted
        }
    }
}

/// core → agent: an operator has to decide. The link stays open without rights.
public struct PendingNotice: Sendable, Equatable {
    public var enrollment: String
    /// The agent's own fingerprint as the core saw it: the operator compares the two.
    public var fingerprint: String

    public init(enrollment: String, fingerprint: String) {
        self.enrollment = enrollment
        self.fingerprint = fingerprint
    }

    public var payload: [UInt8] {
        var writer = JSONWriter()
        writer.object {
            $0.field("enrollment", enrollment)
            $0.field("fingerprint", fingerprint)
        }
        return writer.finish()
    }

    public init(reading payload: borrowing RawSpan) throws(WireError) {
        self = try readControl(payload) { reader throws(JSONError) in
            var notice = PendingNotice(enrollment: "", fingerprint: "")
            try reader.object { key, reader throws(JSONError) in
                if key.is("enrollment") {
                    notice.enrollment = try reader.text(atMost: 64)
                } else if key.is("fingerprint") {
                    notice.fingerprint = try reader.text(atMost: 64)
                }
            }
            return notice
        }
    }
}

/// `refused` and `close`, from either side: a stable code, a text for people, and for a planned stop the time after
/// which this agent should come back.
public struct Farewell: Sendable, Equatable {
    public var code: String
    public var message: String
    /// This agent's own slot, from the moment it reads this.
    public var reconnectAfterMilliseconds: UInt64?

    public init(code: String, message: String, reconnectAfterMilliseconds: UInt64? = nil) {
        self.code = code
        self.message = message
        self.reconnectAfterMilliseconds = reconnectAfterMilliseconds
    }

    public var payload: [UInt8] {
        var writer = JSONWriter()
        writer.object {
            $0.field("code", code)
            $0.field("message", String(message.prefix(1_000)))
            $0.field("reconnect_after_ms", ifPresent: reconnectAfterMilliseconds)
        }
        return writer.finish()
    }

    public init(reading payload: borrowing RawSpan) throws(WireError) {
        self = try readControl(payload) { reader throws(JSONError) in
            var farewell = Farewell(code: "", message: "")
            try reader.object { key, reader throws(JSONError) in
                if key.is("code") {
                    farewell.code = try reader.text(atMost: WireLimits.refusalCodeBytes)
                } else if key.is("message") {
                    farewell.message = try reader.text(atMost: WireLimits.refusalTextBytes)
                } else if key.is("reconnect_after_ms") {
                    farewell.reconnectAfterMilliseconds = UInt64(try reader.integer(in: 0...86_400_000))
                }
            }
            return farewell
        }
    }
}

/// One JSON control payload; what JSON's rules refuse is a protocol error that quotes them. Unknown members are skipped,
/// so that a later version can add some.
func readControl<Value>(
    _ payload: borrowing RawSpan, _ body: (inout JSONReader) throws(JSONError) -> Value
) throws(WireError) -> Value {
    do throws(JSONError) {
        return try JSONReader.read(payload, limits: JSONLimits(depth: 16, bytes: WireLimits.factsBytes), body)
    } catch {
        throw WireError(.malformed, "a control payload: \(error)")
    }
}

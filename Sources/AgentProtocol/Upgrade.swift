import Crypto
import JSON
import Program

public enum UpgradeItself: Sendable {}
/// One upgrade, the same for all clients that it is meant for.
public typealias UpgradeID = Identifier<UpgradeItself>

/// `upgrade`, core → agent: replace your own program by this release. The core only hands the release on; what makes it
/// one is the signature of a key that the agent was given when it was installed.
public struct UpgradeOrder: Sendable, Equatable {
    public static let onlineWithin = 5...3_600
    public static let settle = 0...600

    public var upgrade: UpgradeID
    public var release: SignedRelease
    /// The new program has to be online so soon after its start, else the old one goes on.
    public var onlineWithinSeconds: Int
    /// And has to keep running so long after that.
    public var settleSeconds: Int

    public init(upgrade: UpgradeID, release: SignedRelease, onlineWithinSeconds: Int = 60, settleSeconds: Int = 3) {
        self.upgrade = upgrade
        self.release = release
        self.onlineWithinSeconds = onlineWithinSeconds
        self.settleSeconds = settleSeconds
    }

    public var json: JSONValue {
        [
            "upgrade": .string(upgrade.description), "release": release.json,
            "online_within_s": .integer(Int64(onlineWithinSeconds)), "settle_s": .integer(Int64(settleSeconds)),
        ]
    }

    public init?(_ value: JSONValue?) {
        guard let value, let upgrade = value["upgrade"]?.string.flatMap({ UpgradeID($0) }),
            let release = value["release"].flatMap({ try? SignedRelease($0) }),
            let within = value["online_within_s"]?.integer, Self.onlineWithin.contains(Int(clamping: within)),
            let settle = value["settle_s"]?.integer, Self.settle.contains(Int(clamping: settle))
        else { return nil }
        self.init(
            upgrade: upgrade, release: release, onlineWithinSeconds: Int(within), settleSeconds: Int(settle))
    }

    public var payload: [UInt8] { json.serialized() }

    public init(reading payload: borrowing RawSpan) throws(WireError) {
        guard let order = UpgradeOrder(try readControl(payload) { reader throws(JSONError) in try reader.value() }) else {
            throw WireError(.malformed, "an upgrade names itself, a signed release and its two times")
        }
        self = order
    }
}

/// How far an upgrade has come on its client.
public enum UpgradeProgress: String, Sendable, CaseIterable {
    /// The file is on its way.
    case receiving
    /// The file is whole, checked and on the disk beside the old one.
    case staged
    /// The new program runs on trial.
    case restarted
    /// The new program is in place.
    case online
    /// The old program runs again, or still.
    case rolledBack = "rolled-back"
    /// Refused, or the file could not be had; the old program never stopped.
    case failed

    public var isFinal: Bool { self == .online || self == .rolledBack || self == .failed }
}

/// `upgrade`, agent → core: said at each step, and again after each connect until the core has the end.
public struct UpgradeReport: Sendable, Equatable {
    public static let codeBytes = 64
    public static let messageBytes = 500

    public var upgrade: UpgradeID
    public var progress: UpgradeProgress
    /// Why it did not go well; both are empty otherwise.
    public var code: String
    public var message: String

    public init(upgrade: UpgradeID, progress: UpgradeProgress, code: String = "", message: String = "") {
        self.upgrade = upgrade
        self.progress = progress
        self.code = code
        self.message = String(decoding: message.utf8.prefix(Self.messageBytes), as: UTF8.self)
    }

    public var payload: [UInt8] {
        var object: JSONObject = [
            "upgrade": .string(upgrade.description), "state": .string(progress.rawValue),
        ]
        if !code.isEmpty { object["code"] = .string(code) }
        if !message.isEmpty { object["message"] = .string(message) }
        return JSONValue.object(object).serialized()
    }

    public init(reading payload: borrowing RawSpan) throws(WireError) {
        let value = try readControl(payload) { reader throws(JSONError) in try reader.value() }
        guard let upgrade = value["upgrade"]?.string.flatMap({ UpgradeID($0) }),
            let progress = value["state"]?.string.flatMap({ UpgradeProgress(rawValue: $0) })
        else { throw WireError(.malformed, "a report names its upgrade and a state that is known") }
        let code = value["code"]?.string ?? ""
        let message = value["message"]?.string ?? ""
        guard code.utf8.count <= Self.codeBytes, code.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }),
            message.utf8.count <= 4 * Self.messageBytes
        else { throw WireError(.oversize, "the reason of a report is too long") }
        self.init(upgrade: upgrade, progress: progress, code: code, message: message)
    }
}

/// A release that this agent does not take, with a stable code.
public struct ReleaseRefusal: Error, Sendable, Equatable {
    public var code: String
    public var message: String

    public init(_ code: String, _ message: String) {
        self.code = code
        self.message = message
    }
}

extension SignedRelease {
    /// What the release says, if the holder of `key` signed it and it is for this platform. The same check in every agent.
    public func checked(
        with key: P256.PublicKey, platform: String = ReleasePlatform.own
    ) throws(ReleaseRefusal) -> ReleaseManifest {
        guard let bytes = Base64.decodeURL(signature), key.isValid(signature: bytes, for: ReleaseManifest.signed(manifest))
        else {
            let claimed = self.key.isEmpty ? "" : "; it is said to be signed by \(self.key.prefix(64))"
            throw ReleaseRefusal(
                "release-signature", "the release key of this agent (\(key.fingerprint)) did not sign this release\(claimed)")
        }
        let content: ReleaseManifest
        do throws(ReleaseError) { content = try ReleaseManifest(parsing: manifest) } catch {
            throw ReleaseRefusal("release-malformed", error.description)
        }
        guard content.platform == platform else {
            throw ReleaseRefusal(
                "release-platform", "the release is for \(content.platform), this agent runs on \(platform)")
        }
        return content
    }
}

import JSON

/// A text that is no manifest, or a file that is no signed release; one sentence for people.
public struct ReleaseError: Error, Sendable, Equatable, CustomStringConvertible {
    public let description: String
    public init(_ description: String) { self.description = description }
}

/// What a release key signs about one agent binary. Its text is signed and carried as it stands, byte for byte, so that
/// nothing depends on how somebody else writes JSON.
public struct ReleaseManifest: Sendable, Equatable {
    public static let maximumBytes = 2_048
    /// The binary may not be larger.
    public static let maximumSize: UInt64 = 256 << 20

    public let version: ReleaseVersion
    /// As `ReleasePlatform` names them.
    public let platform: String
    /// Of the whole file, 64 hexadecimal digits in lower case.
    public let sha256: String
    public let size: UInt64
    /// Unix seconds.
    public let created: UInt64

    public init(version: ReleaseVersion, platform: String, sha256: String, size: UInt64, created: UInt64) {
        self.version = version
        self.platform = platform
        self.sha256 = sha256
        self.size = size
        self.created = created
    }

    public var text: String {
        var writer = JSONWriter()
        writer.object {
            $0.field("format", 1)
            $0.field("version", version.description)
            $0.field("platform", platform)
            $0.field("sha256", sha256)
            $0.field("size", size)
            $0.field("created", created)
        }
        return String(decoding: writer.finish(), as: UTF8.self)
    }

    /// Members that are not known are left alone; another format is refused.
    public init(parsing text: String) throws(ReleaseError) {
        guard text.utf8.count <= Self.maximumBytes else {
            throw ReleaseError("a manifest has at most \(Self.maximumBytes) bytes, not \(text.utf8.count)")
        }
        let value: JSONValue
        do throws(JSONError) { value = try JSONValue(parsing: text) } catch {
            throw ReleaseError("the manifest is no JSON: \(error)")
        }
        guard value["format"]?.integer == 1 else {
            throw ReleaseError("the manifest is not of format 1, the one that is known here")
        }
        guard let version = value["version"]?.string.flatMap({ ReleaseVersion($0) }) else {
            throw ReleaseError("the manifest's version is not MAJOR.MINOR.PATCH[-PRE] with at most 40 bytes")
        }
        guard let platform = value["platform"]?.string, (1...64).contains(platform.utf8.count),
            platform.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F })
        else { throw ReleaseError("the manifest names no platform") }
        guard let sha256 = value["sha256"]?.string, sha256.utf8.count == 64,
            sha256.utf8.allSatisfy({ (48...57).contains($0) || (97...102).contains($0) })
        else { throw ReleaseError("the manifest's sha256 has not 64 hexadecimal digits in lower case") }
        guard let size = value["size"]?.integer, size > 0, UInt64(size) <= Self.maximumSize else {
            throw ReleaseError("the manifest's size is not from 1 to \(Self.maximumSize)")
        }
        guard let created = value["created"]?.integer, created >= 0 else {
            throw ReleaseError("the manifest does not say when it was created")
        }
        self.init(
            version: version, platform: platform, sha256: sha256, size: UInt64(size), created: UInt64(created))
    }

    /// The bytes under the signature: a line that says what is signed, then the manifest's text.
    public static func signed(_ text: String) -> [UInt8] { Array("client-manager.v1 agent release\n".utf8) + Array(text.utf8) }
}

/// Names of platforms, and how a file tells its own.
public enum ReleasePlatform {
    /// Of the running program.
    #if arch(arm64)
        public static let own = "linux-aarch64"
    #else
        public static let own = "linux-x86_64"
    #endif

    /// Of an ELF file by its head; `nil` for other files and machines.
    public static func ofELF(_ head: some Collection<UInt8>) -> String? {
        let bytes = Array(head.prefix(20))
        guard bytes.count == 20, bytes.starts(with: [0x7F, 0x45, 0x4C, 0x46, 2, 1]) else { return nil }
        switch UInt16(bytes[18]) | UInt16(bytes[19]) << 8 {
        case 62: return "linux-x86_64"
        case 183: return "linux-aarch64"
        default: return nil
        }
    }
}

/// A manifest with the signature of a release key: the file beside the binary, and what a core hands on.
public struct SignedRelease: Sendable, Equatable {
    public static let maximumBytes = 8_192

    public let manifest: String
    /// Base 64 (URL form) of an ECDSA signature in DER.
    public let signature: String
    /// Fingerprint of the key that is said to have signed. Only for messages: who checks has a key of his own.
    public let key: String

    public init(manifest: String, signature: String, key: String) {
        self.manifest = manifest
        self.signature = signature
        self.key = key
    }

    public init(_ value: JSONValue) throws(ReleaseError) {
        guard let manifest = value["manifest"]?.string, let signature = value["signature"]?.string else {
            throw ReleaseError("a signed release has the members manifest and signature, both text")
        }
        guard (1...128).contains(signature.utf8.count) else {
            throw ReleaseError("the signature has not 1 to 128 characters")
        }
        let key = value["key"]?.string ?? ""
        guard key.utf8.count <= 64 else { throw ReleaseError("the key's fingerprint has more than 64 characters") }
        self.init(manifest: manifest, signature: signature, key: key)
    }

    public var json: JSONValue {
        ["manifest": .string(manifest), "signature": .string(signature), "key": .string(key)]
    }
}

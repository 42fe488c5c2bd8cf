import AgentProtocol
import Crypto

public enum StoredFileTag: Sendable {}
/// A file of the managed store. The only name by which the core opens one.
public typealias FileID = Identifier<StoredFileTag>

/// What the bytes are.
public enum StoredFileForm: String, Sendable, CaseIterable {
    /// One file.
    case file
    /// A tree of files as a POSIX pax archive.
    case tree
}

/// A file of the managed store, as of one moment. Whole ones never change again.
public struct StoredFile: Sendable, Equatable {
    public let id: FileID
    /// What people call it; never a path, and nothing is opened by it.
    public let name: String
    public let form: StoredFileForm
    /// Of a whole file its length; of an unfinished one what its maker announced, if he did.
    public let size: UInt64?
    /// Bytes that are on the disk for good: all of a whole file; where an unfinished one goes on.
    public let durable: UInt64
    /// Of a whole file.
    public let digest: SHA256.Digest?
    public let ownerKind: Principal.Kind
    public let owner: String
    /// Where it came from, for people: `upload`, `client ID`, `plugin NAME`.
    public let source: String
    /// Unix milliseconds, like all times here.
    public let createdAt: UInt64
    public let finishedAt: UInt64?
    /// When it is removed by itself; `nil`: never.
    public let expiresAt: UInt64?

    public var isWhole: Bool { finishedAt != nil }
}

/// What the maker of a file says about it.
public struct NewFile: Sendable {
    public var name: String
    public var form: StoredFileForm
    /// Space is reserved for it at once, and not a byte more is taken.
    public var size: UInt64?
    public var source: String
    /// Milliseconds until it is removed by itself once it is whole; 0: never; `nil`: as the setting `file_retention_days` says.
    public var keepMilliseconds: UInt64?

    public init(
        name: String, form: StoredFileForm = .file, size: UInt64? = nil, source: String = "upload",
        keepMilliseconds: UInt64? = nil
    ) {
        self.name = name
        self.form = form
        self.size = size
        self.source = source
        self.keepMilliseconds = keepMilliseconds
    }

    /// Names are shown, sent in headers and offered as names of local files.
    func validate() throws(Problem) {
        guard (1...255).contains(name.utf8.count), !name.utf8.contains(0x2F), name != ".", name != "..",
            !name.unicodeScalars.contains(where: { $0.value < 0x20 || $0.value == 0x7F })
        else {
            throw .invalid(
                "a file's name has 1 to 255 bytes, no \"/\" and no control characters, and is neither \".\" nor \"..\"",
                pointer: "/name")
        }
        guard (1...255).contains(source.utf8.count) else { throw .invalid("a file's source has 1 to 255 bytes") }
        guard keepMilliseconds ?? 0 <= 1 << 50 else { throw .invalid("a file cannot be kept that long", pointer: "/keep_s") }
    }
}

/// Which files a list shows, newest first.
public struct FileQuery: Sendable {
    public var limit = 100
    /// Only files before this one (the cursor).
    public var before: FileID?
    public var isWhole: Bool?
    public var name: String?
    public var form: StoredFileForm?
    /// Only those of this owner.
    public var owner: (kind: Principal.Kind, id: String)?
    public init() {}
}

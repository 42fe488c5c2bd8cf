import JSON

/// One question or change about files of a client, as a structure and never as text for a shell.
public enum FileRequest: Sendable, Equatable {
    /// What is there. A link itself, not what it leads to, with `follows` false.
    case status(path: String, follows: Bool)
    /// Entries of a directory in the order of their names, after a name, at most so many.
    case list(path: String, after: String, limit: Int)
    case makeDirectory(path: String, parents: Bool, mode: UInt16)
    case rename(path: String, target: String, replaces: Bool)
    /// A file, link or empty directory; a whole directory with `recursive`.
    case remove(path: String, recursive: Bool)
    /// The hash of a file's content. Needs `Feature.fileHash`.
    case hash(path: String, FileHash)

    public static let maximumEntries = 1_000

    public var payload: [UInt8] {
        var writer = JSONWriter()
        writer.object {
            switch self {
            case .status(let path, let follows):
                $0.field("do", "status")
                $0.field("path", path)
                $0.field("follows", follows)
            case .list(let path, let after, let limit):
                $0.field("do", "list")
                $0.field("path", path)
                $0.field("after", after)
                $0.field("limit", limit)
            case .makeDirectory(let path, let parents, let mode):
                $0.field("do", "make-directory")
                $0.field("path", path)
                $0.field("parents", parents)
                $0.field("mode", Int(mode))
            case .rename(let path, let target, let replaces):
                $0.field("do", "rename")
                $0.field("path", path)
                $0.field("target", target)
                $0.field("replaces", replaces)
            case .remove(let path, let recursive):
                $0.field("do", "remove")
                $0.field("path", path)
                $0.field("recursive", recursive)
            case .hash(let path, let algorithm):
                $0.field("do", "hash")
                $0.field("path", path)
                $0.field("algorithm", algorithm.rawValue)
            }
        }
        return writer.finish()
    }

    public init(reading payload: borrowing RawSpan) throws(WireError) {
        self = try readControl(payload) { reader throws(JSONError) in
            var (word, path, target, after) = ("", "", "", "")
            var (follows, parents, replaces, recursive) = (true, false, false, false)
            var (limit, mode) = (Self.maximumEntries, 0o755)
            var algorithm: FileHash?
            try reader.object { key, reader throws(JSONError) in
                if key.is("do") {
                    word = try reader.text(atMost: 32)
                } else if key.is("path") {
                    path = try reader.text(atMost: WireLimits.pathBytes)
                } else if key.is("target") {
                    target = try reader.text(atMost: WireLimits.pathBytes)
                } else if key.is("after") {
                    after = try reader.text(atMost: WireLimits.pathBytes)
                } else if key.is("follows") {
                    follows = try reader.bool()
                } else if key.is("parents") {
                    parents = try reader.bool()
                } else if key.is("replaces") {
                    replaces = try reader.bool()
                } else if key.is("recursive") {
                    recursive = try reader.bool()
                } else if key.is("limit") {
                    limit = try reader.integer(in: 1...Self.maximumEntries)
                } else if key.is("mode") {
                    mode = try reader.integer(in: 0...0o7777)
                } else if key.is("algorithm") {
                    algorithm = FileHash(rawValue: try reader.text(atMost: 16))
                }
            }
            switch word {
            case "status": return .status(path: path, follows: follows)
            case "list": return .list(path: path, after: after, limit: limit)
            case "make-directory": return .makeDirectory(path: path, parents: parents, mode: UInt16(mode))
            case "rename": return .rename(path: path, target: target, replaces: replaces)
            case "remove": return .remove(path: path, recursive: recursive)
            case "hash":
                guard let algorithm else { throw reader.fail("an unknown hash") }
                return .hash(path: path, algorithm)
            default: throw reader.fail("'\(word)' is nothing that can be done with a file")
            }
        }
    }
}

/// What a client hashes a file with. MD5 proves nothing: it is what object stores tell of what they have.
public enum FileHash: String, Sendable, CaseIterable {
    case sha256, md5
}

/// One thing in a client's file system.
public struct FileEntry: Sendable, Equatable {
    public enum Kind: String, Sendable, CaseIterable {
        case file, directory, link, other
    }
    /// The last part of its path; in answers to `status` the path that was asked for.
    public var name: String
    public var kind: Kind
    public var size: UInt64
    public var mode: UInt16
    public var modified: Int64
    public var owner: UInt32
    public var group: UInt32
    /// Where a link leads.
    public var target: String?

    public init(
        name: String, kind: Kind, size: UInt64, mode: UInt16, modified: Int64, owner: UInt32, group: UInt32,
        target: String? = nil
    ) {
        self.name = name
        self.kind = kind
        self.size = size
        self.mode = mode
        self.modified = modified
        self.owner = owner
        self.group = group
        self.target = target
    }
}

/// The agent's answer to one request.
public struct FileAnswer: Sendable, Equatable {
    public var failure: FileFailure?
    public var entries: [FileEntry]
    /// More follow after the last of these.
    public var hasMore: Bool
    /// In lower-case hexadecimal digits; the entry is the file as it was hashed.
    public var hash: String?

    public init(failure: FileFailure? = nil, entries: [FileEntry] = [], hasMore: Bool = false, hash: String? = nil) {
        self.failure = failure
        self.entries = entries
        self.hasMore = hasMore
        self.hash = hash
    }

    /// Entries that do not fit are left for the next request.
    public var payload: [UInt8] {
        var writer = JSONWriter()
        writer.object { writer in
            writer.field("code", ifPresent: failure?.code)
            writer.field("message", ifPresent: failure.map { String($0.message.prefix(2_000)) })
            var isCut = false
            writer.array("entries") { writer in
                for entry in entries {
                    // The longest entry: name and link target, each byte escaped.
                    guard writer.byteCount + 6 * (entry.name.utf8.count + (entry.target?.utf8.count ?? 0)) + 256 < WireLimits.fileAnswerBytes
                    else {
                        isCut = true
                        return
                    }
                    writer.object {
                        $0.field("name", entry.name)
                        $0.field("kind", entry.kind.rawValue)
                        $0.field("size", entry.size)
                        $0.field("mode", Int(entry.mode))
                        $0.field("modified_ns", entry.modified)
                        $0.field("owner", Int(entry.owner))
                        $0.field("group", Int(entry.group))
                        $0.field("target", ifPresent: entry.target)
                    }
                }
            }
            writer.field("has_more", hasMore || isCut)
            writer.field("hash", ifPresent: hash)
        }
        return writer.finish()
    }

    public init(reading payload: borrowing RawSpan) throws(WireError) {
        self = try readControl(payload) { reader throws(JSONError) in
            var answer = FileAnswer()
            var code: String?
            var message = ""
            try reader.object { key, reader throws(JSONError) in
                if key.is("code") {
                    code = try reader.text(atMost: WireLimits.refusalCodeBytes)
                } else if key.is("message") {
                    message = try reader.text(atMost: 3 * WireLimits.refusalTextBytes)
                } else if key.is("has_more") {
                    answer.hasMore = try reader.bool()
                } else if key.is("hash") {
                    answer.hash = try reader.text(atMost: 128)
                } else if key.is("entries") {
                    try reader.array { reader throws(JSONError) in
                        guard answer.entries.count < FileRequest.maximumEntries else { throw reader.fail("too many entries") }
                        answer.entries.append(try FileEntry(reading: &reader))
                    }
                }
            }
            answer.failure = code.map { FileFailure($0, message) }
            return answer
        }
    }
}

extension FileEntry {
    fileprivate init(reading reader: inout JSONReader) throws(JSONError) {
        var entry = FileEntry(name: "", kind: .other, size: 0, mode: 0, modified: 0, owner: 0, group: 0)
        try reader.object { key, reader throws(JSONError) in
            if key.is("name") {
                entry.name = try reader.text(atMost: WireLimits.pathBytes)
            } else if key.is("kind") {
                guard let kind = Kind(rawValue: try reader.text(atMost: 16)) else { throw reader.fail("an unknown kind") }
                entry.kind = kind
            } else if key.is("size") {
                entry.size = UInt64(try reader.integer(in: 0...Int(Int64.max)))
            } else if key.is("mode") {
                entry.mode = UInt16(try reader.integer(in: 0...0o7777))
            } else if key.is("modified_ns") {
                entry.modified = Int64(try reader.integer(in: Int(Int64.min)...Int(Int64.max)))
            } else if key.is("owner") {
                entry.owner = UInt32(try reader.integer(in: 0...Int(UInt32.max)))
            } else if key.is("group") {
                entry.group = UInt32(try reader.integer(in: 0...Int(UInt32.max)))
            } else if key.is("target") {
                entry.target = try reader.text(atMost: WireLimits.pathBytes)
            }
        }
        self = entry
    }
}

/// One member of a POSIX pax archive (IEEE Std 1003.1, pax): how a tree of files travels as one stream.
public struct PaxEntry: Sendable, Equatable {
    public enum Kind: Sendable, Equatable {
        case file, directory
        /// Leads to `target`, which is kept as it stands.
        case symbolicLink
        /// The same file as the member `target`.
        case hardLink
        /// A device, a pipe, something unknown: its bytes, if it has any, are to be skipped.
        case other
    }

    /// Below the tree's root, with `/` between its parts and without one at the end. As it stands in the archive: whoever
    /// unpacks looks at `isBelow` first.
    public var path: String
    public var kind: Kind
    /// Bytes of data that follow the header; only files have any.
    public var size: UInt64
    /// Permission bits.
    public var mode: UInt16
    /// Since 1970. Our writer keeps whole seconds, as tar does.
    public var modifiedNanoseconds: Int64
    public var target: String

    public init(
        path: String, kind: Kind, size: UInt64 = 0, mode: UInt16, modifiedNanoseconds: Int64 = 0, target: String = ""
    ) {
        self.path = path
        self.kind = kind
        self.size = size
        self.mode = mode
        self.modifiedNanoseconds = modifiedNanoseconds
        self.target = target
    }

    /// The path's parts; `nil` when it is absolute, leads upwards, or names nothing (`.` alone is the root: no parts).
    public var parts: [Substring]? { Self.parts(of: path) }

    /// No part of the path leads out of the tree.
    public var isBelow: Bool { parts != nil }

    static func parts(of path: String) -> [Substring]? {
        guard !path.isEmpty, path.utf8.first != 0x2F, !path.utf8.contains(0) else { return nil }
        let parts = path.split(separator: "/").filter { $0 != "." }
        return parts.contains("..") ? nil : parts
    }

    /// A link of the tree leads to something inside the tree, looked at from where it lies. Links that it would go through
    /// are not followed here: whoever unpacks opens beneath the root all the same.
    public var targetIsBelow: Bool {
        guard kind == .symbolicLink || kind == .hardLink else { return true }
        guard !target.isEmpty, target.utf8.first != 0x2F, !target.utf8.contains(0), let parts else { return false }
        // A hard link's target is a member's path, a symbolic link's begins where the link lies.
        var depth = kind == .hardLink ? 0 : max(parts.count - 1, 0)
        for part in target.split(separator: "/") where part != "." {
            depth += part == ".." ? -1 : 1
            if depth < 0 { return false }
        }
        return true
    }
}

import AgentProtocol
import Glibc
import System

/// Requests about files: looked up beneath the roots like transfers, done with calls and never with a shell. Blocks.
enum FileBrowsing {
    /// Of one directory; a larger one is refused rather than sorted.
    private static let directoryEntries = 500_000
    /// Of a removal, so that no word removes a machine.
    private static let removedEntries = 1_000_000
    private static let depth = 64

    static func answer(_ request: FileRequest, _ roots: FileRoots) throws(FileFailure) -> FileAnswer {
        switch request {
        case .status(let path, let follows): return FileAnswer(entries: [try status(path, follows, roots)])
        case .list(let path, let after, let limit): return try list(path, after: after, limit: limit, roots)
        case .makeDirectory(let path, let parents, let mode): try make(path, parents: parents, mode: mode, roots)
        case .rename(let path, let target, let replaces): try rename(path, target, replaces: replaces, roots)
        case .remove(let path, let recursive): try remove(path, recursive: recursive, roots)
        case .hash(let path, let algorithm): return try FileHashing.answer(path, algorithm, roots)
        }
        return FileAnswer()
    }

    private static func status(_ path: String, _ follows: Bool, _ roots: FileRoots) throws(FileFailure) -> FileEntry {
        try roots.about(path) {
            // The root itself is no link.
            if follows || FilePath.parts(path).isEmpty {
                return FileEntry(path, try roots.open(path, pathOnly).status(subject: path))
            }
            let place = try roots.place(path, writes: false)
            guard let entry = try FileEntry(place.name, in: place.directory) else { throw SystemError("stat", path, code: ENOENT) }
            var named = entry
            named.name = path
            return named
        }
    }

    private static func list(
        _ path: String, after: String, limit: Int, _ roots: FileRoots
    ) throws(FileFailure) -> FileAnswer {
        try roots.about(path) {
            let directory = try roots.directory(path)
            let names = try directory.names(limit: directoryEntries)
            return try page(of: names, after: after, limit: limit) { (name) throws(SystemError) in try FileEntry(name, in: directory) }
        }
    }

    /// - Parameters:
    ///   - names: in their order.
    ///   - look: `nil` for one that has gone in between. The next ones take its place: a page without entries is the end.
    static func page(
        of names: [String], after: String, limit: Int, _ look: (String) throws(SystemError) -> FileEntry?
    ) throws(SystemError) -> FileAnswer {
        var answer = FileAnswer()
        let start = names.firstIndex { after.utf8.lexicographicallyPrecedes($0.utf8) } ?? names.count
        for name in names[start...] {
            guard answer.entries.count < limit else {
                answer.hasMore = true
                break
            }
            if let entry = try look(name) { answer.entries.append(entry) }
        }
        return answer
    }

    private static func make(_ path: String, parents: Bool, mode: UInt16, _ roots: FileRoots) throws(FileFailure) {
        try roots.about(path) {
            let place = try roots.place(path, writes: true, makesParents: parents)
            do throws(SystemError) { try place.directory.makeDirectory(place.name, mode: mode_t(mode)) } catch {
                guard parents, error.alreadyExists, try place.directory.status(place.name)?.kind == .directory else { throw error }
            }
            try place.directory.sync()
        }
    }

    private static func rename(_ path: String, _ target: String, replaces: Bool, _ roots: FileRoots) throws(FileFailure) {
        try roots.about(path) {
            let source = try roots.place(path, writes: true)
            let destination = try roots.place(target, writes: true)
            do throws(SystemError) {
                try source.directory.rename(source.name, in: destination.directory, to: destination.name, replaces: replaces)
            } catch {
                throw error.alreadyExists ? FileFailure("path-exists", "\(target) is there already") : roots.failure(error, path)
            }
            try destination.directory.sync()
            try source.directory.sync()
        }
    }

    private static func remove(_ path: String, recursive: Bool, _ roots: FileRoots) throws(FileFailure) {
        try roots.about(path) {
            let place = try roots.place(path, writes: true)
            guard let status = try place.directory.status(place.name) else { throw SystemError("remove", path, code: ENOENT) }
            if status.kind == .directory, recursive {
                var left = removedEntries
                try removeTree(place.directory, place.name, device: status.device, depth: depth, &left)
            }
            try place.directory.remove(place.name, directory: status.kind == .directory)
            try place.directory.sync()
        }
    }

    /// What is in a directory, by descriptors alone: a name that becomes a link meanwhile is removed as one. Other file
    /// systems that are mounted inside are not entered.
    private static func removeTree(
        _ parent: borrowing PlaceDirectory, _ name: String, device: UInt64, depth: Int, _ left: inout Int
    ) throws {
        guard depth > 0 else { throw FileFailure("tree-too-deep", "more than \(self.depth) directories inside each other") }
        let directory = PlaceDirectory(try parent.open(name, O_RDONLY | O_DIRECTORY))
        for inside in try directory.names(limit: directoryEntries) {
            guard left > 0 else { throw FileFailure("tree-too-large", "more than \(removedEntries) files") }
            left -= 1
            guard let status = try directory.status(inside) else { continue }
            if status.kind == .directory {
                guard status.device == device else { throw FileFailure("path-denied", "\(inside) is another file system") }
                try removeTree(directory, inside, device: device, depth: depth - 1, &left)
            }
            try directory.remove(inside, directory: status.kind == .directory)
        }
    }
}

extension FileEntry {
    init(_ name: String, _ status: FileStatus, target: String? = nil) {
        let kind: Kind =
            switch status.kind {
            case .file: .file
            case .directory: .directory
            case .symbolicLink: .link
            case .other: .other
            }
        self.init(
            name: name, kind: kind, size: status.size, mode: UInt16(status.mode), modified: status.modifiedNanoseconds,
            owner: status.owner, group: status.group, target: target)
    }

    /// A name in a directory; `nil`: there is none.
    init?(_ name: String, in directory: borrowing PlaceDirectory) throws(SystemError) {
        guard let status = try directory.status(name) else { return nil }
        self.init(name, status, target: status.kind == .symbolicLink ? try directory.readLink(name) : nil)
    }
}

import AgentProtocol
import Glibc
import JSON
import Synchronization
import System

/// What has come of a tree and is not in its place yet.
struct TreeMembers: Sendable {
    struct Waiting: Sendable {
        /// In the transfer's own directory.
        var name: String
        var parts: [String]
        var replaces: Bool
    }
    /// Directories get their mode and time when nothing more comes into them.
    struct Directory: Sendable {
        var parts: [String]
        var mode: UInt16
        var modified: Int64
    }

    var waiting: [Waiting] = []
    var directories: [Directory] = []
    var bytes: UInt64 = 0
    var count: UInt64 = 0
    var skipped: UInt64 = 0
    fileprivate var current: CurrentMember?
    fileprivate var next = 0

    init() {}

    /// As the journal has it.
    var place: JSONObject {
        [
            "count": .integer(Int64(clamping: count)), "skipped": .integer(Int64(clamping: skipped)),
            // Of the rest the time is lost when the agent dies, and nothing else.
            "directories": .array(
                directories.suffix(64).map {
                    [
                        "path": .string($0.parts.joined(separator: "/")), "mode": .integer(Int64($0.mode)),
                        "modified_ns": .integer($0.modified),
                    ]
                }),
        ]
    }

    init(_ place: JSONObject) {
        count = UInt64(clamping: place["count"]?.integer ?? 0)
        skipped = UInt64(clamping: place["skipped"]?.integer ?? 0)
        for item in place["directories"]?.array ?? [] {
            directories.append(
                Directory(
                    parts: (item["path"]?.string ?? "").split(separator: "/").map(String.init),
                    mode: UInt16(clamping: item["mode"]?.integer ?? 0o755), modified: item["modified_ns"]?.integer ?? 0))
        }
    }
}

/// A file that is being written.
private final class CurrentMember: Sendable {
    let file: Descriptor
    let waiting: TreeMembers.Waiting
    let entry: PaxEntry
    private let done = Mutex<UInt64>(0)

    init(_ file: consuming Descriptor, _ waiting: TreeMembers.Waiting, _ entry: PaxEntry) {
        self.file = file
        self.waiting = waiting
        self.entry = entry
    }

    func write(_ bytes: RawSpan) throws(SystemError) {
        try done.withLock { (done) throws(SystemError) in
            try file.write(bytes, at: done, subject: entry.path)
            done += UInt64(bytes.byteCount)
        }
    }
}

/// The directory of a tree that comes, and in it the transfer's own, where members are made.
final class TreePlaces: Sendable {
    private let tree: BeneathRoot
    private let own: PlaceDirectory
    private let temporary: String
    /// Most members lie beside the one before.
    private struct Parent: Sendable {
        var path: [String]
        let directory: SharedPlace
    }
    private final class SharedPlace: Sendable {
        let place: PlaceDirectory
        init(_ place: consuming PlaceDirectory) { self.place = place }
    }
    private let parent = Mutex<Parent?>(nil)

    init(_ directory: consuming PlaceDirectory, temporary: String) throws(SystemError) {
        do throws(SystemError) { try directory.makeDirectory(temporary, mode: 0o700) } catch { if !error.alreadyExists { throw error } }
        own = PlaceDirectory(try directory.open(temporary, O_RDONLY | O_DIRECTORY))
        self.temporary = temporary
        tree = BeneathRoot(try directory.open(".", O_RDONLY | O_DIRECTORY), path: ".", followsLinks: false)
    }

    // MARK: Members

    func begin(_ entry: PaxEntry, _ parts: [String], replaces: Bool, _ members: inout TreeMembers) throws {
        if entry.kind == .directory {
            try directory(parts)
            members.directories.append(
                TreeMembers.Directory(parts: parts, mode: entry.mode, modified: entry.modifiedNanoseconds))
            if members.directories.count > 4_096 { try finishDirectories(&members, except: parts) }
            members.count += 1
            return
        }
        members.next += 1
        let waiting = TreeMembers.Waiting(name: String(members.next, radix: 36), parts: parts, replaces: replaces)
        switch entry.kind {
        case .symbolicLink:
            try own.makeLink(waiting.name, to: entry.target)
            members.waiting.append(waiting)
            members.count += 1
        case .hardLink:
            let target = entry.target.split(separator: "/").filter { $0 != "." }.map(String.init)
            let place = try place(of: target)
            try place.place.link(target.last ?? "", in: own, as: waiting.name)
            members.waiting.append(waiting)
            members.count += 1
        default:
            let file = try own.open(waiting.name, O_WRONLY | O_CREAT | O_EXCL)
            members.current = CurrentMember(file, waiting, entry)
        }
    }

    func write(_ bytes: RawSpan, _ members: inout TreeMembers) throws(SystemError) {
        guard let current = members.current else { return }
        try current.write(bytes)
        members.bytes += UInt64(bytes.byteCount)
    }

    /// All bytes of the present file are there.
    func finish(_ members: inout TreeMembers) throws(SystemError) {
        guard let current = members.current else { return }
        members.current = nil
        try current.file.setMode(mode_t(current.entry.mode))
        try current.file.setModified(nanoseconds: current.entry.modifiedNanoseconds)
        members.waiting.append(current.waiting)
        members.count += 1
    }

    /// A file that is not whole will be sent again.
    func drop(_ members: inout TreeMembers) throws(SystemError) {
        guard let current = members.current else { return }
        members.current = nil
        try own.remove(current.waiting.name)
    }

    func sync() throws(SystemError) { try own.syncFileSystem() }

    /// Renames everything that waits into its place.
    func install(_ members: inout TreeMembers) throws {
        for waiting in members.waiting {
            let place = try place(of: waiting.parts)
            guard let name = waiting.parts.last else { continue }
            do throws(SystemError) {
                try own.rename(waiting.name, in: place.place, to: name, replaces: waiting.replaces)
            } catch {
                let path = waiting.parts.joined(separator: "/")
                throw SystemError(error.call, path, code: error.code)
            }
        }
        members.waiting = []
        members.bytes = 0
        let above = members.directories.last?.parts ?? []
        try finishDirectories(&members, except: above)
    }

    // MARK: Directories

    /// The directory of a member, made if the stream has not named it.
    private func place(of parts: [String]) throws -> SharedPlace {
        let above = Array(parts.dropLast())
        if let known = parent.withLock({ $0 }), known.path == above { return known.directory }
        do throws(SystemError) {
            let found = SharedPlace(PlaceDirectory(try tree.open(above.joined(separator: "/"), O_RDONLY | O_DIRECTORY)))
            parent.withLock { $0 = Parent(path: above, directory: found) }
            return found
        } catch {
            guard error.code == ENOENT else { throw error }
        }
        for count in 1...max(above.count, 1) { try directory(Array(above.prefix(count))) }
        let made = SharedPlace(PlaceDirectory(try tree.open(above.joined(separator: "/"), O_RDONLY | O_DIRECTORY)))
        parent.withLock { $0 = Parent(path: above, directory: made) }
        return made
    }

    private func directory(_ parts: [String]) throws {
        guard let name = parts.last else { return }
        let place = try place(of: parts)
        do throws(SystemError) { try place.place.makeDirectory(name, mode: 0o755) } catch {
            guard error.alreadyExists, try place.place.status(name)?.kind == .directory else { throw error }
        }
    }

    /// Mode and time of those that do not lie above `path`, into which more may come; of all with `nil`.
    func finishDirectories(_ members: inout TreeMembers, except path: [String]?) throws {
        var left: [TreeMembers.Directory] = []
        for directory in members.directories.reversed() {
            if let path, path.starts(with: directory.parts) {
                left.append(directory)
                continue
            }
            let place = try tree.open(directory.parts.joined(separator: "/"), O_RDONLY | O_DIRECTORY)
            try place.setMode(mode_t(directory.mode))
            try place.setModified(nanoseconds: directory.modified)
        }
        members.directories = left.reversed()
    }

    /// Removes the transfer's own directory, in which nothing is any more.
    func close() throws(SystemError) { try tree.remove(temporary, directory: true) }
}

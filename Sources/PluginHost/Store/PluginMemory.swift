import Crypto
import Glibc
import Kernel
import Synchronization
import System

/// What one plugin keeps, over all its versions: how much, against the configured bound, and its blobs.
///
/// A blob is a file of `D/plugin-data/ID`. Its functions block: the plugin's threads only.
final class PluginMemory: Sendable {
    static let blobsPerPlugin = 10_000
    /// Of one append.
    static let pieceBytes = 8 << 20

    let id: String
    let limit: UInt64
    private let directory: String

    private struct State {
        /// `nil`: not looked at yet.
        var blobs: (count: Int, bytes: UInt64)?
        var store: PluginStore.Usage?
    }
    /// Also held while a blob grows, so that its size is that of the append. No loop takes it.
    private let state = Mutex(State())

    init(id: String, limit: UInt64, directory: String) {
        self.id = id
        self.limit = limit
        self.directory = directory + "/" + id
    }

    /// What keys and values may have together.
    func room() throws(Problem) -> UInt64 {
        try state.withLock { (state) throws(Problem) in
            let blobs = try count(&state).bytes
            return limit > blobs ? limit - blobs : 0
        }
    }

    /// After a commit.
    func note(_ usage: PluginStore.Usage) { state.withLock { $0.store = usage } }

    var knowsStore: Bool { state.withLock { $0.store != nil } }

    // MARK: Blobs

    /// - Returns: the new size.
    func append(_ bytes: [UInt8], to name: String) throws(Problem) -> UInt64 {
        try state.withLock { (state) throws(Problem) in
            let blobs = try count(&state)
            let kept = state.store?.bytes ?? 0
            guard blobs.bytes + kept + UInt64(bytes.count) <= limit else {
                throw Problem(
                    507, "plugin-store-full",
                    "blobs with \(blobs.bytes) bytes and keys with \(kept) are kept, \(bytes.count) more are too many: \(limit) are allowed (plugins.store_bytes)")
            }
            let path = path(name)
            let isNew = !Files.exists(path)
            guard !isNew || blobs.count < Self.blobsPerPlugin else {
                throw Problem(507, "plugin-store-full", "the plugin has \(blobs.count) blobs; \(Self.blobsPerPlugin) are allowed")
            }
            return try attempt(name) { () throws(SystemError) in
                if isNew { try Files.makeDirectories(directory) }
                let file = try Descriptor.open(path, O_WRONLY | O_CREAT | O_NOFOLLOW)
                let size = try file.status(subject: path).size
                do throws(SystemError) {
                    try file.write(bytes.span.bytes, at: size, subject: path)
                } catch {
                    // What is there stays an exact prefix of what was appended.
                    try? file.truncate(to: size)
                    throw error
                }
                state.blobs = (blobs.count + (isNew ? 1 : 0), blobs.bytes + UInt64(bytes.count))
                return size + UInt64(bytes.count)
            }
        }
    }

    func sync(_ name: String) throws(Problem) {
        try attempt(name) { () throws(SystemError) in
            try Descriptor.open(path(name), O_WRONLY | O_NOFOLLOW).syncData(subject: name)
            try Files.syncDirectory(directory)
            if let parent = Files.parent(of: directory) { try Files.syncDirectory(parent) }
        }
    }

    /// As much as is there, up to `count`.
    func read(_ name: String, at offset: UInt64, count: Int) throws(Problem) -> [UInt8] {
        try attempt(name) { () throws(SystemError) in
            let path = path(name)
            let file = try Descriptor.open(path, O_RDONLY | O_NOFOLLOW)
            let size = try file.status(subject: path).size
            guard offset < size else { return [] }
            let count = Int(min(UInt64(count), size - offset))
            var failure: SystemError?
            var bytes: [UInt8] = []
            bytes.append(addingCapacity: count) { (output: inout OutputSpan<UInt8>) in
                output.withUnsafeMutableBufferPointer { buffer, initialized in
                    var raw = OutputRawSpan(buffer: UnsafeMutableRawBufferPointer(buffer), initializedCount: 0)
                    do throws(SystemError) {
                        initialized = try file.read(at: offset, into: &raw, subject: path)
                    } catch {
                        failure = error
                    }
                }
            }
            if let failure { throw failure }
            return bytes
        }
    }

    func size(_ name: String) throws(Problem) -> UInt64 {
        try attempt(name) { () throws(SystemError) in try Files.status(path(name), followLinks: false).size }
    }

    func remove(_ name: String) throws(Problem) {
        try state.withLock { (state) throws(Problem) in
            let blobs = try count(&state)
            try attempt(name) { () throws(SystemError) in
                let path = path(name)
                let size = try Files.status(path, followLinks: false).size
                try Files.remove(path)
                state.blobs = (max(0, blobs.count - 1), blobs.bytes - min(blobs.bytes, size))
                try Files.syncDirectory(directory)
            }
        }
    }

    /// Bytes of keys, values and blobs as far as they are known.
    var bytes: UInt64 { state.withLock { ($0.store?.bytes ?? 0) + ($0.blobs?.bytes ?? 0) } }

    // MARK: Files

    /// The name itself where a file can have it, so that people find it; else its hash. No name leaves the directory.
    private func path(_ name: String) -> String {
        var file = "b."
        for byte in name.utf8 {
            switch byte {
            case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x2E, 0x5F: file.unicodeScalars.append(Unicode.Scalar(byte))
            default: file += "%" + Hex.encode([byte])
            }
        }
        return directory + "/" + (file.utf8.count <= 200 ? file : "h." + Hex.encode(SHA256.hash(Array(name.utf8))))
    }

    private func count(_ state: inout State) throws(Problem) -> (count: Int, bytes: UInt64) {
        if let blobs = state.blobs { return blobs }
        var blobs: (count: Int, bytes: UInt64) = (0, 0)
        if Files.exists(directory) {
            try attempt("") { () throws(SystemError) in
                for name in try Files.list(directory, limit: 10 * Self.blobsPerPlugin) {
                    blobs.count += 1
                    blobs.bytes += try Files.status(directory + "/" + name, followLinks: false).size
                }
            }
        }
        state.blobs = blobs
        return blobs
    }

    private func attempt<Value>(_ name: String, _ body: () throws(SystemError) -> Value) throws(Problem) -> Value {
        do throws(SystemError) {
            return try body()
        } catch {
            if error.isMissing { throw .notFound("there is no blob \"\(name.prefix(64))\"") }
            if error.isOutOfSpace { throw StoreError.full.problem }
            throw Problem(500, "plugin-blob", "the blob \"\(name.prefix(64))\" cannot be used: \(error)")
        }
    }
}

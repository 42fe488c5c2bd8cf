import JSON
import PluginKit

/// A file of the core's store as what is uploaded. Read ahead of nobody: the store's disk is near.
final class FileSource: SeekableSource {
    private let reader: FileReader
    private var position: UInt64 = 0

    init(_ reader: FileReader) { self.reader = reader }

    var length: Int64? { Int64(clamping: reader.size) }

    func seek(_ offset: Int64) { position = min(UInt64(clamping: offset), reader.size) }

    func read(_ limit: Int, into buffer: inout [UInt8]) throws(CloudError) -> Bool {
        var wanted = UInt64(limit)
        buffer.reserveCapacity(Int(min(wanted, reader.size - position)))
        while wanted > 0, position < reader.size {
            let most = Int(min(wanted, reader.size - position, UInt64(Files.readBytes)))
            let (at, reader) = (position, reader)
            let piece = try CloudError.kept { () throws(PluginError) in try reader.read(from: at, limit: most) }
            guard !piece.isEmpty else { throw CloudError(.internal, "the stored file ends early") }
            buffer += piece
            position += UInt64(piece.count)
            wanted -= UInt64(piece.count)
        }
        return position < reader.size
    }
}

/// An object on its way into a new file of the core's store.
final class FileSink: ByteSink {
    private let files: Files
    private let actor: Actor
    private let name: String
    private let digest = Digest(.sha256)
    private let began: (String, ObjectInfo) throws(CloudError) -> Void
    /// The object whose file an earlier attempt has begun.
    private let known: ObjectInfo?
    private var waiting: [UInt8] = []
    private var unsynced = 0
    private(set) var writer: FileWriter?
    private static let block = 1 << 20
    /// So much is fetched again at most after an interruption.
    private static let syncBytes = 16 << 20

    /// - Parameter began: hears the id of the file before its first byte.
    init(_ files: Files, as actor: Actor, name: String, began: @escaping (String, ObjectInfo) throws(CloudError) -> Void) {
        self.files = files
        self.actor = actor
        self.name = name
        self.began = began
        known = nil
    }

    init(_ files: Files, as actor: Actor, goingOn writer: FileWriter, of info: ObjectInfo) {
        self.files = files
        self.actor = actor
        self.writer = writer
        name = ""
        known = info
        began = { (_, _) throws(CloudError) in }
    }

    func begin(_ info: ObjectInfo, range: ClosedRange<Int64>?) throws(CloudError) {
        if let known, let writer {
            guard info.etag == known.etag, info.size == known.size else {
                throw CloudError(.dropped, "\"\(info.key)\" was replaced while it was read")
            }
            guard (range?.lowerBound ?? 0) == Int64(clamping: writer.offset) else { throw CloudError(.range, "the store sends another part of \"\(info.key)\"") }
            return
        }
        let options: JSONObject = ["name": .string(name), "size": .integer(info.size)]
        let (files, actor) = (files, actor)
        let made = try CloudError.kept { () throws(PluginError) in try files.create(options, as: actor) }
        writer = made
        try began(made.id, info)
    }

    func write(_ bytes: UnsafeRawBufferPointer) throws(CloudError) {
        digest.update(bytes)
        waiting.append(contentsOf: bytes)
        if waiting.count >= Self.block { try flush() }
    }

    private func flush() throws(CloudError) {
        guard let writer, !waiting.isEmpty else { return }
        let bytes = waiting
        unsynced += bytes.count
        let isDue = unsynced >= Self.syncBytes
        try CloudError.kept { () throws(PluginError) in
            try writer.append(bytes)
            if isDue { try writer.sync() }
        }
        if isDue { unsynced = 0 }
        waiting.removeAll(keepingCapacity: true)
    }

    /// The whole file, as the API shows it: what the core has must hash to what came, where all of it came through here.
    func finish() throws(CloudError) -> JSONValue {
        try flush()
        guard let writer else { throw CloudError(.internal, "the file was not begun") }
        let sum = digest.finish()
        let isAll = known == nil
        return try CloudError.kept { () throws(PluginError) in try writer.seal(sha256: isAll ? sum : nil) }
    }

    func discard() { writer?.discard() }

    /// Keeps what came, for an attempt that goes on.
    func release() {
        try? flush()
        guard let writer else { return }
        _ = try? writer.sync()
        writer.release()
    }
}

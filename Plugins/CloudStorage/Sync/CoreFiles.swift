import JSON
import PluginKit

/// A file of the core's store as what is uploaded. Read ahead of nobody: the store's disk is near.
final class FileSource: ByteSource {
    private let reader: FileReader
    private var position: UInt64 = 0

    init(_ reader: FileReader) { self.reader = reader }

    var length: Int64? { Int64(clamping: reader.size) }

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
    private var waiting: [UInt8] = []
    private(set) var writer: FileWriter?
    private static let block = 1 << 20

    init(_ files: Files, as actor: Actor, name: String) {
        self.files = files
        self.actor = actor
        self.name = name
    }

    func begin(_ info: ObjectInfo, range: ClosedRange<Int64>?) throws(CloudError) {
        let options: JSONObject = ["name": .string(name), "size": .integer(info.size)]
        let (files, actor) = (files, actor)
        writer = try CloudError.kept { () throws(PluginError) in try files.create(options, as: actor) }
    }

    func write(_ bytes: UnsafeRawBufferPointer) throws(CloudError) {
        digest.update(bytes)
        waiting.append(contentsOf: bytes)
        if waiting.count >= Self.block { try flush() }
    }

    private func flush() throws(CloudError) {
        guard let writer, !waiting.isEmpty else { return }
        let bytes = waiting
        try CloudError.kept { () throws(PluginError) in try writer.append(bytes) }
        waiting.removeAll(keepingCapacity: true)
    }

    /// The whole file, as the API shows it: what the core has must hash to what came.
    func finish() throws(CloudError) -> JSONValue {
        try flush()
        guard let writer else { throw CloudError(.internal, "the file was not begun") }
        let sum = digest.finish()
        return try CloudError.kept { () throws(PluginError) in try writer.seal(sha256: sum) }
    }

    func discard() { writer?.discard() }
}

/// A `ByteSource` as the body of one request: a little is read ahead, so that small content can be sent again.
final class SourceBody: WebBody {
    private static let ahead = 4 << 20

    private let source: any ByteSource
    private var buffer: [UInt8] = []
    private var position = 0
    private var goesOn: Bool
    private let md5 = Digest(.md5)
    private let sha256 = Digest(.sha256)
    private(set) var failure: CloudError?
    private(set) var size: Int64 = 0
    /// All of it lies in memory.
    let isWhole: Bool
    let length: Int64?

    init(_ source: any ByteSource) throws(CloudError) {
        self.source = source
        goesOn = try source.read(Self.ahead, into: &buffer)
        isWhole = !goesOn
        length = goesOn ? source.length : Int64(buffer.count)
        count(buffer)
    }

    private func count(_ bytes: [UInt8]) {
        md5.update(bytes)
        sha256.update(bytes)
        size += Int64(bytes.count)
    }

    func sums() -> (md5: [UInt8], sha256: [UInt8]) { (md5.finish(), sha256.finish()) }

    func read(into room: UnsafeMutableRawBufferPointer) -> Int? {
        if position == buffer.count {
            guard goesOn else { return 0 }
            buffer.removeAll(keepingCapacity: true)
            position = 0
            do throws(CloudError) {
                goesOn = try source.read(512 << 10, into: &buffer)
            } catch {
                failure = error
                return nil
            }
            count(buffer)
        }
        let taken = min(room.count, buffer.count - position)
        buffer.withUnsafeBytes { room.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[position..<position + taken])) }
        position += taken
        return taken
    }

    func rewind() -> Bool {
        guard isWhole || position == 0 else { return false }
        position = 0
        return true
    }
}

/// Content that lies in memory.
final class MemorySource: ByteSource {
    private let bytes: [UInt8]
    private var position = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    var length: Int64? { Int64(bytes.count) }

    func read(_ limit: Int, into buffer: inout [UInt8]) throws(CloudError) -> Bool {
        let count = min(limit, bytes.count - position)
        buffer += bytes[position..<position + count]
        position += count
        return position < bytes.count
    }
}

/// Takes content for its hash alone.
final class HashingSink: ByteSink {
    private let digest: Digest

    init(_ algorithm: Digest.Algorithm = .sha256) { digest = Digest(algorithm) }

    func begin(_ info: ObjectInfo, range: ClosedRange<Int64>?) throws(CloudError) {}
    func write(_ bytes: UnsafeRawBufferPointer) throws(CloudError) { digest.update(bytes) }
    func finish() -> [UInt8] { digest.finish() }
}

/// Collects content up to a limit.
final class MemorySink: ByteSink {
    private let limit: Int
    private(set) var bytes: [UInt8] = []
    private(set) var info: ObjectInfo?

    init(limit: Int) { self.limit = limit }

    func begin(_ info: ObjectInfo, range: ClosedRange<Int64>?) throws(CloudError) {
        let size = range.map { $0.upperBound - $0.lowerBound + 1 } ?? info.size
        guard size <= Int64(limit) else { throw .invalid("\(size) bytes are more than the \(limit) that there is room for") }
        self.info = info
        bytes.reserveCapacity(Int(size))
    }

    func write(_ piece: UnsafeRawBufferPointer) throws(CloudError) { bytes.append(contentsOf: piece) }
}

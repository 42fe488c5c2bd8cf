/// Where one stream of one target lies in the segment files, in the order of the stream.
struct OutputExtents: Sendable, Equatable {
    struct Extent: Sendable, Equatable {
        var segment: UInt64
        /// Byte in the segment file.
        var position: UInt64
        var length: UInt64
    }

    private(set) var extents: [Extent] = []
    private(set) var length: UInt64 = 0

    /// A piece that continues the last one becomes part of it.
    mutating func append(_ extent: Extent) {
        length += extent.length
        if let last = extents.last, last.segment == extent.segment, last.position + last.length == extent.position {
            extents[extents.count - 1].length += extent.length
        } else {
            extents.append(extent)
        }
    }

    /// The pieces that hold bytes `offset` to `offset + count` of the stream, as far as there are any.
    func pieces(at offset: UInt64, count: UInt64) -> [Extent] {
        var pieces: [Extent] = []
        var start: UInt64 = 0
        var wanted = offset
        var left = count
        for extent in extents {
            let end = start + extent.length
            if wanted < end, left > 0 {
                let skip = wanted - start
                let taken = min(left, extent.length - skip)
                pieces.append(Extent(segment: extent.segment, position: extent.position + skip, length: taken))
                wanted += taken
                left -= taken
            }
            start = end
            if left == 0 { break }
        }
        return pieces
    }
}

/// The extents of both streams as bytes: for each stream the count, then segment, position and length of each extent as
/// LEB128 numbers.
enum OutputExtentCoding {
    static func encode(_ output: OutputExtents, _ errors: OutputExtents) -> [UInt8] {
        var bytes: [UInt8] = []
        for stream in [output, errors] {
            append(UInt64(stream.extents.count), to: &bytes)
            for extent in stream.extents {
                append(extent.segment, to: &bytes)
                append(extent.position, to: &bytes)
                append(extent.length, to: &bytes)
            }
        }
        return bytes
    }

    /// `nil` for bytes that `encode` cannot have made.
    static func decode(_ bytes: [UInt8]) -> (output: OutputExtents, errors: OutputExtents)? {
        var index = 0
        var streams = [OutputExtents(), OutputExtents()]
        for stream in 0..<2 {
            guard let count = number(bytes, &index), count <= UInt64(bytes.count) else { return nil }
            for _ in 0..<count {
                guard let segment = number(bytes, &index), let position = number(bytes, &index),
                    let length = number(bytes, &index)
                else { return nil }
                streams[stream].append(.init(segment: segment, position: position, length: length))
            }
        }
        guard index == bytes.count else { return nil }
        return (streams[0], streams[1])
    }

    private static func append(_ value: UInt64, to bytes: inout [UInt8]) {
        var rest = value
        while rest >= 0x80 {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(truncatingIfNeeded: rest))
    }

    private static func number(_ bytes: [UInt8], _ index: inout Int) -> UInt64? {
        var value: UInt64 = 0
        var shift: UInt64 = 0
        while index < bytes.count, shift < 64 {
            let byte = bytes[index]
            index += 1
            value |= UInt64(byte & 0x7F) << shift
            if byte & 0x80 == 0 { return value }
            shift += 7
        }
        return nil
    }
}

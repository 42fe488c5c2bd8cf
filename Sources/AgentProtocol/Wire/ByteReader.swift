/// A place in a span of bytes, for the fixed little-endian forms of the wire. Each read checks the bounds first.
///
/// The span is passed to each call instead of being stored: a stored span would make this type non-escapable.
struct ByteReader {
    var offset = 0

    @inline(__always)
    private mutating func load<Value: FixedWidthInteger & BitwiseCopyable>(
        _ bytes: borrowing RawSpan, as type: Value.Type
    ) throws(WireError) -> Value {
        let size = MemoryLayout<Value>.size
        guard bytes.byteCount - offset >= size else { throw Self.short(at: offset) }
        // Invariant: offset + size is inside the span (checked above), so the unchecked load reads only its bytes.
        let value = unsafe bytes.unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: Value.self)
        offset += size
        return Value(littleEndian: value)
    }

    mutating func u8(_ bytes: borrowing RawSpan) throws(WireError) -> UInt8 { try load(bytes, as: UInt8.self) }
    mutating func u16(_ bytes: borrowing RawSpan) throws(WireError) -> UInt16 { try load(bytes, as: UInt16.self) }
    mutating func u32(_ bytes: borrowing RawSpan) throws(WireError) -> UInt32 { try load(bytes, as: UInt32.self) }
    mutating func u64(_ bytes: borrowing RawSpan) throws(WireError) -> UInt64 { try load(bytes, as: UInt64.self) }

    mutating func identifier<Kind>(_ bytes: borrowing RawSpan) throws(WireError) -> Identifier<Kind> {
        let high = try load(bytes, as: UInt64.self)
        let low = try load(bytes, as: UInt64.self)
        // On the wire as in the database: sixteen bytes in network order.
        return Identifier(high: high.byteSwapped, low: low.byteSwapped)
    }

    /// `count` bytes of UTF-8.
    mutating func text(_ bytes: borrowing RawSpan, count: Int) throws(WireError) -> String {
        guard count >= 0, bytes.byteCount - offset >= count else { throw Self.short(at: offset) }
        let part = bytes.extracting(offset..<offset + count)
        do {
            let text = String(copying: try UTF8Span(validating: Span<UInt8>(_bytes: part)))
            offset += count
            return text
        } catch {
            throw WireError(.malformed, "the text at byte \(offset) is not UTF-8")
        }
    }

    mutating func array(_ bytes: borrowing RawSpan, count: Int) throws(WireError) -> [UInt8] {
        guard count >= 0, bytes.byteCount - offset >= count else { throw Self.short(at: offset) }
        let part = bytes.extracting(offset..<offset + count)
        offset += count
        // Invariant: the array copies before the closure ends.
        return unsafe part.withUnsafeBytes { unsafe [UInt8]($0) }
    }

    /// A u32 count and as many bytes of text.
    mutating func longText(_ bytes: borrowing RawSpan) throws(WireError) -> String {
        try text(bytes, count: Int(try u32(bytes)))
    }

    /// A u32 count and as many texts.
    mutating func textList(_ bytes: borrowing RawSpan) throws(WireError) -> [String] {
        let count = Int(try u32(bytes))
        guard count <= WireLimits.listCount else {
            throw WireError(.oversize, "a list has \(count) entries; at most \(WireLimits.listCount) are allowed")
        }
        var list: [String] = []
        list.reserveCapacity(min(count, 64))
        for _ in 0..<count { list.append(try longText(bytes)) }
        return list
    }

    func end(_ bytes: borrowing RawSpan) throws(WireError) {
        guard offset == bytes.byteCount else {
            throw WireError(.malformed, "\(bytes.byteCount - offset) bytes follow the end of the payload")
        }
    }

    static func short(at offset: Int) -> WireError {
        WireError(.malformed, "the payload ends inside the field at byte \(offset)")
    }
}

extension FrameHeader {
    /// Takes the next frame's header from a message and leaves `position` at its payload, whose length has been checked
    /// against the kind's bound and the message.
    @inline(__always)
    public static func next(in message: borrowing RawSpan, at position: inout Int) throws(WireError) -> FrameHeader {
        var reader = ByteReader(offset: position)
        guard message.byteCount - position >= byteCount else {
            throw WireError(.malformed, "a message ends inside a frame header")
        }
        let kindByte = try reader.u8(message)
        let flags = try reader.u8(message)
        let reserved = try reader.u16(message)
        let channel = try reader.u32(message)
        let offset = try reader.u64(message)
        let length = try reader.u32(message)
        guard let kind = FrameKind(rawValue: kindByte) else {
            throw WireError(.unknownKind, "frame kind \(kindByte) is not part of version 1")
        }
        guard reserved == 0 else { throw WireError(.malformed, "the reserved field of a header is \(reserved), not 0") }
        guard Int(length) <= WireLimits.payloadBytes(kind) else {
            throw WireError(
                .oversize, "a \(kind) payload of \(length) bytes; at most \(WireLimits.payloadBytes(kind)) are allowed")
        }
        guard message.byteCount - reader.offset >= Int(length) else {
            throw WireError(.malformed, "a message ends inside a \(kind) payload")
        }
        position = reader.offset
        return FrameHeader(kind, flags: flags, channel: channel, offset: offset, length: length)
    }
}

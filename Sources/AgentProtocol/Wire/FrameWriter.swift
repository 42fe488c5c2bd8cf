/// Builds frames in a buffer that keeps its storage from message to message.
///
/// One per loop: `reset`, write one or more frames, hand `bytes` to the connection.
public struct FrameWriter: ~Copyable {
    public private(set) var bytes: [UInt8] = []
    private var frameStart = 0

    public init(reserving capacity: Int = 4_096) { bytes.reserveCapacity(capacity) }

    /// A buffer that once grew for a large order is given back.
    public mutating func reset() {
        bytes.removeAll(keepingCapacity: bytes.capacity <= 128 * 1_024)
    }

    /// Gives the storage back: a thousand idle sessions hold none.
    public mutating func release() { bytes = [] }

    public mutating func begin(_ kind: FrameKind, flags: UInt8 = 0, channel: UInt32 = 0, offset: UInt64 = 0) {
        frameStart = bytes.count
        words([UInt64(kind.rawValue) | UInt64(flags) << 8 | UInt64(channel) << 32, offset])
        u32(0)
    }

    /// Writes the length of what followed `begin` into its header.
    public mutating func end() { end(payload: bytes.count - frameStart - FrameHeader.byteCount) }

    /// The header of a frame whose `payload` bytes are sent behind it without coming in here.
    mutating func head(_ kind: FrameKind, channel: UInt32, offset: UInt64, payload: Int) {
        begin(kind, channel: channel, offset: offset)
        end(payload: payload)
    }

    private mutating func end(payload: Int) {
        let length = UInt32(truncatingIfNeeded: payload).littleEndian
        // Invariant: `begin` has written the header's bytes. Checked here, since release builds do not check the store.
        precondition(frameStart + FrameHeader.byteCount <= bytes.count)
        unsafe bytes.withUnsafeMutableBytes { unsafe $0.storeBytes(of: length, toByteOffset: frameStart + 16, as: UInt32.self) }
    }

    /// A frame without payload.
    public mutating func frame(_ kind: FrameKind, flags: UInt8 = 0, channel: UInt32 = 0, offset: UInt64 = 0) {
        begin(kind, flags: flags, channel: channel, offset: offset)
    }

    public mutating func frame(
        _ kind: FrameKind, flags: UInt8 = 0, channel: UInt32 = 0, offset: UInt64 = 0, payload: [UInt8]
    ) {
        begin(kind, flags: flags, channel: channel, offset: offset)
        bytes.append(contentsOf: payload)
        end()
    }

    /// A data frame of up to `maximum` bytes that `fill` writes. Returns their count; with 0 no frame is made.
    public mutating func data(
        stream: OutputStream, channel: UInt32, offset: UInt64, maximum: Int, fill: (inout OutputRawSpan) -> Int
    ) -> Int {
        begin(.data, flags: stream.rawValue, channel: channel, offset: offset)
        let start = bytes.count
        let wanted = min(maximum, WireLimits.dataBytes)
        bytes.append(contentsOf: repeatElement(0, count: wanted))
        // Invariant: the span covers exactly the bytes appended above and does not outlive the closure.
        let count = unsafe bytes.withUnsafeMutableBytes { buffer in
            let free = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[start..<start + wanted])
            var span = unsafe OutputRawSpan(buffer: free, initializedCount: 0)
            _ = fill(&span)
            return unsafe span.finalize(for: free)
        }
        bytes.removeLast(wanted - count)
        guard count > 0 else {
            bytes.removeLast(FrameHeader.byteCount)
            return 0
        }
        end()
        return count
    }

    // MARK: Fields

    @inline(__always)
    private mutating func append<Value: FixedWidthInteger>(_ value: Value) {
        // Invariant: the buffer is copied before the closure ends.
        unsafe withUnsafeBytes(of: value.littleEndian) { unsafe bytes.append(contentsOf: $0) }
    }

    /// Several numbers in one go.
    @inline(__always)
    mutating func words<let count: Int>(_ values: [count of UInt64]) {
        var values = values
        for index in values.indices { values[index] = values[index].littleEndian }
        append(values.span.bytes)
    }

    mutating func u8(_ value: UInt8) { bytes.append(value) }
    mutating func u16(_ value: UInt16) { append(value) }
    mutating func u32(_ value: UInt32) { append(value) }
    mutating func u64(_ value: UInt64) { append(value) }

    mutating func identifier<Kind>(_ value: Identifier<Kind>) {
        append(value.high.byteSwapped)
        append(value.low.byteSwapped)
    }

    mutating func append(_ span: borrowing RawSpan) {
        // Invariant: the buffer is copied before the closure ends.
        unsafe span.withUnsafeBytes { unsafe bytes.append(contentsOf: $0) }
    }

    mutating func raw(_ value: [UInt8]) { bytes.append(contentsOf: value) }

    mutating func longText(_ value: String) {
        u32(UInt32(value.utf8.count))
        bytes.append(contentsOf: value.utf8)
    }

    mutating func textList(_ values: [String]) {
        u32(UInt32(values.count))
        for value in values { longText(value) }
    }
}

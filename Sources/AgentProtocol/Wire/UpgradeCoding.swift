/// The frames of an upgrade that are not JSON: the upgrade's id, then a count or bytes; the header's offset is the place
/// in the file.
public enum UpgradeFrames {
    static let idBytes = 16
    static let requestBytes = 20

    /// The payload of `upgrade-forgotten`.
    public static func id(reading payload: borrowing RawSpan) throws(WireError) -> UpgradeID {
        var reader = ByteReader()
        let id: UpgradeID = try reader.identifier(payload)
        try reader.end(payload)
        return id
    }

    /// The payload of `release-request`.
    public static func request(reading payload: borrowing RawSpan) throws(WireError) -> (upgrade: UpgradeID, count: Int) {
        var reader = ByteReader()
        let id: UpgradeID = try reader.identifier(payload)
        let count = try reader.u32(payload)
        try reader.end(payload)
        guard (1...UInt32(ReleaseFetchStateMachine.pieceBytes)).contains(count) else {
            throw WireError(
                .oversize, "a piece of \(count) bytes; 1 to \(ReleaseFetchStateMachine.pieceBytes) may be asked for")
        }
        return (id, Int(count))
    }

    /// The payload of `release-data`: how many bytes of it are the id, and whose they are.
    public static func data(
        reading payload: borrowing RawSpan
    ) throws(WireError) -> (upgrade: UpgradeID, bytes: Range<Int>) {
        var reader = ByteReader()
        let id: UpgradeID = try reader.identifier(payload)
        guard payload.byteCount > idBytes else { throw WireError(.malformed, "a piece of a release without bytes") }
        return (id, idBytes..<payload.byteCount)
    }
}

extension FrameWriter {
    public mutating func upgradeForgotten(_ upgrade: UpgradeID) {
        begin(.upgradeForgotten)
        identifier(upgrade)
        end()
    }

    public mutating func releaseRequest(_ upgrade: UpgradeID, from offset: UInt64, count: UInt64) {
        begin(.releaseRequest, offset: offset)
        identifier(upgrade)
        u32(UInt32(truncatingIfNeeded: count))
        end()
    }

    /// As many frames as the bytes take.
    public mutating func releaseData(_ upgrade: UpgradeID, from offset: UInt64, _ bytes: [UInt8]) {
        var start = 0
        while start < bytes.count {
            let count = min(WireLimits.dataBytes, bytes.count - start)
            begin(.releaseData, offset: offset + UInt64(start))
            identifier(upgrade)
            raw(Array(bytes[start..<start + count]))
            end()
            start += count
        }
    }
}

// libFuzzer's driver for the pax reader: the same members whatever the pieces are, no member's data outside the input or beyond
// its size, bounded names; and what our writer makes of a member is read as that member. Built by Tests/Fuzz/run.

@c(LLVMFuzzerTestOneInput)
public func fuzzArchive(_ data: UnsafePointer<UInt8>, _ size: Int) -> CInt {
    guard size > 1 else { return 0 }
    var bytes = Array(UnsafeBufferPointer(start: data + 1, count: size - 1))
    // Nobody guesses a checksum: half of the inputs get theirs put right.
    if data[0] & 1 == 1 {
        for start in stride(from: 0, to: bytes.count - 511, by: 512) {
            var sum = 0
            for index in 0..<512 { sum += (148..<156).contains(index) ? 0x20 : Int(bytes[start + index]) }
            for index in 0..<6 { bytes[start + 148 + index] = 0x30 + UInt8(sum >> (15 - 3 * index) & 7) }
            bytes[start + 154] = 0
            bytes[start + 155] = 0x20
        }
    }
    let whole = members(bytes, piece: bytes.count)
    let pieces = members(bytes, piece: Int(data[0] >> 1) + 1)
    precondition(whole == pieces, "the pieces decide what is read")
    for entry in whole {
        precondition(entry.path.utf8.count <= 4_096 && entry.target.utf8.count <= 4_096, "an unbounded name")
        guard entry.isBelow, entry.kind != .other, entry.kind == .file || entry.size == 0, !entry.path.isEmpty, entry.path.utf8.last != 0x2F,
            entry.modifiedNanoseconds % 1_000_000_000 == 0
        else { continue }
        var archive: [UInt8] = []
        PaxWriting.header(of: entry, to: &archive)
        precondition(members(archive, piece: archive.count) == [entry], "written and read are not the same")
    }
    return 0
}

private func members(_ bytes: [UInt8], piece: Int) -> [PaxEntry] {
    var machine = PaxReaderStateMachine()
    var found: [PaxEntry] = []
    var left: UInt64 = 0
    var start = 0
    while start < bytes.count {
        let part = Array(bytes[start..<min(start + piece, bytes.count)])
        start += part.count
        var offset = 0
        steps: while true {
            guard let step = try? machine.next(part.span, &offset) else { return found }
            switch step {
            case .entry(let entry):
                precondition(left == 0, "a member begins inside another")
                found.append(entry)
                left = entry.size
            case .data(let range):
                precondition(range.lowerBound >= 0 && range.upperBound <= part.count && UInt64(range.count) <= left, "data outside")
                left -= UInt64(range.count)
            case .more: break steps
            case .end: return found
            }
        }
    }
    return found
}

/// Writes pax archives: a header per member, its bytes, padding to the next block, two empty blocks at the end. Readable by
/// every tar.
public enum PaxWriting {
    public static let blockBytes = 512
    /// What stands after the last member.
    public static let end = [UInt8](repeating: 0, count: 2 * blockBytes)

    /// Zero bytes between a member's data and the next header.
    public static func padding(after size: UInt64) -> Int { Int((512 - size % 512) % 512) }

    /// Appends the member's header; before it, where a plain header cannot say everything, an extended one.
    public static func header(of entry: PaxEntry, to output: inout [UInt8]) {
        var name = Array(entry.path.utf8)
        if entry.kind == .directory { name.append(0x2F) }
        let target = Array(entry.target.utf8)
        var records: [UInt8] = []
        let fits = split(name)
        if fits == nil || name.contains(where: { $0 >= 0x80 }) { append("path", name, to: &records) }
        if target.count > 100 || target.contains(where: { $0 >= 0x80 }) { append("linkpath", target, to: &records) }
        if entry.size > maximumSize { append("size", Array(String(entry.size).utf8), to: &records) }
        let seconds = floorSeconds(entry.modifiedNanoseconds)
        if seconds < 0 || seconds > Int64(maximumSize) { append("mtime", Array(String(seconds).utf8), to: &records) }
        if !records.isEmpty {
            block(
                prefix: [], name: Array("PaxHeaders/x".utf8), type: 0x78, mode: 0o644, size: UInt64(records.count), seconds: 0,
                target: [], to: &output)
            output += records
            output.append(contentsOf: repeatElement(0, count: padding(after: UInt64(records.count))))
        }
        let (prefix, short) = fits ?? ([], Array(name.prefix(100)))
        block(
            prefix: prefix, name: short, type: type(of: entry.kind), mode: entry.mode,
            size: entry.kind == .file ? min(entry.size, maximumSize) : 0, seconds: UInt64(clamping: seconds),
            target: Array(target.prefix(100)), to: &output)
    }

    /// Eleven octal digits.
    private static let maximumSize: UInt64 = 0o77_777_777_777

    private static func floorSeconds(_ nanoseconds: Int64) -> Int64 {
        nanoseconds >= 0 ? nanoseconds / 1_000_000_000 : (nanoseconds - 999_999_999) / 1_000_000_000
    }

    private static func type(of kind: PaxEntry.Kind) -> UInt8 {
        switch kind {
        case .file, .other: 0x30
        case .hardLink: 0x31
        case .symbolicLink: 0x32
        case .directory: 0x35
        }
    }

    /// A long name as prefix and name with a slash between; `nil` where there is no such slash.
    private static func split(_ name: [UInt8]) -> (prefix: [UInt8], name: [UInt8])? {
        if name.count <= 100 { return ([], name) }
        guard name.count <= 256 else { return nil }
        // The last slash of a directory belongs to its name.
        let earliest = max(name.count - 101, 1)
        for index in earliest..<min(156, name.count - 1) where name[index] == 0x2F {
            return (Array(name[..<index]), Array(name[(index + 1)...]))
        }
        return nil
    }

    /// `LENGTH KEY=VALUE\n`, where the length counts itself.
    private static func append(_ key: String, _ value: [UInt8], to records: inout [UInt8]) {
        let rest = key.utf8.count + value.count + 3
        var length = rest + String(rest).utf8.count
        if String(length).utf8.count + rest != length { length = rest + String(length).utf8.count }
        records += Array("\(length) \(key)=".utf8) + value + [0x0A]
    }

    private static func block(
        prefix: [UInt8], name: [UInt8], type: UInt8, mode: UInt16, size: UInt64, seconds: UInt64, target: [UInt8],
        to output: inout [UInt8]
    ) {
        let start = output.count
        output.append(contentsOf: repeatElement(0, count: blockBytes))
        func put(_ bytes: [UInt8], at offset: Int) {
            for (index, byte) in bytes.enumerated() { output[start + offset + index] = byte }
        }
        func octal(_ value: UInt64, digits: Int, at offset: Int) {
            var value = value
            for index in stride(from: digits - 1, through: 0, by: -1) {
                output[start + offset + index] = 0x30 + UInt8(value & 7)
                value >>= 3
            }
        }
        put(name, at: 0)
        octal(UInt64(mode & 0o7777), digits: 7, at: 100)
        octal(0, digits: 7, at: 108)
        octal(0, digits: 7, at: 116)
        octal(size, digits: 11, at: 124)
        octal(min(seconds, maximumSize), digits: 11, at: 136)
        put(Array(repeating: 0x20, count: 8), at: 148)
        output[start + 156] = type
        put(target, at: 157)
        put(Array("ustar\u{0}00".utf8), at: 257)
        octal(0, digits: 7, at: 329)
        octal(0, digits: 7, at: 337)
        put(prefix, at: 345)
        var sum: UInt64 = 0
        for index in start..<start + blockBytes { sum += UInt64(output[index]) }
        octal(sum, digits: 6, at: 148)
        output[start + 154] = 0
        output[start + 155] = 0x20
    }
}

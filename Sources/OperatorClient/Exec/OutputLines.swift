/// Output of many clients as whole lines with the client's name in front, so that they can share one terminal.
struct OutputLines {
    struct Stream: Hashable {
        var client: String
        var isError: Bool
    }

    /// A line that is longer is broken.
    static let longestLine = 64 << 10

    private var unfinished: [Stream: [UInt8]] = [:]
    private var widest = 0
    private let usesColour: Bool
    /// Control characters are shown instead of sent: several clients write to the terminal, none may draw over another.
    private let isGuarded: Bool

    init(usesColour: Bool, isGuarded: Bool) {
        self.usesColour = usesColour
        self.isGuarded = isGuarded
    }

    /// The lines that these bytes complete, ready to be written.
    mutating func add(_ bytes: some Sequence<UInt8>, of stream: Stream, name: String) -> [UInt8] {
        var line = unfinished[stream] ?? []
        var result: [UInt8] = []
        for byte in bytes {
            if byte == 0x0A || line.count >= Self.longestLine {
                result += finished(line, stream, name)
                line.removeAll(keepingCapacity: true)
            }
            if byte != 0x0A { line.append(byte) }
        }
        unfinished[stream] = line.isEmpty ? nil : line
        return result
    }

    /// What is left of a client's last lines, when it has ended.
    mutating func end(_ client: String, name: String) -> [(bytes: [UInt8], isError: Bool)] {
        [false, true].compactMap { isError in
            let stream = Stream(client: client, isError: isError)
            guard let line = unfinished.removeValue(forKey: stream) else { return nil }
            return (finished(line, stream, name), isError)
        }
    }

    private mutating func finished(_ line: [UInt8], _ stream: Stream, _ name: String) -> [UInt8] {
        widest = max(widest, min(name.count, 40))
        let padding = String(repeating: " ", count: max(0, widest - name.count))
        var result: [UInt8] = []
        if usesColour {
            result += "\u{1B}[\(Self.colour(of: stream.client))m\(name)\u{1B}[0m\(padding) \(stream.isError ? "!" : "|") ".utf8
        } else {
            result += "\(name)\(padding) \(stream.isError ? "!" : "|") ".utf8
        }
        result += isGuarded ? Self.guarded(line) : line
        result.append(0x0A)
        return result
    }

    /// One of six readable colours, the same for a client in every run.
    private static func colour(of client: String) -> Int {
        // FNV-1a, because Hasher gives another value in each process.
        let hash = client.utf8.reduce(UInt32(2_166_136_261)) { ($0 ^ UInt32($1)) &* 16_777_619 }
        return 31 + Int(hash % 6)
    }

    /// Keeps tabs and colours (`ESC [ … m`), shows other control characters as `^X`, drops the return before a line's end.
    static func guarded(_ line: [UInt8]) -> [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(line.count)
        var hasColour = false
        var index = 0
        while index < line.count {
            let byte = line[index]
            if byte == 0x1B, let end = colourEnd(line, index) {
                result += line[index...end]
                hasColour = true
                index = end + 1
                continue
            }
            if byte >= 0x20, byte != 0x7F {
                // C1 controls in UTF-8: C2 80 to C2 9F.
                if byte == 0xC2, index + 1 < line.count, (0x80...0x9F).contains(line[index + 1]) {
                    result += [0xEF, 0xBF, 0xBD]
                    index += 1
                } else {
                    result.append(byte)
                }
            } else if byte == 0x09 {
                result.append(byte)
            } else if byte != 0x0D || index + 1 < line.count {
                result += [UInt8(ascii: "^"), byte ^ 0x40]
            }
            index += 1
        }
        if hasColour { result += [0x1B, UInt8(ascii: "["), UInt8(ascii: "0"), UInt8(ascii: "m")] }
        return result
    }

    private static func colourEnd(_ line: [UInt8], _ start: Int) -> Int? {
        guard start + 1 < line.count, line[start + 1] == UInt8(ascii: "[") else { return nil }
        var index = start + 2
        while index < line.count, index - start < 32 {
            if line[index] == UInt8(ascii: "m") { return index }
            guard (0x30...0x3B).contains(line[index]) else { return nil }
            index += 1
        }
        return nil
    }
}

/// An element of a small XML document: what stores answer. Names are without their prefix; attributes are passed over.
struct XMLElement: Sendable {
    let name: String
    /// All text directly inside, without that of its children.
    var text = ""
    var children: [XMLElement] = []

    func first(_ name: String) -> XMLElement? { children.first { $0.name == name } }
    func all(_ name: String) -> [XMLElement] { children.filter { $0.name == name } }
    func text(_ name: String) -> String? { first(name)?.text }

    /// The first element with that name anywhere below, in the order of the document.
    func anywhere(_ name: String) -> XMLElement? {
        for child in children {
            if child.name == name { return child }
            if let found = child.anywhere(name) { return found }
        }
        return nil
    }
}

/// Reads one XML document with bounds on everything. No document type, so no entities but the five of XML itself and numbers; no
/// namespaces beyond leaving prefixes out.
struct XMLReader {
    struct Fault: Error, Sendable { let text: String }

    private static let deepest = 32
    private static let mostElements = 400_000

    private let bytes: [UInt8]
    private var position = 0
    private var elements = 0

    private init(_ bytes: [UInt8]) { self.bytes = bytes }

    static func read(_ bytes: [UInt8], limit: Int = 64 << 20) throws(Fault) -> XMLElement {
        guard bytes.count <= limit else { throw Fault(text: "it has more than \(limit) bytes") }
        var reader = XMLReader(bytes)
        if bytes.starts(with: [0xEF, 0xBB, 0xBF]) { reader.position = 3 }
        try reader.skipMisc()
        guard reader.peek == UInt8(ascii: "<") else { throw Fault(text: "no element begins at byte \(reader.position)") }
        let root = try reader.element(depth: 1)
        try reader.skipMisc()
        guard reader.position == bytes.count else { throw Fault(text: "something follows the document") }
        return root
    }

    private var peek: UInt8? { position < bytes.count ? bytes[position] : nil }

    private func sees(_ text: StaticString) -> Bool {
        let wanted = UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount)
        return position + wanted.count <= bytes.count && bytes[position..<position + wanted.count].elementsEqual(wanted)
    }

    private mutating func skip(past text: StaticString) throws(Fault) {
        while position < bytes.count {
            if sees(text) {
                position += text.utf8CodeUnitCount
                return
            }
            position += 1
        }
        throw Fault(text: "it ends before \(text)")
    }

    /// White space, comments and processing instructions.
    private mutating func skipMisc() throws(Fault) {
        while let byte = peek {
            if Self.isSpace(byte) {
                position += 1
            } else if sees("<!--") {
                try skip(past: "-->")
            } else if sees("<?") {
                try skip(past: "?>")
            } else {
                return
            }
        }
    }

    private mutating func element(depth: Int) throws(Fault) -> XMLElement {
        elements += 1
        guard depth <= Self.deepest, elements <= Self.mostElements else { throw Fault(text: "it is too deep or has too many elements") }
        position += 1
        let full = try name()
        var element = XMLElement(name: Self.local(full))
        // Attributes: passed over, with their quotes heeded.
        while let byte = peek, byte != UInt8(ascii: ">"), byte != UInt8(ascii: "/") {
            position += 1
            guard byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "'") else { continue }
            while let inner = peek, inner != byte { position += 1 }
            position += 1
        }
        if sees("/>") {
            position += 2
            return element
        }
        guard peek == UInt8(ascii: ">") else { throw Fault(text: "a tag does not end") }
        position += 1
        var text: [UInt8] = []
        while let byte = peek {
            if byte == UInt8(ascii: "<") {
                if sees("</") {
                    position += 2
                    guard try name() == full else { throw Fault(text: "an end tag does not fit at byte \(position)") }
                    while let byte = peek, Self.isSpace(byte) { position += 1 }
                    guard peek == UInt8(ascii: ">") else { throw Fault(text: "an end tag does not end") }
                    position += 1
                    element.text = String(decoding: text, as: UTF8.self)
                    return element
                } else if sees("<!--") {
                    try skip(past: "-->")
                } else if sees("<![CDATA[") {
                    position += 9
                    let start = position
                    try skip(past: "]]>")
                    text += bytes[start..<position - 3]
                } else if sees("<?") {
                    try skip(past: "?>")
                } else if sees("<!") {
                    throw Fault(text: "it has a declaration inside")
                } else {
                    element.children.append(try self.element(depth: depth + 1))
                }
            } else if byte == UInt8(ascii: "&") {
                try reference(into: &text)
            } else {
                text.append(byte)
                position += 1
            }
        }
        throw Fault(text: "it ends inside an element")
    }

    private mutating func name() throws(Fault) -> ArraySlice<UInt8> {
        let start = position
        while let byte = peek, !Self.isSpace(byte), byte != UInt8(ascii: ">"), byte != UInt8(ascii: "/"), byte != UInt8(ascii: "<") {
            position += 1
        }
        guard position > start, position - start <= 256, bytes[start] != UInt8(ascii: "!") else { throw Fault(text: "a name is missing at byte \(start)") }
        return bytes[start..<position]
    }

    private mutating func reference(into text: inout [UInt8]) throws(Fault) {
        let start = position + 1
        guard let end = bytes[start..<min(start + 12, bytes.count)].firstIndex(of: UInt8(ascii: ";")) else {
            throw Fault(text: "a reference does not end at byte \(position)")
        }
        let word = String(decoding: bytes[start..<end], as: UTF8.self)
        position = end + 1
        switch word {
        case "lt": text.append(UInt8(ascii: "<"))
        case "gt": text.append(UInt8(ascii: ">"))
        case "amp": text.append(UInt8(ascii: "&"))
        case "quot": text.append(UInt8(ascii: "\""))
        case "apos": text.append(UInt8(ascii: "'"))
        default:
            let number = word.hasPrefix("#x") ? UInt32(word.dropFirst(2), radix: 16) : word.hasPrefix("#") ? UInt32(word.dropFirst()) : nil
            guard let scalar = number.flatMap({ UnicodeScalar($0) }) else { throw Fault(text: "&\(word); is not known") }
            text += Array(String(Character(scalar)).utf8)
        }
    }

    private static func isSpace(_ byte: UInt8) -> Bool { byte == 0x20 || byte == 9 || byte == 10 || byte == 13 }

    private static func local(_ name: ArraySlice<UInt8>) -> String {
        let start = name.lastIndex(of: UInt8(ascii: ":")).map { $0 + 1 } ?? name.startIndex
        return String(decoding: name[start...], as: UTF8.self)
    }

    /// Text for the inside of an element.
    static func escaped(_ text: String) -> String {
        var result: [UInt8] = []
        for byte in text.utf8 {
            switch byte {
            case UInt8(ascii: "<"): result += Array("&lt;".utf8)
            case UInt8(ascii: ">"): result += Array("&gt;".utf8)
            case UInt8(ascii: "&"): result += Array("&amp;".utf8)
            case UInt8(ascii: "\""): result += Array("&quot;".utf8)
            case 0..<0x20: result += Array("&#\(byte);".utf8)
            default: result.append(byte)
            }
        }
        return String(decoding: result, as: UTF8.self)
    }
}

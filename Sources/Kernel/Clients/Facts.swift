import JSON

/// Facts as an agent reported them, made flat for selectors: `{"os": {"name": "debian"}}` is `os.name` = `debian`.
/// A list of plain values gives its path several values; a list of objects is numbered from 0.
public struct Facts: Sendable {
    /// Values per client; what comes after them is not selectable (it stays readable in the report).
    static let maximumValues = 256
    /// Bytes of all paths and values per client.
    static let maximumBytes = 16_384
    /// Bytes of the report as JSON.
    public static let maximumReportBytes = 65_536
    /// Bytes of one value.
    static let maximumValueBytes = 512

    private(set) var values: [(path: String, value: String)] = []
    private var bytes = 0

    init(_ report: JSONValue) {
        add(report, path: "", depth: 0)
        values.sort { ($0.path, $0.value) < ($1.path, $1.value) }
        var last: (path: String, value: String)?
        values.removeAll { item in
            defer { last = item }
            return last.map { $0 == item } ?? false
        }
    }

    private mutating func add(_ value: JSONValue, path: String, depth: Int) {
        guard depth <= 8, values.count < Self.maximumValues else { return }
        switch value {
        case .null: break
        case .bool(let flag): append(path, flag ? "true" : "false")
        case .integer(let number): append(path, String(number))
        case .number(let number): append(path, number.description)
        case .string(let text): append(path, text)
        case .array(let items):
            for (index, item) in items.enumerated() {
                switch item {
                case .array, .object: add(item, path: join(path, String(index)), depth: depth + 1)
                default: add(item, path: path, depth: depth + 1)
                }
            }
        case .object(let members):
            for member in members { add(member.value, path: join(path, member.key), depth: depth + 1) }
        }
    }

    private func join(_ path: String, _ key: String) -> String {
        path.isEmpty ? Self.word(key) : path + "." + Self.word(key)
    }

    /// Keys become words of a selector: what ends a word there is an underscore here.
    private static func word(_ key: String) -> String {
        guard key.utf8.contains(where: SelectorSyntax.endsWord) else { return key }
        return String(decoding: key.utf8.map { SelectorSyntax.endsWord($0) ? 0x5F : $0 }, as: UTF8.self)
    }

    private mutating func append(_ path: String, _ value: String) {
        let size = path.utf8.count + value.utf8.count
        guard !path.isEmpty, path.utf8.count <= SelectorSyntax.maximumFactPathLength,
            value.utf8.count <= Self.maximumValueBytes, values.count < Self.maximumValues,
            bytes + size <= Self.maximumBytes
        else { return }
        bytes += size
        values.append((path, value.utf8.contains(0) ? String(decoding: value.utf8.filter { $0 != 0 }, as: UTF8.self) : value))
    }

    // MARK: The flat form in the database

    /// Path, 0, value, 0, and so on; `append` has taken U+0000 out of both.
    var packed: [UInt8] {
        var out: [UInt8] = []
        out.reserveCapacity(bytes + 2 * values.count)
        for (path, value) in values {
            out.append(contentsOf: path.utf8)
            out.append(0)
            out.append(contentsOf: value.utf8)
            out.append(0)
        }
        return out
    }

    init(packed: [UInt8]) {
        var start = 0
        var path: String?
        for index in packed.indices where packed[index] == 0 {
            let text = String(decoding: packed[start..<index], as: UTF8.self)
            if let key = path {
                values.append((key, text))
                bytes += key.utf8.count + text.utf8.count
                path = nil
            } else {
                path = text
            }
            start = index + 1
        }
    }
}

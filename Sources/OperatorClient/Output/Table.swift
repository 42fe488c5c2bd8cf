import JSON
import Program

/// A column of a table: `facts.os:SYSTEM` shows the member `os` of `facts` under the heading SYSTEM.
struct Column: Sendable, Equatable, ExpressibleByStringLiteral {
    let path: [String]
    let heading: String

    init(stringLiteral text: String) {
        let parts = text.split(separator: ":", maxSplits: 1).map(String.init)
        path = parts[0].split(separator: ".").map(String.init)
        let words = (path.last ?? "").uppercased().split(separator: "_").filter { $0 != "MS" && $0 != "AT" }
        heading = parts.count > 1 ? parts[1] : words.joined(separator: " ")
    }

    func value(in item: JSONValue) -> JSONValue {
        path.reduce(item) { $0[$1] ?? .null }
    }
}

/// Tables and records for people. What came from a client cannot speak to the terminal: control characters are shown, not sent.
enum Table {
    /// Columns as wide as their content; without a terminal nothing is cut.
    static func lines(_ items: [JSONValue], _ columns: [Column], width: Int?) -> [String] {
        let rows = [columns.map(\.heading)] + items.map { item in columns.map { cell($0.value(in: item), member: $0.path.last ?? "") } }
        let widths = columns.indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
        return rows.map { row in
            var line = ""
            for (index, text) in row.enumerated() {
                line += text
                if index + 1 < row.count { line += String(repeating: " ", count: widths[index] - text.count + 2) }
            }
            while line.last == " " { line.removeLast() }
            guard let width, line.count > width, width > 1 else { return line }
            return line.prefix(width - 1) + "…"
        }
    }

    /// One value per line, names aligned, members of nested objects with their path.
    static func record(_ value: JSONValue) -> [String] {
        let fields = flattened(value, "")
        let width = fields.map(\.0.count).max() ?? 0
        return fields.flatMap { name, text in
            let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
            let indentation = String(repeating: " ", count: width + 2)
            return lines.enumerated().map { index, line in
                index == 0 ? name + String(repeating: " ", count: width - name.count + 2) + line : indentation + line
            }
        }
    }

    private static func flattened(_ value: JSONValue, _ path: String) -> [(String, String)] {
        guard let object = value.object, !object.isEmpty else { 
            // A text of several lines (a certificate) keeps them here.
            let lines = value.string?.split(whereSeparator: \.isNewline).map { printable(String($0)) } ?? []
            return [(printable(path), lines.count > 1 ? lines.joined(separator: "\n") : cell(value, member: path))]
        }
        return object.flatMap { member in
            flattened(member.value, path.isEmpty ? member.key : path + "." + member.key)
        }
    }

    /// - Parameter member: its name; `…_ms` and `…_at` hold a time of day in milliseconds where the number is large
    ///   enough, else a duration.
    static func cell(_ value: JSONValue, member: String = "") -> String {
        switch value {
        case .null: "-"
        case .integer(let value) where member.hasSuffix("_ms") || member.hasSuffix("_at"):
            // 1e11 ms is 1973 as a time of day and three years as a duration.
            value >= 100_000_000_000
                ? String(Timestamp(milliseconds: value).description.prefix(19)) + "Z" : "\(value) ms"
        case .bool(let value): value ? "yes" : "no"
        case .integer(let value): "\(value)"
        case .number(let value): member.hasSuffix("_ms") ? "\(value) ms" : "\(value)"
        case .string(let text): text.isEmpty ? "-" : printable(text)
        case .array(let elements):
            elements.isEmpty ? "-" : elements.map { $0.object == nil ? cell($0) : $0.description }.joined(separator: ", ")
        case .object(let object):
            object.isEmpty ? "-" : object.map { printable($0.key) + "=" + cell($0.value) }.joined(separator: ",")
        }
    }

    /// `^[` for an escape, `^J` for a line feed; C1 controls and bidirectional overrides as U+FFFD.
    static func printable(_ text: String) -> String {
        guard text.unicodeScalars.contains(where: isControl) else { return text }
        var result = ""
        for scalar in text.unicodeScalars {
            if !isControl(scalar) {
                result.unicodeScalars.append(scalar)
            } else if scalar.value < 0x20 {
                result += "^"
                result.unicodeScalars.append(UnicodeScalar(UInt8(scalar.value) + 0x40))
            } else {
                result += "\u{FFFD}"
            }
        }
        return result
    }

    private static func isControl(_ scalar: UnicodeScalar) -> Bool {
        switch scalar.value {
        case 0..<0x20, 0x7F...0x9F, 0x202A...0x202E, 0x2066...0x2069: true
        default: false
        }
    }
}

import JSON

/// Turns the output of a catalogue command into a typed result. `nil` when the text is not what it expects: the text
/// itself is always there as well.
public enum ResultParser: String, Sendable, CaseIterable {
    /// Lines `name=value`: an object of texts.
    case keyValue = "key-value"
    /// One JSON value (`ip -json`).
    case json
    /// `df -P -k`: a list of file systems, sizes in bytes.
    case diskUsage = "disk-usage"
    /// `/proc/meminfo`: an object of bytes.
    case memory
    /// `ps -eo pid=,ppid=,user=,state=,pcpu=,rss=,etimes=,args=`.
    case processes
    /// `systemctl list-units --plain --no-legend`.
    case units
    /// `find … -printf '%y\t%s\t%T@\t%m\t%u\t%g\t%f\0'`.
    case files
    /// `ss -H -tuln`.
    case sockets

    /// Bytes of output that are looked at; longer output has no typed result.
    static let limit = 1 << 20
    static let rows = 20_000

    public func parse(_ output: [UInt8]) -> JSONValue? {
        guard output.count <= Self.limit else { return nil }
        if self == .json { return try? JSONValue(parsing: output, limits: .init(depth: 32, bytes: Self.limit)) }
        guard let text = String(validating: output, as: UTF8.self) else { return nil }
        switch self {
        case .json: return nil
        case .keyValue: return keyValues(text)
        case .memory: return memory(text)
        case .diskUsage: return table(text, skip: 1, columns: 6) { Self.fileSystem($0) }
        case .processes: return table(text, skip: 0, columns: 8) { Self.process($0) }
        case .units: return table(text, skip: 0, columns: 5) { Self.unit($0) }
        case .sockets: return table(text, skip: 0, columns: 6) { Self.socket($0) }
        case .files: return files(text)
        }
    }

    private func keyValues(_ text: String) -> JSONValue? {
        var object = JSONObject()
        for line in text.split(separator: "\n") {
            guard let equals = line.firstIndex(of: "=") else { return nil }
            object[String(line[..<equals])] = .string(String(line[line.index(after: equals)...]))
        }
        return .object(object)
    }

    private func memory(_ text: String) -> JSONValue? {
        var object = JSONObject()
        for line in text.split(separator: "\n") {
            let words = line.split(separator: " ")
            guard words.count >= 2, words[0].hasSuffix(":"), let number = Int64(words[1]) else { return nil }
            let isKiB = words.count > 2 && words[2] == "kB"
            let (bytes, overflow) = number.multipliedReportingOverflow(by: isKiB ? 1_024 : 1)
            guard !overflow else { return nil }
            object[String(words[0].dropLast())] = .integer(bytes)
        }
        return object.isEmpty ? nil : .object(object)
    }

    /// Rows of `columns` words; the last one is the rest of the line. One row that does not fit: no result.
    private func table(_ text: String, skip: Int, columns: Int, _ make: ([Substring]) -> JSONObject?) -> JSONValue? {
        var rows: [JSONValue] = []
        for line in text.split(separator: "\n").dropFirst(skip) {
            let words = line.split(separator: " ", maxSplits: columns - 1, omittingEmptySubsequences: true)
            guard words.count >= columns - 1, let row = make(words), rows.count < Self.rows else { return nil }
            rows.append(.object(row))
        }
        return .array(rows)
    }

    private static func rest(_ words: [Substring], _ index: Int) -> JSONValue {
        guard index < words.count else { return .string("") }
        var text = words[index]
        while text.first == " " { text.removeFirst() }
        while text.last == " " { text.removeLast() }
        return .string(String(text))
    }

    private static func fileSystem(_ words: [Substring]) -> JSONObject? {
        guard words.count == 6, let size = Int64(words[1]), let used = Int64(words[2]), let free = Int64(words[3]),
            size < 1 << 52, abs(used) < 1 << 52, abs(free) < 1 << 52
        else { return nil }
        return [
            "source": .string(String(words[0])), "size": .integer(size * 1_024), "used": .integer(used * 1_024),
            "available": .integer(free * 1_024), "mount": rest(words, 5),
        ]
    }

    private static func process(_ words: [Substring]) -> JSONObject? {
        guard words.count >= 7, let id = Int64(words[0]), let parent = Int64(words[1]), let processor = Double(words[4]),
            let resident = Int64(words[5]), resident < 1 << 52, let age = Int64(words[6])
        else { return nil }
        return [
            "pid": .integer(id), "parent": .integer(parent), "user": .string(String(words[2])),
            "state": .string(String(words[3])), "cpu_percent": .number(processor), "resident": .integer(resident * 1_024),
            "age_s": .integer(age), "command": rest(words, 7),
        ]
    }

    private static func unit(_ words: [Substring]) -> JSONObject? {
        guard words.count >= 4 else { return nil }
        return [
            "unit": .string(String(words[0])), "load": .string(String(words[1])), "active": .string(String(words[2])),
            "sub": .string(String(words[3])), "description": rest(words, 4),
        ]
    }

    private static func socket(_ words: [Substring]) -> JSONObject? {
        guard words.count >= 6 || words.count == 5 else { return nil }
        return [
            "protocol": .string(String(words[0])), "state": .string(String(words[1])),
            "local": .string(String(words[4])), "peer": rest(words, 5),
        ]
    }

    private func files(_ text: String) -> JSONValue? {
        var rows: [JSONValue] = []
        for record in text.split(separator: "\0") {
            let fields = record.split(separator: "\t", maxSplits: 6, omittingEmptySubsequences: false)
            guard fields.count == 7, let size = Int64(fields[1]), let modified = Double(fields[2]),
                rows.count < Self.rows
            else { return nil }
            let type = switch fields[0] {
            case "f": "file"
            case "d": "directory"
            case "l": "link"
            default: "other"
            }
            rows.append(
                .object([
                    "name": .string(String(fields[6])), "type": .string(type), "size": .integer(size),
                    "modified_s": .number(modified), "mode": .string(String(fields[3])),
                    "owner": .string(String(fields[4])), "group": .string(String(fields[5])),
                ]))
        }
        return .array(rows)
    }
}

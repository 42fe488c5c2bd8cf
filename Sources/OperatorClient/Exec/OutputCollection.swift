import Crypto
import JSON

/// Output of many clients in memory, bounded; what does not fit is left out and said to be.
struct OutputCollection {
    static let longestStream = 4 << 20
    static let longestOfAll = 256 << 20

    private struct Streams {
        var output: [UInt8] = []
        var errors: [UInt8] = []
        var isCut = false
    }
    private var streams: [String: Streams] = [:]
    private var total = 0

    mutating func add(_ bytes: [UInt8], _ client: String, _ isError: Bool) {
        var kept = streams.removeValue(forKey: client) ?? Streams()
        let used = isError ? kept.errors.count : kept.output.count
        let room = max(0, min(bytes.count, Self.longestStream - used, Self.longestOfAll - total))
        if isError { kept.errors += bytes.prefix(room) } else { kept.output += bytes.prefix(room) }
        kept.isCut = kept.isCut || room < bytes.count
        total += room
        streams[client] = kept
    }

    /// The target with `stdout` and `stderr`, or `…_base64` where they are not UTF-8.
    func joined(to target: JSONValue) -> JSONValue {
        guard var object = target.object, let client = object["client"]?.string else { return target }
        let kept = streams[client] ?? Streams()
        for (name, bytes) in [("stdout", kept.output), ("stderr", kept.errors)] {
            if let text = String(validating: bytes, as: UTF8.self) {
                object[name] = .string(text)
            } else {
                object[name + "_base64"] = .string(Base64.encode(bytes))
            }
        }
        if kept.isCut { object["output_omitted"] = true }
        return .object(object)
    }
}

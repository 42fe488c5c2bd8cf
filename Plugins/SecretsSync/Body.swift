import JSON
import PluginKit

/// A request's JSON body, read strictly: what is not known is refused by name. No message ever holds a value.
struct Body {
    let object: JSONObject

    init(_ body: RawSpan, members: Set<String>) throws(PluginError) {
        let json: JSONValue
        do throws(JSONError) {
            json = try JSONValue(parsing: [UInt8](body), limits: JSONLimits(depth: 12, bytes: SecretRoutes.bodyBytes))
        } catch {
            // Not the reader's words: they could quote what stands there.
            throw .invalid("the body is no JSON (line \(error.line), column \(error.column))")
        }
        guard let object = json.object else { throw .invalid("the body must be a JSON object") }
        for member in object where !members.contains(member.key) {
            throw .invalid("\"\(member.key.prefix(64))\" is not known; known are \(members.sorted().joined(separator: ", "))")
        }
        self.object = object
    }

    func has(_ name: String) -> Bool { object[name] != nil }

    func text(_ name: String, limit: Int) throws(PluginError) -> String? {
        guard let value = object[name] else { return nil }
        guard let text = value.string, text.utf8.count <= limit, !text.utf8.contains(0) else {
            throw .invalid("\"\(name)\" must be a text of at most \(limit) bytes without NUL")
        }
        return text
    }

    func number(_ name: String, _ range: ClosedRange<Int>) throws(PluginError) -> Int? {
        guard let value = object[name] else { return nil }
        guard let number = value.integer.flatMap({ Int(exactly: $0) }), range.contains(number) else {
            throw .invalid("\"\(name)\" must be a whole number from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    func flag(_ name: String) throws(PluginError) -> Bool? {
        guard let value = object[name] else { return nil }
        guard let flag = value.bool else { throw .invalid("\"\(name)\" must be true or false") }
        return flag
    }

    /// `value`, or `value_base64` for what is no text; `nil`: neither is there.
    func value() throws(PluginError) -> [UInt8]? {
        guard has("value") || has("value_base64") else { return nil }
        guard !(has("value") && has("value_base64")) else { throw .invalid("give one of \"value\" and \"value_base64\", not both") }
        let bytes: [UInt8]
        if let value = object["value"] {
            guard let text = value.string else { throw .invalid("\"value\" must be a text; \"value_base64\" is for bytes") }
            bytes = Array(text.utf8)
        } else {
            guard let decoded = object["value_base64"]?.string.flatMap({ Base64.decode($0) }) else {
                throw .invalid("\"value_base64\" must be base64 (RFC 4648) with padding")
            }
            bytes = decoded
        }
        guard (1...Settings.valueBytes).contains(bytes.count) else {
            throw PluginError(
                .tooLarge, "a value has 1 to \(Settings.valueBytes) bytes, this one has \(bytes.count)", code: "secret-size", httpStatus: 400)
        }
        return bytes
    }
}

extension PluginError {
    static func invalid(_ text: String) -> PluginError { PluginError(.invalid, text, code: "invalid", httpStatus: 400) }
    static func unknown(_ text: String) -> PluginError { PluginError(.notFound, text, code: "not-found", httpStatus: 404) }
    static func conflict(_ code: String, _ text: String) -> PluginError { PluginError(.exists, text, code: code, httpStatus: 409) }
}

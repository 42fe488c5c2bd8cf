import JSON

/// Lists of texts as JSON, for columns.
enum JSONText {
    static func list(_ names: [String]) -> [UInt8] { JSONValue.array(names.map { .string($0) }).serialized() }

    /// `null` for what is no JSON.
    static func value(_ text: String) -> JSONValue { (try? JSONValue(parsing: text)) ?? .null }

    static func names(_ text: String) -> [String] {
        (try? JSONValue(parsing: text))?.array?.compactMap(\.string) ?? []
    }
}

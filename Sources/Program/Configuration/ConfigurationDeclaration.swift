import JSON

/// What a configuration key is, apart from its Swift type: enough to read, check, show and document it.
public struct ConfigurationDeclaration: Sendable {
    /// Dotted path in the file: `limits.body_bytes` is `{"limits": {"body_bytes": …}}`. Times and sizes end in their unit.
    public let name: String
    /// `text`, `whole number`, …
    public let type: String
    /// What values are allowed, for errors and documents.
    public let allowed: String
    public let defaultValue: JSONValue
    /// One sentence.
    public let summary: String
    /// Never shown or logged.
    public let isSecret: Bool
    /// Name of the flag on the command line, without dashes.
    public let flag: String?
    /// Placeholder of the flag's value; `nil` for a switch.
    let flagValue: String?
    let isValid: @Sendable (JSONValue) -> Bool
    /// Reads environment variables and flags; `nil` when the texts cannot be a value of this type.
    let fromText: @Sendable ([String]) -> JSONValue?

    /// `CM_LIMITS_BODY_BYTES` for `limits.body_bytes`.
    public var environmentName: String { "CM_" + name.uppercased().split(separator: ".").joined(separator: "_") }

    /// The flag as the command line's parser wants it; `nil` when this key has none.
    public var commandLineFlag: Flag? {
        guard let flag else { return nil }
        return Flag(
            name: flag, value: flagValue, isRepeated: type == "list of texts", summary: summary, letter: nil)
    }
}

/// A declared key and the Swift type of its values. Areas declare theirs as constants and hand the declarations to
/// `Configuration`:
///
///     static let port = ConfigurationKey.integer("http.port", default: 8443, in: 0...65535, "Port to listen on.")
public struct ConfigurationKey<Value: Sendable>: Sendable {
    public let declaration: ConfigurationDeclaration
    public let defaultValue: Value
    let decode: @Sendable (JSONValue) -> Value?

    public var name: String { declaration.name }

    private init(
        _ name: String, type: String, allowed: String, default defaultValue: Value, json: JSONValue, summary: String,
        secret: Bool = false, flag: String? = nil, flagValue: String? = nil,
        fromText: @escaping @Sendable ([String]) -> JSONValue?, decode: @escaping @Sendable (JSONValue) -> Value?
    ) {
        self.defaultValue = defaultValue
        self.decode = decode
        declaration = ConfigurationDeclaration(
            name: name, type: type, allowed: allowed, defaultValue: json, summary: summary, isSecret: secret, flag: flag,
            flagValue: flagValue, isValid: { decode($0) != nil }, fromText: fromText)
    }
}

extension ConfigurationKey where Value == String {
    /// - Parameters:
    ///   - allowed: what a valid text looks like, in words.
    ///   - isValid: judges a text; must accept the default.
    public static func text(
        _ name: String, default defaultValue: String, _ summary: String, allowed: String = "any text", secret: Bool = false,
        flag: String? = nil, flagValue: String = "TEXT", isValid: @escaping @Sendable (String) -> Bool = { _ in true }
    ) -> ConfigurationKey {
        ConfigurationKey(
            name, type: "text", allowed: allowed, default: defaultValue, json: .string(defaultValue), summary: summary,
            secret: secret, flag: flag, flagValue: flagValue, fromText: { $0.last.map { .string($0) } },
            decode: { value in value.string.flatMap { isValid($0) ? $0 : nil } })
    }
}

extension ConfigurationKey where Value == Int {
    public static func integer(
        _ name: String, default defaultValue: Int, in range: ClosedRange<Int>, _ summary: String, flag: String? = nil
    ) -> ConfigurationKey {
        ConfigurationKey(
            name, type: "whole number", allowed: "\(range.lowerBound) to \(range.upperBound)", default: defaultValue,
            json: .integer(Int64(defaultValue)), summary: summary, flag: flag, flagValue: "N",
            fromText: { $0.last.flatMap { Int64($0) }.map { .integer($0) } },
            decode: { value in
                guard case .integer(let number) = value, let number = Int(exactly: number), range.contains(number) else {
                    return nil
                }
                return number
            })
    }
}

extension ConfigurationKey where Value == Bool {
    public static func toggle(
        _ name: String, default defaultValue: Bool, _ summary: String, flag: String? = nil
    ) -> ConfigurationKey {
        ConfigurationKey(
            name, type: "true or false", allowed: "true or false", default: defaultValue, json: .bool(defaultValue),
            summary: summary, flag: flag, flagValue: nil,
            fromText: { texts in
                switch texts.last {
                case "true", "1", "yes", "on", "": .bool(true)  // a switch on the command line has an empty value
                case "false", "0", "no", "off": .bool(false)
                default: nil
                }
            }, decode: { $0.bool })
    }
}

extension ConfigurationKey where Value == [String] {
    /// In an environment variable the texts are separated by commas; a flag is repeated, or separated by commas too.
    public static func list(
        _ name: String, default defaultValue: [String] = [], _ summary: String, allowed: String = "any texts",
        atMost limit: Int = 1_000, flag: String? = nil, flagValue: String = "TEXT",
        isValid: @escaping @Sendable (String) -> Bool = { _ in true }
    ) -> ConfigurationKey {
        ConfigurationKey(
            name, type: "list of texts", allowed: "at most \(limit), each: \(allowed)", default: defaultValue,
            json: .array(defaultValue.map { .string($0) }), summary: summary, flag: flag, flagValue: flagValue,
            fromText: { texts in
                .array(texts.flatMap { $0.split(separator: ",") }.map { .string(String($0)) })
            },
            decode: { value in
                guard let elements = value.array, elements.count <= limit else { return nil }
                let texts = elements.compactMap(\.string)
                return texts.count == elements.count && texts.allSatisfy(isValid) ? texts : nil
            })
    }
}

extension ConfigurationKey where Value: RawRepresentable & CaseIterable, Value.RawValue == String {
    public static func choice(
        _ name: String, default defaultValue: Value, _ summary: String, flag: String? = nil
    ) -> ConfigurationKey {
        let names = Value.allCases.map(\.rawValue)
        return ConfigurationKey(
            name, type: "choice", allowed: names.joined(separator: ", "), default: defaultValue,
            json: .string(defaultValue.rawValue), summary: summary, flag: flag, flagValue: names.joined(separator: "|"),
            fromText: { $0.last.map { .string($0) } }, decode: { $0.string.flatMap { Value(rawValue: $0) } })
    }
}

extension ConfigurationKey where Value == JSONValue {
    /// A structure of its own; the area that owns it reads it and says what is allowed.
    public static func structure(
        _ name: String, default defaultValue: JSONValue, _ summary: String, allowed: String, secret: Bool = false,
        isValid: @escaping @Sendable (JSONValue) -> Bool
    ) -> ConfigurationKey {
        ConfigurationKey(
            name, type: "JSON", allowed: allowed, default: defaultValue, json: defaultValue, summary: summary, secret: secret,
            fromText: { $0.last.flatMap { try? JSONValue(parsing: $0, syntax: .lenient) } },
            decode: { isValid($0) ? $0 : nil })
    }
}

/// Why a plugin is not let in, or is off: what was found, and what would make it right. `code` is stable and listed in
/// Docs/errors.md.
public struct PluginRefusal: Error, Sendable, Equatable, CustomStringConvertible {
    public let code: String
    public let reason: String
    public let remedy: String

    public init(_ code: String, _ reason: String, remedy: String) {
        self.code = code
        self.reason = reason
        self.remedy = remedy
    }

    public var description: String { "\(reason); \(remedy)" }
}

import AgentProtocol
import JSON

/// Somebody else's HTTP endpoint that is told what happens here.
public struct Webhook: Sendable, Equatable {
    public enum Source: String, Sendable, CaseIterable {
        /// Live events (`client.offline`, …): told while they are fresh.
        case events
        /// The audit trail: every record that matches, in batches, none left out.
        case audit
    }
    public var id: String
    public var name: String
    public var url: String
    public var source: Source
    /// Event kinds or audit actions: `client.offline`, all of an area as `client.*`, or `*`.
    public var kinds: [String]
    /// Events of clients that it selects, and events of no client; `nil`: of any.
    public var selector: String?
    public var isEnabled: Bool
    public var createdMilliseconds: UInt64
    public var createdBy: String

    func wants(kind: String) -> Bool {
        kinds.contains { pattern in
            if pattern == "*" { return true }
            return pattern.hasSuffix(".*") ? kind.hasPrefix(pattern.dropLast()) : kind == pattern
        }
    }
}

/// What an operator gives to make or change a webhook. A field that is `nil` is left as it is.
public struct WebhookChange: Sendable {
    public var name: String?
    public var url: String?
    public var source: Webhook.Source?
    public var kinds: [String]?
    /// An empty text takes the selector away.
    public var selector: String?
    public var isEnabled: Bool?
    /// At least 16 bytes; made by the core when a webhook is created without one.
    public var secret: String?
    public init() {}

    func check() throws(Problem) {
        if let name, !(1...100).contains(name.utf8.count) {
            throw .invalid("the name has \(name.utf8.count) bytes and must have 1 to 100", pointer: "/name")
        }
        if let url { try Self.check(url) }
        if let kinds {
            guard (1...64).contains(kinds.count) else {
                throw .invalid("there are \(kinds.count) kinds; 1 to 64 are allowed", pointer: "/kinds")
            }
            for kind in kinds where !Self.isPattern(kind) {
                throw .invalid(
                    "\"\(AuditLimits.cut(kind))\" is no kind: write one like client.offline, client.* or *", pointer: "/kinds")
            }
        }
        if let selector, !selector.isEmpty { _ = try Selector(parsing: selector) }
        if let secret, !(16...256).contains(secret.utf8.count) {
            throw .invalid("the secret has \(secret.utf8.count) bytes and must have 16 to 256", pointer: "/secret")
        }
    }

    private static func isPattern(_ text: String) -> Bool {
        if text == "*" { return true }
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        guard text.utf8.count <= 100, parts.count >= 2 else { return false }
        return parts.enumerated().allSatisfy { index, part in
            if part == "*" { return index == parts.count - 1 }
            return !part.isEmpty && part.utf8.allSatisfy { (97...122).contains($0) || $0 == 45 || $0 == 95 }
        }
    }

    /// `http` or `https` without user information and fragment. Where it leads is the administrator's business: the
    /// right to write webhooks is the right to have the core call any address that it can reach.
    private static func check(_ url: String) throws(Problem) {
        let rest: Substring
        if url.hasPrefix("https://") {
            rest = url.dropFirst(8)
        } else if url.hasPrefix("http://") {
            rest = url.dropFirst(7)
        } else {
            throw .invalid("the url must begin with https:// or http://", pointer: "/url")
        }
        let authority = rest.prefix { $0 != "/" && $0 != "?" }
        guard url.utf8.count <= 2_048, !authority.isEmpty, !authority.contains("@"), !url.contains("#"),
            url.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F })
        else {
            throw .invalid(
                "the url must have a host, at most 2048 printable ASCII characters, and neither user nor fragment",
                pointer: "/url")
        }
    }
}

/// One message to one webhook, kept until it is delivered or given up.
public struct WebhookDelivery: Sendable, Equatable {
    public var id: Int64
    public var webhook: String
    public var kind: String
    public var body: [UInt8]
    public var createdMilliseconds: UInt64
    public var attempts: Int
    public var lastError: String
}

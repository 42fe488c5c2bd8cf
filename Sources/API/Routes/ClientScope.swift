import JSON
import Kernel
import Web

/// The clients on which a principal has a right: those that meet one of `allowed` and none of `denied`.
public typealias ClientScope = @Sendable (Principal, Right) -> (allowed: [Selector], denied: [Selector])

/// The registry as requests may see it: every look is narrowed to the caller's scope.
struct ScopedClients: Sendable {
    let clients: Clients
    let scope: ClientScope

    /// The client of the path, if the caller has the right on it. A client that he may not even see is not found.
    func client(_ request: Request, _ right: Right) async throws(Problem) -> ClientID {
        guard let id = ClientID(request["id"]) else {
            throw .invalid("'\(request["id"].prefix(64))' is no client id (26 characters, the first 0 to 7)")
        }
        try await require(right, on: id, request)
        return id
    }

    func require(_ right: Right, on id: ClientID, _ request: Request) async throws(Problem) {
        let (allowed, denied) = scope(request.principal, right)
        if try clients.permits(id, allowed: allowed, denied: denied) { return }
        let seen = scope(request.principal, .readClients)
        guard try clients.permits(id, allowed: seen.allowed, denied: seen.denied) else {
            throw .notFound("there is no client \(id)")
        }
        try await clients.recordRefusal(of: right, on: id, to: request.principal)
        throw .forbidden("no role of \(request.principal.id) grants \"\(right)\" on client \(id)")
    }

    /// The clients of a body's `selector` or `clients`, if the caller has the right on each of them.
    func selection(_ request: Request, _ right: Right) async throws(Problem) -> (ids: [ClientID], text: String) {
        let (allowed, denied) = scope(request.principal, right)
        switch (request.json["selector"]?.string, request.json["clients"]?.array) {
        case (let text?, nil):
            let selector = try Selector(parsing: text)
            if let id = selector.singleClient { try await require(right, on: id, request) }
            // A selector means those of the matching clients that the caller may touch.
            return (try clients.select(selector, allowed: allowed, denied: denied), text)
        case (nil, let list?):
            var ids: [ClientID] = []
            for (index, item) in list.enumerated() {
                guard let id = item.string.flatMap({ ClientID($0) }) else {
                    throw .invalid("this is no client id", pointer: "/clients/\(index)")
                }
                ids.append(id)
            }
            let sorted = try clients.narrow(ids, allowed: allowed, denied: denied)
            if let id = sorted.unknown.first { throw .notFound("there is no client \(id)") }
            if let id = sorted.refused.first { try await require(right, on: id, request) }
            return (sorted.permitted, "\(ids.count) clients by id")
        default:
            throw .invalid("give either \"selector\" or \"clients\"", pointer: "/selector")
        }
    }
}

/// Values of query and body that several areas read.
enum Reading {
    static let limit = Route.Parameter.query("limit", .integer("Items of one page.", in: 1...1_000))
    static let cursor = Route.Parameter.query("cursor", .string("`next` of the page before.", length: 1...1_024))
    static let reason = Schema.object([
        .optional("reason", .string("Kept in the audit trail and shown to whom it concerns.", length: 0...1_024))
    ])

    static func limit(_ request: Request) -> Int { Int(request.query.integer("limit") ?? 100) }

    static func reason(_ request: Request) -> String { request.json["reason"]?.string ?? "" }

    /// Labels to set; with `removing`, null takes one away.
    static func labels(_ value: JSONValue?, removing: Bool = true) throws(Problem) -> [String: String?] {
        var labels: [String: String?] = [:]
        for member in value?.object ?? [:] {
            switch member.value {
            case .string(let text): labels[member.key] = .some(text)
            case .null where removing: labels[member.key] = .some(nil)
            default:
                throw .invalid(
                    removing ? "a label's value is text, or null to remove it" : "a label's value is text",
                    pointer: "/labels/\(member.key)")
            }
        }
        return labels
    }

    /// The revision in `If-Match`, as given out in `ETag`; `nil` without the header.
    static func revision(_ request: Request) throws(Problem) -> UInt64? {
        guard let tag = request.headers["if-match"], tag != "*" else { return nil }
        guard tag.hasPrefix("\""), let revision = UInt64(tag.dropFirst().prefix { $0 >= "0" && $0 <= "9" }) else {
            throw Problem(412, "changed-meanwhile", "If-Match is \(tag.prefix(64)), which is no tag of this resource")
        }
        return revision
    }
}

extension JSONValue {
    static func milliseconds(_ value: UInt64) -> JSONValue { .integer(Int64(clamping: value)) }
    static func milliseconds(_ value: UInt64?) -> JSONValue { value.map { .integer(Int64(clamping: $0)) } ?? .null }
    static func labels(_ labels: [String: String]) -> JSONValue {
        .object(JSONObject(labels.sorted { $0.key < $1.key }.map { ($0.key, .string($0.value)) }))
    }
    static func page(_ items: [JSONValue], next: String?) -> JSONValue {
        ["items": .array(items), "next": next.map { .string($0) } ?? .null]
    }
}

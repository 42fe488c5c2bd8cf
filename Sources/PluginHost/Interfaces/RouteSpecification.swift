import JSON
import Kernel
import Transport
import Web

/// What a plugin says of one of its routes (`cm_http.route_add`), checked.
struct RouteSpecification: Sendable {
    let method: HTTPMethod
    let isWebSocket: Bool
    let path: String
    let right: Right
    let operation: OpenAPIOperation
    let summary: String
    let bodyLimit: Int
    let streamsBody: Bool
    let timeoutMilliseconds: UInt64
    let audit: String?
    let isInline: Bool
    let messageLimit: Int

    private static let members: Set<String> = [
        "method", "path", "right", "operation", "body_limit", "stream_body", "timeout_s", "audit", "inline", "message_limit",
    ]

    init(parsing text: [UInt8], grants: Set<Capability>) throws(Problem) {
        let json: JSONValue
        do throws(JSONError) {
            json = try JSONValue(parsing: text, limits: JSONLimits(depth: 32, bytes: 65_536))
        } catch {
            throw .invalid("the route's specification is not JSON: \(error)")
        }
        for member in json.object ?? [:] where !Self.members.contains(member.key) {
            throw .invalid("the route's specification has the unknown member \"\(member.key.prefix(64))\"")
        }
        guard let path = json["path"]?.string, path.hasPrefix("/api/v1/") else {
            throw .invalid("\"path\" must begin with /api/v1/ and one of the note's areas")
        }
        self.path = path
        let word = json["method"]?.string ?? ""
        isWebSocket = word == "WEBSOCKET"
        guard let method = isWebSocket ? .get : HTTPMethod(rawValue: word), [.get, .post, .put, .patch, .delete].contains(method) else {
            throw .invalid("\"method\" of \(path) must be GET, POST, PUT, PATCH, DELETE or WEBSOCKET")
        }
        self.method = method
        guard let right = json["right"]?.string, Self.isRight(right) else {
            throw .invalid("\"right\" of \(word) \(path) must be \"area.verb\", lower case: no route without a right")
        }
        self.right = Right(rawValue: right)
        guard let operation = json["operation"], operation.object != nil else {
            throw .invalid("\"operation\" of \(word) \(path) must be an OpenAPI operation object with summary and responses")
        }
        self.operation = try OpenAPIOperation(parsing: operation.serialized())
        summary = operation["summary"]?.string ?? ""
        streamsBody = json["stream_body"]?.bool ?? false
        bodyLimit = Int(try Self.number(json, "body_limit", 1 << 20, 0...(streamsBody ? 1 << 53 : 64 << 20)))
        timeoutMilliseconds = UInt64(try Self.number(json, "timeout_s", 30, 1...3_600)) * 1_000
        messageLimit = Int(try Self.number(json, "message_limit", 65_536, 1...(1 << 20)))
        audit = json["audit"]?.string
        if let audit, !Self.isRight(audit) { throw .invalid("\"audit\" of \(word) \(path) must be \"area.verb\"") }
        isInline = json["inline"]?.bool ?? false
        guard !isInline || grants.contains(.inline) else {
            throw .forbidden("\"inline\" of \(word) \(path) needs the capability \"inline\"")
        }
    }

    /// The route as the table wants it.
    func route(_ handler: @escaping ExchangeHandler) -> Route {
        let action: RouteAction = isWebSocket
            ? .webSocket(WebSocketLimits(maximumMessage: messageLimit), timeoutMilliseconds: timeoutMilliseconds, handler)
            : .exchange(timeoutMilliseconds: timeoutMilliseconds, handler)
        let body: Route.Body = isWebSocket || method == .get || method == .delete
            ? .none : streamsBody ? .stream(limit: bodyLimit) : .bytes(contentType: "application/octet-stream", limit: bodyLimit)
        return Route(
            method, path, access: .right(right), summary, body: body, auditedRead: audit, operation: operation, action: action)
    }

    private static func isRight(_ text: String) -> Bool {
        let parts = text.split(separator: ".", omittingEmptySubsequences: false)
        return parts.count == 2 && text.utf8.count <= 64
            && parts.allSatisfy { !$0.isEmpty && $0.utf8.allSatisfy { (0x61...0x7A).contains($0) || (0x30...0x39).contains($0) || $0 == 0x2D } }
    }

    private static func number(_ json: JSONValue, _ key: String, _ normal: Int64, _ range: ClosedRange<Int64>) throws(Problem) -> Int64 {
        guard let value = json[key] else { return normal }
        guard let number = value.integer, range.contains(number) else {
            throw .invalid("\"\(key)\" must be a whole number from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }
}

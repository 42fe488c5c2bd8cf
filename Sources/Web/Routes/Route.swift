import JSON
import Kernel
import Transport

/// One operation of the API: what serves the request is what the OpenAPI document says. Never changes; an object, because
/// every request carries it from place to place.
public final class Route: Sendable {
    /// Who may call it. There is no default: a route without a declared right does not exist.
    public enum Access: Sendable {
        /// Anybody, without credentials. A test lists these.
        case open
        /// Anybody who has signed in.
        case signedIn
        case right(Right)
    }

    public enum Body: Sendable {
        case none
        /// A JSON value of this shape, checked before the handler runs. `limit` in bytes.
        case json(Schema, limit: Int = 1 << 20)
        /// JSON that the handler reads by itself (`request.body`) because the route is hot; the schema only documents it.
        case jsonReadByHandler(Schema, limit: Int = 1 << 20)
        case bytes(contentType: String, limit: Int)
        /// Read by the handler piece by piece while it arrives; `limit` in bytes.
        case stream(contentType: String = "application/octet-stream", limit: Int)

        var limit: Int {
            switch self {
            case .none: 0
            case .json(_, let limit), .jsonReadByHandler(_, let limit), .bytes(_, let limit), .stream(_, let limit): limit
            }
        }

        /// The handler takes it as it comes.
        var isStreamed: Bool { if case .stream = self { true } else { false } }
    }

    public struct Parameter: Sendable {
        let name: String
        let schema: Schema
        let isRepeatable: Bool
        /// A query parameter; the text is checked by the schema (numbers and booleans are read from it first).
        public static func query(_ name: String, _ schema: Schema, repeatable: Bool = false) -> Parameter {
            Parameter(name: name, schema: schema, isRepeatable: repeatable)
        }
    }

    public struct Answer: Sendable {
        let status: Int
        let description: String
        let schema: Schema?
        /// Those that it may have.
        let contentTypes: [String]
        public init(_ status: Int, _ description: String, _ schema: Schema? = nil, contentType: String = "application/json") {
            self.status = status
            self.description = description
            self.schema = schema
            contentTypes = [contentType]
        }

        /// Bytes of one of these types.
        public init(_ status: Int, _ description: String, contentTypes: [String]) {
            self.status = status
            self.description = description
            schema = nil
            self.contentTypes = contentTypes
        }
    }

    public typealias Handler = @Sendable (Request) async throws(Problem) -> Response

    public let method: HTTPMethod
    /// Segments in braces are parameters: `/api/v1/clients/{id}`.
    public let pattern: String
    public let access: Access
    public let summary: String
    public let query: [Parameter]
    public let body: Body
    public let answers: [Answer]
    /// The audit action of a read that must leave a trace (output, files, secrets, audit), or of any use of a plugin's
    /// route: written before the handler runs.
    public let auditedRead: String?
    /// How the operation describes itself in the document, where the route does not say it by its own fields.
    public let operation: OpenAPIOperation?
    public let action: RouteAction

    public convenience init(
        _ method: HTTPMethod, _ pattern: String, access: Access, _ summary: String, query: [Parameter] = [],
        body: Body = .none, answers: [Answer], auditedRead: String? = nil,
        operation: OpenAPIOperation? = nil, handler: @escaping Handler
    ) {
        self.init(
            method, pattern, access: access, summary, query: query, body: body, answers: answers,
            auditedRead: auditedRead, operation: operation, action: .answer(handler))
    }

    public init(
        _ method: HTTPMethod, _ pattern: String, access: Access, _ summary: String, query: [Parameter] = [],
        body: Body = .none, answers: [Answer] = [], auditedRead: String? = nil, operation: OpenAPIOperation? = nil,
        action: RouteAction
    ) {
        self.method = method
        self.pattern = pattern
        area = Self.area(of: pattern)
        parameterNames = pattern.split(separator: "/").filter { $0.hasPrefix("{") }.map { String($0.dropFirst().dropLast()) }
        self.access = access
        self.summary = summary
        self.query = query + (operation?.query ?? [])
        self.body = body
        self.answers = answers
        self.auditedRead = auditedRead
        self.operation = operation
        self.action = action
    }

    public convenience init(
        _ method: HTTPMethod, _ pattern: String, right: Right, _ summary: String, query: [Parameter] = [],
        body: Body = .none, answers: [Answer], auditedRead: String? = nil,
        operation: OpenAPIOperation? = nil, handler: @escaping Handler
    ) {
        self.init(
            method, pattern, access: .right(right), summary, query: query, body: body, answers: answers,
            auditedRead: auditedRead, operation: operation, handler: handler)
    }

    /// `clients` for `/api/v1/clients/{id}`: the group of the operation in the document and in the metrics.
    public let area: String
    /// The names in braces, in order.
    let parameterNames: [String]

    private static func area(of pattern: String) -> String {
        let segments = pattern.split(separator: "/")
        if segments.count > 2, segments[0] == "api" { return String(segments[2]) }
        return segments.first.map(String.init) ?? "root"
    }
}

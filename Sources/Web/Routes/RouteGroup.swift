import JSON
import Kernel

/// Whose routes they are: the core's, or those of the plugin with this id.
public struct RouteOwner: Sendable, Hashable, CustomStringConvertible {
    public let id: String
    public var isCore: Bool { self == .core }
    public static let core = RouteOwner(id: "core")

    private init(id: String) { self.id = id }

    /// A plugin. Its id stands in paths, component names and metrics.
    public init(plugin id: String) throws(Problem) {
        guard (1...64).contains(id.utf8.count), id != "core", id.utf8.allSatisfy({ byte in
            (0x61...0x7A).contains(byte) || (0x30...0x39).contains(byte) || byte == 0x2D || byte == 0x2E
        }) else {
            throw .invalid("\"\(id.prefix(64))\" cannot own routes: an id has 1 to 64 bytes of a-z, 0-9, - and dots, and is not core")
        }
        self.id = id
    }

    public var description: String { isCore ? "the core" : "the plugin \"\(id)\"" }
}

/// All routes of one owner. Groups are values: a change is another group in the place of the old one.
public struct RouteGroup: Sendable {
    public let owner: RouteOwner
    public var routes: [Route]
    /// Paths below which a plugin may claim patterns, as it was granted them: `/api/v1/terminal`. The core needs none.
    public var prefixes: [String]
    /// Schemas that the operations refer to.
    public var components: OpenAPIComponents

    public init(
        _ owner: RouteOwner, routes: [Route], prefixes: [String] = [], components: OpenAPIComponents = OpenAPIComponents()
    ) {
        self.owner = owner
        self.routes = routes
        self.prefixes = prefixes
        self.components = components
    }
}

/// One part of a change of the table; the parts of one `apply` take effect together.
public enum RouteChange: Sendable {
    /// Adds the owner's group, or replaces it. Its WebSockets of before are closed with 1012, unless they are kept
    /// (same version of the plugin, other routes).
    case set(RouteGroup, keepingSockets: Bool = false)
    /// Takes the owner's group out and lifts its suspension; its WebSockets are closed with 1012.
    case remove(RouteOwner)
    /// The plugin's routes answer 503, at once or after a wait, until `resume` or `remove`.
    case suspend(RouteOwner, SuspensionMode)
    case resume(RouteOwner)
}

/// What the routes of a suspended plugin do.
public enum SuspensionMode: Sendable, Equatable {
    /// 503 with this `Retry-After`. The reason goes into the answer.
    case refuse(reason: String, retryAfterSeconds: Int)
    /// Requests wait for `resume` at most this long, bounded in number and bytes, and then find what is there.
    case queue(reason: String, milliseconds: UInt64)
}

/// Why a change of the route table was refused. The table is then as it was before.
public struct RouteRefusal: Error, Sendable, CustomStringConvertible {
    public let owner: RouteOwner
    public let detail: String
    public var description: String { detail }

    init(_ owner: RouteOwner, _ detail: String) {
        self.owner = owner
        self.detail = detail
    }
}

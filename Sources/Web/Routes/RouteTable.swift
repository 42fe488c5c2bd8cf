import JSON
import Kernel
import Synchronization

/// The routes that are served now, by owner. Changes happen while requests are served: each request is matched against
/// the set of before or the set of after, and goes on with the route that it found.
///
/// Readers (one per loop) keep the set and compare one number per request; writers make a whole new set.
public final class RouteTable: Sendable {
    /// Bounds of what plugins may put into the table.
    public enum Bound {
        public static let routesPerPlugin = 256
        public static let plugins = 512
        /// OpenAPI text of one plugin, in bytes.
        public static let documentBytes = 512 << 10
        /// Operators' WebSockets that are open at once, of one owner and of all.
        public static let socketsPerOwner = 4_096
        public static let sockets = 16_384
    }

    private struct State: ~Copyable {
        var set: RouteSet
        var groups: [RouteOwner: RouteGroup] = [:]
        var serials: [RouteOwner: UInt64] = [:]
        var sockets: [UInt64: (placed: PlacedRoute, socket: OperatorSocket)] = [:]
        var nextSocket: UInt64 = 0
        var isStopping = false
    }
    private let state: Mutex<State>
    /// Apart from the state: making a document takes a while, and loops look at the state.
    private let made = Mutex<(generation: UInt64, document: APIDocument)?>(nil)
    /// Of the newest set; stored after the set.
    private let generation = Atomic<UInt64>(0)
    /// Tells this process's documents from those of the one before, which had the same numbers.
    private let run = String(UInt64.random(in: .min ... .max), radix: 36)
    private let title: String
    private let version: String

    public init(title: String = "Client Manager", version: String = "") {
        self.title = title
        self.version = version
        state = Mutex(State(set: RouteSet(generation: 0, documentGeneration: 0, router: Router(), suspensions: [:])))
    }

    /// A table with only the core's routes.
    public convenience init(core routes: [Route]) throws(RouteRefusal) {
        self.init()
        try apply([.set(RouteGroup(.core, routes: routes))])
    }

    /// Tickets for WebSockets.
    let tickets = TicketBook()

    /// All changes in one step, or none: then the refusal says why.
    public func apply(_ changes: [RouteChange]) throws(RouteRefusal) {
        let result: Result<([Suspension], [OperatorSocket]), RouteRefusal> = state.withLock { state in
            do throws(RouteRefusal) {
                let lifted = try change(&state, changes)
                return .success((lifted, RouteTable.outdated(state.sockets, state.serials)))
            } catch { return .failure(error) }
        }
        // Outside the lock: what waited looks at the table again.
        let (lifted, outdated) = try result.get()
        for suspension in lifted { suspension.lift() }
        for socket in outdated { socket.close(1012, "what serves this has been replaced; connect again") }
    }

    /// The set of this moment. Loops use a `Reader` instead.
    var current: RouteSet { state.withLock { $0.set } }
    public var routes: [Route] { current.router.routes }
    public var owners: [RouteOwner] { state.withLock { Array($0.groups.keys) } }

    /// The OpenAPI document of the present set and its tag, made at the first call after a change.
    public func document() -> APIDocument {
        let (generation, groups) = state.withLock { state in
            let plugins = state.groups.values.filter { !$0.owner.isCore }.sorted { $0.owner.id < $1.owner.id }
            return (state.set.documentGeneration, (state.groups[.core].map { [$0] } ?? []) + plugins)
        }
        return made.withLock { made in
            if let made, made.generation == generation { return made.document }
            let document = APIDocument(
                bytes: OpenAPI.document(groups, title: title, version: version).serialized(),
                tag: "\(run)-\(generation)")
            made = (generation, document)
            return document
        }
    }

    // MARK: WebSockets

    /// A ticket with which the principal opens the WebSocket at `path` once within 30 s.
    /// - Parameter origin: the `Origin` field of the request that asks.
    /// - Throws: 404 if there is no WebSocket at `path`, 503 if too many tickets are unused.
    public func issueTicket(_ principal: Principal, path: String, origin: String?) throws(Problem) -> String {
        let target = try RequestTarget(path)
        guard target.query.items.isEmpty, case .found(let placed, _) = current.router.match(.get, target.segments),
            case .webSocket = placed.route.action
        else { throw .notFound("there is no WebSocket at \"\(path.prefix(256))\"; give its path without a query") }
        return try tickets.issue(principal, path: target.segments, origin: origin)
    }

    /// A WebSocket is about to be opened by this route. `unregister` must follow.
    func register(_ socket: OperatorSocket, _ placed: PlacedRoute) throws(Problem) -> UInt64 {
        let result: Result<UInt64, Problem> = state.withLock { state in
            guard !state.isStopping else {
                return .failure(Problem(503, "stopping", "the server is stopping; connect again", retryAfter: 1))
            }
            guard state.serials[placed.owner] == placed.serial else {
                return .failure(
                    Problem(503, "plugin-suspended", "what serves this has been replaced meanwhile; connect again", retryAfter: 1))
            }
            let own = state.sockets.values.count(where: { $0.placed.owner == placed.owner })
            guard state.sockets.count < Bound.sockets, own < Bound.socketsPerOwner else {
                return .failure(
                    Problem(503, "too-many-streams", "\(own) such streams are open already", retryAfter: 10))
            }
            state.nextSocket += 1
            state.sockets[state.nextSocket] = (placed, socket)
            return .success(state.nextSocket)
        }
        return try result.get()
    }

    func unregister(_ number: UInt64) { state.withLock { _ = $0.sockets.removeValue(forKey: number) } }

    /// Closes all WebSockets with 1012 and lets none open any more.
    public func stop() {
        let open = state.withLock { state in
            state.isStopping = true
            return state.sockets.values.map(\.socket)
        }
        for socket in open { socket.close(1012, "the server is restarting; connect again") }
    }

    /// WebSockets of an owner that are open, for its accounting.
    public func socketCount(of owner: RouteOwner) -> Int {
        state.withLock { state in state.sockets.values.count(where: { $0.placed.owner == owner }) }
    }

    private static func outdated(
        _ sockets: [UInt64: (placed: PlacedRoute, socket: OperatorSocket)], _ serials: [RouteOwner: UInt64]
    ) -> [OperatorSocket] {
        sockets.values.filter { serials[$0.placed.owner] != $0.placed.serial }.map(\.socket)
    }

    // MARK: Changing

    private func change(_ state: inout State, _ changes: [RouteChange]) throws(RouteRefusal) -> [Suspension] {
        var groups = state.groups
        var serials = state.serials
        var suspensions = state.set.suspensions
        let next = state.set.generation + 1
        var lifted: [Suspension] = []
        var routesChanged = false
        for change in changes {
            switch change {
            case .set(let group, let keepsSockets):
                try RouteTable.check(group)
                if !keepsSockets || serials[group.owner] == nil { serials[group.owner] = next }
                groups[group.owner] = group
                routesChanged = true
            case .remove(let owner):
                guard groups.removeValue(forKey: owner) != nil else { continue }
                serials[owner] = nil
                routesChanged = true
                if let suspension = suspensions.removeValue(forKey: owner) { lifted.append(suspension) }
            case .suspend(let owner, let mode):
                guard !owner.isCore, groups[owner] != nil else {
                    throw RouteRefusal(owner, "\(owner) has no routes that could be suspended")
                }
                if let before = suspensions[owner] { lifted.append(before) }
                suspensions[owner] = Suspension(owner, mode)
            case .resume(let owner):
                if let suspension = suspensions.removeValue(forKey: owner) { lifted.append(suspension) }
            }
        }
        guard groups.count <= Bound.plugins + 1 else {
            throw RouteRefusal(.core, "more than \(Bound.plugins) plugins with routes")
        }
        var router = state.set.router
        if routesChanged {
            try RouteTable.checkOverlaps(groups)
            router = Router()
            for (owner, group) in groups {
                for route in group.routes {
                    do throws(RouteConflict) {
                        try router.add(PlacedRoute(route, owner: owner, serial: serials[owner] ?? 0))
                    } catch {
                        throw RouteRefusal(owner, "\(owner) has two routes for \(error.route)")
                    }
                }
            }
        }
        state.groups = groups
        state.serials = serials
        state.set = RouteSet(
            generation: next, documentGeneration: routesChanged ? next : state.set.documentGeneration, router: router,
            suspensions: suspensions)
        generation.store(next, ordering: .releasing)
        return lifted
    }

    /// What a group must hold by itself.
    private static func check(_ group: RouteGroup) throws(RouteRefusal) {
        let owner = group.owner
        guard !owner.isCore else { return }
        guard group.routes.count <= Bound.routesPerPlugin else {
            throw RouteRefusal(owner, "\(owner) has \(group.routes.count) routes; at most \(Bound.routesPerPlugin) are allowed")
        }
        let bytes = group.routes.reduce(group.components.byteCount) { $0 + ($1.operation?.byteCount ?? 0) }
        guard bytes <= Bound.documentBytes else {
            throw RouteRefusal(
                owner, "the OpenAPI text of \(owner) has \(bytes) bytes; at most \(Bound.documentBytes) are allowed")
        }
        for route in group.routes {
            if case .webSocket = route.action, route.method != .get {
                throw RouteRefusal(owner, "\(owner) claims a WebSocket at \(route.pattern) with \(route.method.rawValue); it must be GET")
            }
            let name = "\(route.method.rawValue) \(route.pattern)"
            guard RoutePattern.methods.contains(route.method) else {
                throw RouteRefusal(owner, "\(owner) claims \(name.prefix(300)): the method must be GET, POST, PUT, PATCH or DELETE")
            }
            if let fault = RoutePattern.fault(route.pattern) {
                throw RouteRefusal(owner, "\(owner) claims \(name.prefix(300)): \(fault)")
            }
            let prefixes = group.prefixes + [ConsoleAssets.prefix(of: owner)]
            guard prefixes.contains(where: { RoutePattern.lies(route.pattern, below: $0) }) else {
                let granted = group.prefixes.isEmpty ? "no path" : group.prefixes.joined(separator: ", ")
                throw RouteRefusal(owner, "\(owner) claims \(name), but was granted \(granted)")
            }
            if let missing = route.operation?.references.first(where: { !group.components.names.contains($0) }) {
                throw RouteRefusal(owner, "the OpenAPI operation of \(name) refers to the schema \"\(missing)\", which \(owner) does not have")
            }
        }
    }

    /// A path belongs to one owner, whatever the method.
    private static func checkOverlaps(_ groups: [RouteOwner: RouteGroup]) throws(RouteRefusal) {
        let claims = groups.values.map { group in
            (group.owner, group.routes.map { (route: $0, segments: $0.pattern.split(separator: "/")) })
        }
        for (index, (owner, own)) in claims.enumerated() {
            for (other, theirs) in claims[(index + 1)...] {
                for claim in own {
                    guard let taken = theirs.first(where: { RoutePattern.overlap(claim.segments, $0.segments) }) else {
                        continue
                    }
                    let (late, held) = owner.isCore ? (other, owner) : (owner, other)
                    let (wants, has) = owner.isCore ? (taken.route, claim.route) : (claim.route, taken.route)
                    throw RouteRefusal(
                        late, "\(late) claims \(wants.method.rawValue) \(wants.pattern), but \(held) has \(has.method.rawValue) \(has.pattern)")
                }
            }
        }
    }

    // MARK: Reading

    /// One loop's view: a load and a comparison while nothing changes.
    struct Reader {
        private let table: RouteTable
        private var set: RouteSet

        init(_ table: RouteTable) {
            self.table = table
            set = table.current
        }

        mutating func current() -> RouteSet {
            if table.generation.load(ordering: .acquiring) != set.generation { set = table.current }
            return set
        }
    }
}

/// The API as text, and the validator of that text.
public struct APIDocument: Sendable {
    public let bytes: [UInt8]
    public let tag: String
}

/// One immutable state of the table.
final class RouteSet: Sendable {
    let generation: UInt64
    /// Of the last change that changed routes: a suspension leaves the document as it is.
    let documentGeneration: UInt64
    let router: Router
    let suspensions: [RouteOwner: Suspension]

    init(generation: UInt64, documentGeneration: UInt64, router: Router, suspensions: [RouteOwner: Suspension]) {
        self.generation = generation
        self.documentGeneration = documentGeneration
        self.router = router
        self.suspensions = suspensions
    }

    /// Why the owner's routes do not answer at present.
    func suspension(of owner: RouteOwner) -> Suspension? { suspensions.isEmpty ? nil : suspensions[owner] }
}

/// A route in its place: immutable, so that a request holds it with one count.
public final class PlacedRoute: Sendable {
    public let route: Route
    public let owner: RouteOwner
    /// Of the group's version: tells the WebSockets of an older one.
    let serial: UInt64

    init(_ route: Route, owner: RouteOwner = .core, serial: UInt64 = 0) {
        self.route = route
        self.owner = owner
        self.serial = serial
    }
}

import Kernel
import Transport

/// Finds routes by path, segment by segment; a fixed segment wins over a parameter.
public struct Router: Sendable {
    public enum Match: Sendable {
        case found(PlacedRoute, parameters: [String])
        case wrongMethod(allowed: [HTTPMethod])
        case nothing
    }

    private struct Node: Sendable {
        var fixed: [String: Int] = [:]
        var parameter: Int?
        var routes: [(method: HTTPMethod, route: PlacedRoute)] = []
    }
    private var nodes: [Node] = [Node()]
    /// Patterns without a parameter: a target that is one of them letter by letter needs no further reading.
    private var whole: [String: (target: RequestTarget, routes: [PlacedRoute])] = [:]
    public private(set) var routes: [Route] = []

    public init() {}

    /// The core's.
    public mutating func add(_ route: Route) throws(RouteConflict) { try add(PlacedRoute(route)) }

    /// Of two routes of one method and place the later one is refused.
    mutating func add(_ placed: PlacedRoute) throws(RouteConflict) {
        let route = placed.route
        var node = 0
        for segment in route.pattern.split(separator: "/") {
            if segment.hasPrefix("{") {
                if let next = nodes[node].parameter {
                    node = next
                } else {
                    nodes.append(Node())
                    nodes[node].parameter = nodes.count - 1
                    node = nodes.count - 1
                }
            } else if let next = nodes[node].fixed[String(segment)] {
                node = next
            } else {
                nodes.append(Node())
                nodes[node].fixed[String(segment)] = nodes.count - 1
                node = nodes.count - 1
            }
        }
        guard !nodes[node].routes.contains(where: { $0.method == route.method }) else {
            throw RouteConflict(route: "\(route.method.rawValue) \(route.pattern)")
        }
        nodes[node].routes.append((route.method, placed))
        routes.append(route)
        if route.parameterNames.isEmpty, let target = try? RequestTarget(route.pattern) {
            whole[route.pattern, default: (target, [])].routes.append(placed)
        }
    }

    /// The route of a target that is its pattern as it stands.
    func fixed(_ method: HTTPMethod, _ target: String) -> (PlacedRoute, RequestTarget)? {
        guard let entry = whole[target], let route = entry.routes.first(where: { $0.route.method == method }) else { return nil }
        return (route, entry.target)
    }

    /// - Parameter path: percent-decoded segments.
    public func match(_ method: HTTPMethod, _ path: [String]) -> Match {
        var parameters: [String] = []
        guard let node = find(path, 0, 0, &parameters), !nodes[node].routes.isEmpty else { return .nothing }
        let candidates = nodes[node].routes
        if let entry = candidates.first(where: { $0.method == method })
            ?? (method == .head ? candidates.first { $0.method == .get } : nil)
        {
            return .found(entry.route, parameters: parameters)
        }
        return .wrongMethod(allowed: candidates.map(\.method))
    }

    private func find(_ path: [String], _ index: Int, _ node: Int, _ parameters: inout [String]) -> Int? {
        guard index < path.count else { return node }
        if let next = nodes[node].fixed[path[index]], let found = find(path, index + 1, next, &parameters),
            !nodes[found].routes.isEmpty
        {
            return found
        }
        guard let next = nodes[node].parameter, !path[index].isEmpty else { return nil }
        parameters.append(path[index])
        if let found = find(path, index + 1, next, &parameters) { return found }
        parameters.removeLast()
        return nil
    }
}

public struct RouteConflict: Error, Sendable, CustomStringConvertible {
    public let route: String
    public var description: String { "two routes claim \(route)" }
}

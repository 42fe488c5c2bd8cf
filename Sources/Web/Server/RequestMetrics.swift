import Program
import Synchronization

/// What is counted and logged of a request.
public struct AnsweredRequest: Sendable {
    public let route: Route
    public let status: Int
    /// From the whole request to its answer.
    public let nanoseconds: UInt64
    public let correlation: String

    public init(route: Route, status: Int, nanoseconds: UInt64, correlation: String) {
        self.route = route
        self.status = status
        self.nanoseconds = nanoseconds
        self.correlation = correlation
    }
}

/// Requests by area and status, and how long they took.
public final class RequestMetrics: Sendable {
    private let metrics: Metrics
    private let seconds: Histogram
    /// One counter per area and status; looking it up by labels for each request would cost more than the counting.
    private let counters = Mutex<[Key: Counter]>([:])

    /// Plugins come and go with areas of their own; what goes beyond this is counted as "other".
    private static let maximumCounters = 1_024

    private struct Key: Hashable {
        let area: String
        let status: Int
    }

    public init(_ metrics: Metrics) {
        self.metrics = metrics
        seconds = metrics.histogram(
            "client_manager_http_request_seconds", "From the whole request to its answer's first byte.",
            bounds: Histogram.latencyBounds)
    }

    public func observe(_ answered: AnsweredRequest) {
        seconds.observe(nanoseconds: answered.nanoseconds)
        var key = Key(area: answered.route.area, status: answered.status)
        let (known, isFull) = counters.withLock { ($0[key], $0.count >= RequestMetrics.maximumCounters) }
        if let known { return known.add() }
        if isFull { key = Key(area: "other", status: answered.status) }
        let counter = metrics.counter(
            "client_manager_http_requests_total", "Requests by area and status.",
            labels: [("area", key.area), ("status", String(answered.status))])
        counters.withLock { $0[key] = counter }
        counter.add()
    }
}

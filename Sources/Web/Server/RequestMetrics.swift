import Program
import Synchronization

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

    public func observe(_ route: Route?, _ status: Int, _ nanoseconds: UInt64) {
        seconds.observe(nanoseconds: nanoseconds)
        var key = Key(area: route?.area ?? "none", status: status)
        let (known, isFull) = counters.withLock { ($0[key], $0.count >= RequestMetrics.maximumCounters) }
        if let known { return known.add() }
        if isFull { key = Key(area: "other", status: status) }
        let counter = metrics.counter(
            "client_manager_http_requests_total", "Requests by area and status.",
            labels: [("area", key.area), ("status", String(status))])
        counters.withLock { $0[key] = counter }
        counter.add()
    }
}

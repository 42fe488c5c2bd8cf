import Program
import Synchronization

/// Requests by area and status, and how long they took.
public final class RequestMetrics: Sendable {
    private let metrics: Metrics
    private let seconds: Histogram
    /// One counter per area and status; looking it up by labels for each request would cost more than the counting.
    private let counters = Mutex<[Key: Counter]>([:])

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
        let key = Key(area: route?.area ?? "none", status: status)
        if let counter = counters.withLock({ $0[key] }) { return counter.add() }
        let counter = metrics.counter(
            "client_manager_http_requests_total", "Requests by area and status.",
            labels: [("area", key.area), ("status", String(status))])
        counters.withLock { $0[key] = counter }
        counter.add()
    }
}

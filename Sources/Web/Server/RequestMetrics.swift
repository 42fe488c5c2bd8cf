import Program

/// Requests by area and class of status, and how long they took.
public struct RequestMetrics: Sendable {
    private let metrics: Metrics
    private let seconds: Histogram

    public init(_ metrics: Metrics) {
        self.metrics = metrics
        seconds = metrics.histogram(
            "client_manager_http_request_seconds", "From the whole request to its answer's first byte.",
            bounds: Histogram.latencyBounds)
    }

    public var observe: @Sendable (Route?, Int, UInt64) -> Void {
        { [metrics, seconds] route, status, nanoseconds in
            seconds.observe(nanoseconds: nanoseconds)
            metrics.counter(
                "client_manager_http_requests_total", "Requests by area and status.",
                labels: [("area", route?.area ?? "none"), ("status", String(status))]
            ).add()
        }
    }
}

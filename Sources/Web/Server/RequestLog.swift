import JSON
import Program

/// Requests in the log, by the correlation id that audit trail, commands and agents have, too: each at level `debug`, and
/// as a warning when the core failed. A 503 is no failure: it says when to come again, and a flood of requests would
/// become one of lines.
public struct RequestLog: Sendable {
    private let log: Log

    public init(_ log: Log) { self.log = log }

    public func observe(_ answered: AnsweredRequest) {
        if answered.status >= 500, answered.status != 503 {
            log.warning("request.failed", fields(answered))
        } else {
            log.debug("request.answered", fields(answered))
        }
    }

    private func fields(_ answered: AnsweredRequest) -> JSONObject {
        [
            "correlation": .string(answered.correlation), "method": .string(answered.route.method.rawValue),
            "route": .string(answered.route.pattern), "status": .integer(Int64(answered.status)),
            "duration_us": .integer(Int64(clamping: answered.nanoseconds / 1_000)),
        ]
    }
}

import JSON

/// What a store said when it refused.
struct StoreFault: Sendable, Equatable {
    let status: Int
    /// `NoSuchKey`, `SlowDown`, …; empty where the store gave none.
    var code = ""
    var message = ""
    var requestID = ""
}

/// Why work with a store failed.
struct CloudError: Error, Sendable {
    enum Kind: String, Sendable {
        case invalid = "invalid"
        case notFound = "cloud-not-found"
        case conflict = "cloud-conflict"
        case range = "cloud-range"
        case denied = "cloud-denied"
        case refused = "cloud-refused"
        case busy = "cloud-busy"
        case unreachable = "cloud-unreachable"
        case dropped = "cloud-dropped"
        case timeout = "cloud-timeout"
        case tls = "cloud-tls"
        /// The store's word and the bytes do not agree.
        case checksum = "cloud-checksum"
        /// The store answered something that is no answer.
        case answer = "cloud-answer"
        case unsupported = "cloud-unsupported"
        case readOnly = "cloud-read-only"
        case cancelled = "cloud-cancelled"
        case `internal` = "internal"
    }

    var kind: Kind
    var text: String
    var store: StoreFault?
    /// Seconds after which the store wants to be asked again.
    var retryAfter: UInt64?
    /// The core's own code and status, where it was the core that refused.
    var core: (code: String, status: Int)?

    init(_ kind: Kind, _ text: String, store: StoreFault? = nil, retryAfter: UInt64? = nil) {
        self.kind = kind
        self.text = text
        self.store = store
        self.retryAfter = retryAfter
    }

    /// Whether the same request may go well a little later.
    var isPassing: Bool {
        switch kind {
        case .busy, .unreachable, .dropped, .timeout: true
        default: false
        }
    }

    var code: String { core.map { $0.code.isEmpty ? kind.rawValue : $0.code } ?? kind.rawValue }

    var httpStatus: Int {
        if let core, core.status >= 400 { return core.status }
        return switch kind {
        case .invalid, .unsupported: 400
        case .readOnly: 403
        case .notFound: 404
        case .conflict: 409
        case .range: 416
        case .busy: 503
        case .timeout: 504
        case .internal: 500
        default: 502
        }
    }

    private var title: String {
        switch httpStatus {
        case 400: "Bad Request"
        case 403: "Forbidden"
        case 404: "Not Found"
        case 409: "Conflict"
        case 413: "Content Too Large"
        case 416: "Range Not Satisfiable"
        case 429: "Too Many Requests"
        case 500: "Internal Server Error"
        case 502: "Bad Gateway"
        case 503: "Service Unavailable"
        case 504: "Gateway Timeout"
        case 507: "Insufficient Storage"
        default: "Error"
        }
    }

    /// A problem document (RFC 9457) with the store's own words beside ours.
    var problem: JSONObject {
        var document: JSONObject = [
            "type": .string("urn:client-manager:problem:" + code), "title": .string(title), "status": .integer(Int64(httpStatus)),
            "code": .string(code), "detail": .string(detail),
        ]
        if let store {
            document["store"] = [
                "status": .integer(Int64(store.status)), "code": .string(store.code), "message": .string(store.message),
                "request_id": .string(store.requestID),
            ]
        }
        return document
    }

    /// One sentence with everything that a person needs.
    var detail: String {
        guard let store else { return text }
        var words = text + ": the store answered \(store.status)"
        if !store.code.isEmpty { words += " \(store.code)" }
        if !store.message.isEmpty { words += " (\(store.message))" }
        if !store.requestID.isEmpty { words += ", request id \(store.requestID)" }
        return words
    }

    static func invalid(_ text: String) -> CloudError { CloudError(.invalid, text) }
}

/// A wish to end that several threads see: of a request whose peer left, a job that was cancelled, or the plugin's stop.
final class Cancellation: Sendable {
    private let parent: Cancellation?
    private let flag = Monitor(false)
    private let deadline: UInt64?

    init(under parent: Cancellation? = nil) {
        self.parent = parent
        deadline = nil
    }

    /// For what has to be tidied up when all else is called off already: it comes by itself after five seconds.
    static func soon() -> Cancellation { Cancellation(deadline: monotonicMilliseconds() + 5_000) }

    private init(deadline: UInt64) {
        parent = nil
        self.deadline = deadline
    }

    func cancel() { flag.update { $0 = true } }

    var isCancelled: Bool {
        if let deadline, monotonicMilliseconds() >= deadline { return true }
        return flag.update { $0 } || parent?.isCancelled == true
    }

    /// Returns after that time, or soon after a wish to end.
    func pause(milliseconds: UInt64) {
        let end = monotonicMilliseconds() + milliseconds
        while !isCancelled {
            let now = monotonicMilliseconds()
            guard now < end else { return }
            _ = flag.wait(milliseconds: min(end - now, 250)) { $0 ? true : nil }
        }
    }
}

import JSON
import Kernel
import Transport

extension HTTPServerConfiguration {
    /// What was no request is answered with a problem document as well.
    public mutating func refuseWithProblems() {
        refusalBody = { refusal in
            ("application/problem+json", Problem(refusal.status, "http-refused", refusal.message).document(correlation: ""))
        }
    }
}

extension Problem {
    /// RFC 9457. `type` is a name, not an address: nobody has to be reachable to understand a problem.
    func document(correlation: String) -> [UInt8] {
        var writer = JSONWriter(reserving: 256)
        writer.object { writer in
            writer.field("type", "urn:client-manager:problem:\(code)")
            writer.field("title", Problem.title(of: status))
            writer.field("status", status)
            writer.field("code", code)
            writer.field("detail", detail)
            writer.field("pointer", ifPresent: pointer)
            if let archived {
                writer.object("archived") { writer in
                    writer.field("remote", archived.remote)
                    writer.field("key", archived.key)
                    writer.field("bytes", archived.bytes)
                }
            }
            if !correlation.isEmpty { writer.field("correlation", correlation) }
        }
        return writer.finish()
    }

    func response(correlation: String) -> Response {
        var response = Response(
            status: status, headers: ["content-type": "application/problem+json"],
            body: .bytes(document(correlation: correlation)))
        if let retryAfterSeconds { response.headers.set("retry-after", String(retryAfterSeconds)) }
        return response
    }

    static func title(of status: Int) -> String {
        switch status {
        case 400: "Bad Request"
        case 401: "Unauthorized"
        case 403: "Forbidden"
        case 404: "Not Found"
        case 405: "Method Not Allowed"
        case 406: "Not Acceptable"
        case 408: "Request Timeout"
        case 409: "Conflict"
        case 410: "Gone"
        case 411: "Length Required"
        case 412: "Precondition Failed"
        case 413: "Content Too Large"
        case 414: "URI Too Long"
        case 415: "Unsupported Media Type"
        case 416: "Range Not Satisfiable"
        case 421: "Misdirected Request"
        case 422: "Unprocessable Content"
        case 423: "Locked"
        case 426: "Upgrade Required"
        case 429: "Too Many Requests"
        case 431: "Request Header Fields Too Large"
        case 500: "Internal Server Error"
        case 501: "Not Implemented"
        case 502: "Bad Gateway"
        case 503: "Service Unavailable"
        case 504: "Gateway Timeout"
        case 505: "HTTP Version Not Supported"
        case 507: "Insufficient Storage"
        default: "Error"
        }
    }
}

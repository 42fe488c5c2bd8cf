import JSON

/// The core as verbs see it: JSON in, JSON out, refusals as errors that say what to do.
struct Core {
    let transport: any APITransport
    /// For advice.
    let server: String

    /// A JSON answer; `.null` for 204.
    func call(_ request: APIRequest) async throws(OperatorError) -> JSONValue {
        let response = try await transport.send(request)
        return try json(response, of: request)
    }

    func get(_ path: String, query: [(name: String, value: String)] = []) async throws(OperatorError) -> JSONValue {
        var request = APIRequest("GET", path)
        request.query = query
        return try await call(request)
    }

    func post(_ path: String, _ body: JSONValue = [:]) async throws(OperatorError) -> JSONValue {
        try await call(APIRequest("POST", path, body: body.serialized()))
    }

    /// All pages of a list, up to `limit` items. The second value says that there are more.
    func list(_ request: APIRequest, limit: Int) async throws(OperatorError) -> (items: [JSONValue], hasMore: Bool) {
        var items: [JSONValue] = []
        var cursor: String?
        repeat {
            var page = request
            if let cursor { page.query.append((name: "cursor", value: cursor)) }
            let answer = try await call(page)
            guard let found = answer["items"]?.array else {
                throw OperatorError(.remoteFailure, "\(request.path) did not answer with a list")
            }
            items += found
            let next = answer["next"]?.string
            // A cursor that does not move would never end.
            guard next != cursor || next == nil else { break }
            cursor = found.isEmpty ? nil : next
            if items.count >= limit { return (Array(items.prefix(limit)), items.count > limit || cursor != nil) }
        } while cursor != nil
        return (items, false)
    }

    private func json(_ response: APIResponse, of request: APIRequest) throws(OperatorError) -> JSONValue {
        guard (200..<300).contains(response.status) else { throw failure(response, of: request) }
        guard !response.body.isEmpty else { return .null }
        do throws(JSONError) {
            return try JSONValue(parsing: response.body, limits: JSONLimits(bytes: 64 << 20))
        } catch {
            throw OperatorError(
                .remoteFailure, "\(server) answered something that is not JSON (\(error))",
                advice: "Is this the address of a Client Manager core?")
        }
    }

    /// A problem document (RFC 9457) as an error.
    func failure(_ response: APIResponse, of request: APIRequest) -> OperatorError {
        let problem = try? JSONValue(parsing: response.body)
        let detail = problem?["detail"]?.string ?? "\(request.method) \(request.path) was answered with status \(response.status)"
        let pointer = problem?["pointer"]?.string.map { " (at \($0))" } ?? ""
        let code = problem?["code"]?.string.map { " [\($0)]" } ?? ""
        let what = detail + pointer + code
        let wait = response.header("retry-after").flatMap { Int($0) }.map { "Try again in \($0) s." }
        switch response.status {
        case 401:
            return OperatorError(.refused, what, advice: "Sign in with 'cmctl login', or give --token or CM_TOKEN.")
        case 403: return OperatorError(.refused, what, advice: "Ask an administrator for a role that allows it.")
        case 429: return OperatorError(.refused, what, advice: wait)
        case 400, 405, 413, 415: return OperatorError(.usage, what)
        default: return OperatorError(.remoteFailure, what, advice: wait)
        }
    }
}

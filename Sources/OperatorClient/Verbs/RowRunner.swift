import JSON

extension Invocation {
    /// Runs a `.call` row: one request, or all pages of a list, and shows the answer.
    func runRow(method: String, path: String, _ shape: Verb.Shape) async throws(OperatorError) -> Outcome {
        var request = try request(method: method, path: path)
        switch shape {
        case .list(let columns, let paged):
            let limit = try session.listLimit(flags)
            if paged { request.query.append((name: "limit", value: String(min(limit, 1_000)))) }
            let (items, hasMore) = try await core.list(request, limit: limit)
            session.showList(items, hasMore: hasMore, columns)
        case .record:
            session.showRecord(try await core.call(request))
        case .done(let sentence):
            let answer = try await core.call(request)
            if session.isJSON { session.showRecord(answer) } else { console.print(sentence) }
        case .text:
            return try await session.pass(request)
        }
        return .success
    }
}

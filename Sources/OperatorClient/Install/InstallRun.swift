import JSON

/// Follows installations until all are over: the lines of their jobs' logs as they come, then how each ended.
struct InstallRun {
    private struct Item {
        let id: String
        let host: String
        var job: String
        var cursor: String?
        var last: JSONValue
        var isOver = false
    }

    private static let pauseMilliseconds: UInt64 = 300
    private static let pageLines = 500
    private static let over: Set<String> = ["succeeded", "failed", "cancelled", "needs-credentials"]

    private let session: Session
    private let core: Core
    private var items: [Item]

    init(_ session: Session, core: Core, _ installations: [JSONValue]) {
        self.session = session
        self.core = core
        items = installations.map {
            Item(
                id: $0["id"]?.string ?? "", host: $0["host"]?.string ?? "", job: $0["job"]?.string ?? "", cursor: nil, last: $0)
        }
    }

    mutating func follow() async throws(OperatorError) -> Outcome {
        while items.contains(where: { !$0.isOver }) {
            for index in items.indices where !items[index].isOver { try await look(index) }
            if items.contains(where: { !$0.isOver }) { await session.pause(Self.pauseMilliseconds) }
        }
        return end()
    }

    /// The state first: what is logged before an end is read after it.
    private mutating func look(_ index: Int) async throws(OperatorError) {
        let record = try await core.get("/api/v1/installations/" + APIRequest.encoded(items[index].id))
        items[index].last = record
        items[index].job = record["job"]?.string ?? items[index].job
        if !session.isJSON, !items[index].job.isEmpty { try await showLines(index) }
        items[index].isOver = Self.over.contains(record["state"]?.string ?? "")
    }

    private mutating func showLines(_ index: Int) async throws(OperatorError) {
        // As many pages as a job keeps lines: a log that grows all the time does not hold up the others.
        for _ in 0..<20 {
            var query = [(name: "limit", value: "\(Self.pageLines)")]
            if let cursor = items[index].cursor { query.append((name: "cursor", value: cursor)) }
            let page = try await core.get("/api/v1/jobs/" + APIRequest.encoded(items[index].job) + "/logs", query: query)
            let lines = page["items"]?.array ?? []
            for line in lines {
                session.console.print("\(Table.printable(items[index].host)): \(Table.printable(line["text"]?.string ?? ""))")
                if let sequence = line["sequence"]?.integer { items[index].cursor = String(sequence) }
            }
            guard page["next"]?.string != nil else { return }
        }
    }

    private func end() -> Outcome {
        let good = items.count { $0.last["state"]?.string == "succeeded" }
        if session.isJSON {
            session.showRecord(["installations": .array(items.map(\.last))])
        } else {
            for item in items {
                let state = item.last["state"]?.string ?? "?"
                let what = item.last["client"]?.string.map { " as client \($0)" } ?? ""
                let why = item.last["reason"]?.string.map { ": \($0) [\(item.last["code"]?.string ?? "")]" } ?? ""
                let line = Table.printable("\(item.host): \(state)" + (state == "succeeded" ? what : why))
                if state == "succeeded" { session.console.print(line) } else { session.console.complain(line) }
            }
            if items.count > 1 { session.console.print("\(good) of \(items.count) hosts are done") }
        }
        return good == items.count ? .success : .remoteFailure
    }
}

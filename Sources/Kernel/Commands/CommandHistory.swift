import AgentProtocol

/// One command as the lists show it.
public struct CommandSummary: Sendable {
    public var id: CommandID
    public var title: String
    public var principalKind: String
    public var principal: String
    public var selector: String?
    public var targetCount: Int
    /// Ends so far; all of them when `isFinished`.
    public var counts: OutcomeCounts
    public var finishedAt: UInt64?
    public var isFinished: Bool { counts.total == targetCount }
}

/// One command with what was asked for.
public struct CommandDetail: Sendable {
    public var summary: CommandSummary
    public var correlation: String
    /// A JSON object (see `CommandText.shown`).
    public var shown: [UInt8]
    var firstTarget: Int64
}

/// One target as the API shows it.
public struct TargetView: Sendable {
    public var client: ClientID
    /// `waiting`, `sent`, `running`, or the name of its end.
    public var state: String
    public var end: TargetEnd?
    public var recordedAt: UInt64?
    public var output: OutputSummary?
    /// Where else the output is.
    public var archived: ArchivedOutput?
}

/// What a list of commands is narrowed to.
public struct CommandQuery: Sendable {
    public var limit = 50
    /// Only commands before this one (the cursor).
    public var before: CommandID?
    /// Only commands for this client.
    public var client: ClientID?
    public var principal: String?
    /// Text that the title or the selector contains; letter case of ASCII does not matter.
    public var text: String?
    public var since: UInt64?
    public var until: UInt64?
    /// `true`: only finished ones; `false`: only running ones.
    public var finished: Bool?
    /// Only commands with at least one target that ended so.
    public var outcome: FinalState?

    public init() {}
}

public struct CommandPage: Sendable {
    public var items: [CommandSummary]
    /// The last row that was looked at; `nil` when there is nothing more.
    public var next: CommandID?
}

/// Reads commands from the database. All statements are bounded: a filter that finds little ends its page early with a
/// cursor instead of reading the whole history in one transaction.
struct CommandHistory: Sendable {
    let store: Store
    /// Rows of `commands` that one page looks at.
    static let scannedRows = 5_000

    /// Whether the command exists and the client is none of its targets.
    func wasForOthers(_ id: CommandID, than client: ClientID) async throws(Problem) -> Bool {
        try await store.read { (reader) throws(StoreError) in
            try reader.first(
                """
                SELECT NOT EXISTS (
                    SELECT 1 FROM command_targets
                    WHERE id >= first_target AND id < first_target + target_count AND client = ?
                ) FROM commands WHERE seq = ? AND low = ?
                """, client, id.row, Int64(bitPattern: id.low)
            ) { $0.bool(0) } ?? false
        }
    }

    func list(_ query: CommandQuery) async throws(Problem) -> CommandPage {
        let limit = max(1, min(query.limit, 500))
        let from = min(
            query.before.map { $0.row } ?? .max, query.until.map { Int64(clamping: ($0 &+ 1) << 16) } ?? .max)
        let down = query.since.map { Int64(clamping: $0 << 16) } ?? 0
        let needle = query.text.map { $0.lowercased() }
        return try await store.read { (reader) throws(StoreError) -> CommandPage in
            let rows = try reader.all(
                """
                SELECT seq, low, first_target, target_count, principal_kind, principal, title, selector FROM commands
                WHERE seq < ? AND seq >= ? ORDER BY seq DESC LIMIT ?
                """, from, down, Self.scannedRows
            ) { (row) throws(StoreError) in
                (
                    CommandSummary(
                        id: CommandID(high: row.unsigned(0), low: UInt64(bitPattern: row.integer(1))),
                        title: row.text(6), principalKind: row.text(4), principal: row.text(5),
                        selector: row.optionalText(7), targetCount: row.int(3), counts: OutcomeCounts()),
                    row.integer(2)
                )
            }
            var items: [CommandSummary] = []
            var last: CommandID?
            var stoppedEarly = false
            for (summary, first) in rows {
                if items.count == limit {
                    stoppedEarly = true
                    break
                }
                last = summary.id
                if let principal = query.principal, summary.principal != principal { continue }
                if let needle, !holds(summary.title.lowercased(), needle),
                    !holds(summary.selector?.lowercased() ?? "", needle)
                {
                    continue
                }
                if let client = query.client {
                    let targeted = try reader.exists(
                        "SELECT 1 FROM command_targets WHERE id >= ? AND id < ? AND client = ?", first,
                        first + Int64(summary.targetCount), client)
                    guard targeted else { continue }
                }
                var summary = summary
                try Self.fill(&summary, first, reader)
                if let finished = query.finished, summary.isFinished != finished { continue }
                if let outcome = query.outcome, summary.counts[outcome] == 0 { continue }
                items.append(summary)
            }
            let more = stoppedEarly || rows.count == Self.scannedRows
            return CommandPage(items: items, next: more ? last : nil)
        }
    }

    private static func fill(
        _ summary: inout CommandSummary, _ first: Int64, _ reader: borrowing Reader
    ) throws(StoreError) {
        if summary.targetCount > 1 {
            let stored = try reader.first(
                "SELECT finished_ms, counts FROM command_summaries WHERE seq = ?", summary.id.row
            ) { (row) throws(StoreError) in (row.unsigned(0), OutcomeCounts(coded: row.bytes(1))) }
            if let stored, let counts = stored.1 {
                summary.finishedAt = stored.0
                summary.counts = counts
                return
            }
        }
        var counts = OutcomeCounts()
        var lastRecorded: UInt64 = 0
        try reader.each(
            "SELECT state, count(*), max(recorded_ms) FROM command_exits WHERE target >= ? AND target < ? GROUP BY state",
            first, first + Int64(summary.targetCount)
        ) { (row) throws(StoreError) in
            if let state = FinalState(rawValue: UInt8(clamping: row.integer(0))) { counts[state] = row.int(1) }
            lastRecorded = max(lastRecorded, row.unsigned(2))
        }
        summary.counts = counts
        if summary.isFinished { summary.finishedAt = lastRecorded }
    }

    func detail(_ id: CommandID) async throws(Problem) -> CommandDetail? {
        try await store.read { (reader) throws(StoreError) -> CommandDetail? in
            try Self.detail(id, reader)
        }
    }

    private static func detail(_ id: CommandID, _ reader: borrowing Reader) throws(StoreError) -> CommandDetail? {
        var detail = try reader.first(
            """
            SELECT first_target, target_count, principal_kind, principal, correlation, title, selector, spec FROM commands
            WHERE seq = ? AND low = ?
            """, id.row, Int64(bitPattern: id.low)
        ) { (row) throws(StoreError) in
            CommandDetail(
                summary: CommandSummary(
                    id: id, title: row.text(5), principalKind: row.text(2), principal: row.text(3),
                    selector: row.optionalText(6), targetCount: row.int(1), counts: OutcomeCounts()),
                correlation: row.text(4), shown: row.bytes(7), firstTarget: row.integer(0))
        }
        if let first = detail?.firstTarget, var summary = detail?.summary {
            try fill(&summary, first, reader)
            detail?.summary = summary
        }
        return detail
    }

    /// Targets of a command from index `from` on, with their ends where they have one.
    /// - Parameter withOutput: also the small outputs and where the large ones are.
    func targets(
        _ detail: CommandDetail, from: Int, limit: Int, withOutput: Bool
    ) async throws(Problem) -> [TargetView] {
        let first = detail.firstTarget + Int64(from)
        let end = min(first + Int64(limit), detail.firstTarget + Int64(detail.summary.targetCount))
        return try await store.read { (reader) throws(StoreError) -> [TargetView] in
            try reader.all(
                """
                SELECT t.client, e.state, e.started, e.exit_code, e.signal, e.code, e.message, e.recorded_ms, e.started_ms,
                    e.finished_ms, e.duration_us, e.user_us, e.system_us, e.resident, e.truncated, e.output_bytes,
                    e.error_bytes, e.extents IS NOT NULL, e.output, e.errors, e.extents, e.withheld, t.id
                FROM command_targets t LEFT JOIN command_exits e ON e.target = t.id WHERE t.id >= ? AND t.id < ?
                ORDER BY t.id
                """, first, end
            ) { (row) throws(StoreError) in try Self.view(row, detail.summary.id, withOutput, reader) }
        }
    }

    /// The one target of a client; `nil` when the command was not for it.
    func target(_ detail: CommandDetail, of client: ClientID) async throws(Problem) -> TargetView? {
        let first = detail.firstTarget
        let end = first + Int64(detail.summary.targetCount)
        return try await store.read { (reader) throws(StoreError) -> TargetView? in
            try reader.first(
                """
                SELECT t.client, e.state, e.started, e.exit_code, e.signal, e.code, e.message, e.recorded_ms, e.started_ms,
                    e.finished_ms, e.duration_us, e.user_us, e.system_us, e.resident, e.truncated, e.output_bytes,
                    e.error_bytes, e.extents IS NOT NULL, e.output, e.errors, e.extents, e.withheld, t.id
                FROM command_targets t LEFT JOIN command_exits e ON e.target = t.id
                WHERE t.id >= ? AND t.id < ? AND t.client = ?
                """, first, end, client
            ) { (row) throws(StoreError) in try Self.view(row, detail.summary.id, true, reader) }
        }
    }

    private static func view(
        _ row: borrowing Row, _ command: CommandID, _ withOutput: Bool, _ reader: borrowing Reader
    ) throws(StoreError) -> TargetView {
        let client = row.identifier(0, ClientKind.self) ?? ClientID(high: 0, low: 0)
        guard !row.isNull(1), let state = FinalState(rawValue: UInt8(clamping: row.integer(1))) else {
            return TargetView(client: client, state: "waiting")
        }
        let started = Started(number: row.int(2))
        var record: ExitRecord?
        if !row.isNull(9) {
            record = ExitRecord(
                command: command, outcome: .cancelled, started: started, startedAt: row.optionalUnsigned(8),
                finishedAt: row.unsigned(9), durationMicroseconds: row.unsigned(10), userMicroseconds: row.unsigned(11),
                systemMicroseconds: row.unsigned(12), maximumResidentBytes: row.unsigned(13))
        }
        let end = TargetEnd(
            state, started: started, exitCode: row.optionalInteger(3).map { Int32(clamping: $0) },
            signal: row.optionalInteger(4).map { Int32(clamping: $0) }, code: row.optionalText(5),
            message: row.optionalText(6), record: record)
        var output = OutputSummary()
        output.truncated = row.bool(14)
        output.output = row.unsigned(15)
        output.errors = row.unsigned(16)
        output.withheld = row.unsigned(21)
        let isSpilled = row.bool(17)
        output.inline = nil
        if withOutput {
            if isSpilled {
                output.extents = OutputExtentCoding.decode(row.bytes(20)).map { StreamPair($0.output, $0.errors) }
            } else {
                output.inline = StreamPair(row.bytes(18), row.bytes(19))
            }
        }
        let archived = output.output + output.errors == 0
            ? nil : try OutputArchiveRow.place(reader, target: row.integer(22), command, client)
        return TargetView(
            client: client, state: state.name, end: end, recordedAt: row.unsigned(7), output: output, archived: archived)
    }

    /// The output of an ended target by its number; `nil` when there is no such end.
    func output(_ target: Int64) async throws(Problem) -> OutputSummary? {
        try await store.read { (reader) throws(StoreError) -> OutputSummary? in
            try reader.first(
                "SELECT output_bytes, error_bytes, output, errors, extents FROM command_exits WHERE target = ?", target
            ) { (row) throws(StoreError) in
                var summary = OutputSummary()
                (summary.output, summary.errors) = (row.unsigned(0), row.unsigned(1))
                guard row.isNull(4) else {
                    summary.inline = nil
                    summary.extents = OutputExtentCoding.decode(row.bytes(4)).map { StreamPair($0.output, $0.errors) }
                    return summary
                }
                summary.inline = StreamPair(row.bytes(2), row.bytes(3))
                return summary
            }
        }
    }

    /// What a re-run needs: the specification and the targets with their ends.
    func specification(_ id: CommandID) async throws(Problem) -> CommandSpecification? {
        try await store.read { (reader) throws(StoreError) -> CommandSpecification? in
            try CommandLoading.specification(id, reader)
        }
    }
}

/// A title has at most some kilobytes and the needle some hundred bytes: the plain search will do.
private func holds(_ text: String, _ part: String) -> Bool {
    var rest = text.utf8[...]
    while rest.count >= part.utf8.count {
        if rest.starts(with: part.utf8) { return true }
        rest = rest.dropFirst()
    }
    return false
}

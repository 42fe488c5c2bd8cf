import AgentProtocol

/// What a starting core finds: the next numbers, and every command with unfinished targets.
struct CommandLoading: Sendable {
    var lastHigh: UInt64 = 0
    var nextTarget: Int64 = 1
    var commands: [LiveCommand] = []

    /// Reads everything in one snapshot.
    static func load(_ store: Store) async throws(Problem) -> CommandLoading {
        try await store.read { (reader) throws(StoreError) -> CommandLoading in
            var loading = CommandLoading()
            loading.lastHigh = UInt64(clamping: try reader.count("SELECT coalesce(max(seq), 0) FROM commands"))
            let lastTarget = try reader.count("SELECT coalesce(max(id), 0) FROM command_targets")
            loading.nextTarget = Int64(lastTarget) + 1
            for row in try unfinished(reader) {
                if let command = try command(row, reader) { loading.commands.append(command) }
            }
            return loading
        }
    }

    /// Row numbers of the commands that have a target without an end, ascending.
    private static func unfinished(_ reader: borrowing Reader) throws(StoreError) -> [Int64] {
        let lowWater = Int64(try reader.count("SELECT low_water FROM command_progress"))
        var rows = Set<Int64>()
        try reader.each(
            """
            SELECT DISTINCT t.command FROM command_targets t LEFT JOIN command_exits e ON e.target = t.id
            WHERE t.id >= ? AND e.target IS NULL
            """, lowWater
        ) { (row) throws(StoreError) in rows.insert(row.integer(0)) }
        try reader.each(
            """
            SELECT DISTINCT t.command FROM command_marks m JOIN command_targets t ON t.id = m.target
            LEFT JOIN command_exits e ON e.target = m.target WHERE e.target IS NULL
            """
        ) { (row) throws(StoreError) in rows.insert(row.integer(0)) }
        return rows.sorted()
    }

    static func specification(
        _ id: CommandID, _ store: borrowing some StoreReading & ~Copyable
    ) throws(StoreError) -> CommandSpecification? {
        let fields = try store.first(
            "SELECT principal_kind, principal, correlation, selector, spec, input FROM commands WHERE seq = ? AND low = ?",
            id.row, Int64(bitPattern: id.low)
        ) { (row) throws(StoreError) -> CommandFields in
            var fields = CommandFields()
            fields.principalKind = row.text(0)
            fields.principal = row.text(1)
            fields.correlation = row.text(2)
            fields.selector = row.optionalText(3)
            do { try CommandText.read(row.bytes(4), row.optionalBytes(5), into: &fields) } catch {
                throw .refused(Problem(500, "store-damaged", "command \(id) cannot be read: \(error)"))
            }
            return fields
        }
        return fields.map { CommandSpecification(id: id, fields: $0) }
    }

    private static func command(_ row: Int64, _ reader: borrowing Reader) throws(StoreError) -> LiveCommand? {
        let head = try reader.first("SELECT low, first_target FROM commands WHERE seq = ?", row) {
            (row) throws(StoreError) in (UInt64(bitPattern: row.integer(0)), row.integer(1))
        }
        guard let (low, first) = head,
            let specification = try specification(CommandID(high: UInt64(row), low: low), reader)
        else { return nil }

        var targets: [LiveTarget] = []
        var ended = OutcomeCounts()
        var begun = specification.isStaged ? 0 : Int.max
        var active = 0
        try reader.each(
            """
            SELECT t.client, t.deferred, e.state, m.target IS NOT NULL, m.sent, m.cancelled FROM command_targets t
            LEFT JOIN command_exits e ON e.target = t.id LEFT JOIN command_marks m ON m.target = t.id
            WHERE t.id >= ? AND t.id < (SELECT first_target + target_count FROM commands WHERE seq = ?) ORDER BY t.id
            """, first, row
        ) { (row) throws(StoreError) in
            let client = row.identifier(0, ClientKind.self) ?? ClientID(high: 0, low: 0)
            let isDeferred = row.bool(1)
            let wasSent = row.bool(4)
            var target: LiveTarget
            if let state = row.optionalInteger(2).flatMap({ FinalState(rawValue: UInt8(clamping: $0)) }) {
                target = LiveTarget(client: client, machine: TargetStateMachine(ended: state), isDeferred: false)
                ended[state] += 1
                if specification.isStaged { begun = max(begun, targets.count + 1) }
            } else {
                let stage: TargetStateMachine.Stage = isDeferred && !wasSent ? .waiting : .sent
                target = LiveTarget(
                    client: client, machine: TargetStateMachine(stage, cancelRequested: row.bool(5)),
                    isDeferred: isDeferred && !wasSent)
                if stage == .sent {
                    active += 1
                    if specification.isStaged { begun = max(begun, targets.count + 1) }
                }
            }
            target.isMarked = row.bool(3)
            targets.append(target)
        }
        let live = LiveCommand(specification, firstTarget: first, targets: targets)
        live.decided = ended
        live.recorded = ended
        live.open = targets.count - ended.total
        live.undecided = live.open
        live.rollout.resume(at: min(begun, targets.count), inFlight: active, errors: ended.errors)
        return live.open > 0 ? live : nil
    }
}

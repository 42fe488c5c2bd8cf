import JSON
import Program

extension Kernel {
    /// Numbers that are read when somebody asks, from the services that know them.
    func registerMetrics() {
        enrollment.register(in: metrics)
        let store = store
        metrics.reading("client_manager_store_queue", "Writes that wait or run.") { Double(store.queueDepth) }
        metrics.reading("client_manager_store_commits_total", "Group commits.", isTotal: true) {
            Double(store.statistics.commits.load(ordering: .relaxed))
        }
        let filters = commands.filters
        metrics.reading("client_manager_output_filters_missing", "Required output filters that are not there.") {
            Double(filters.missing.count)
        }
        let channels = channels
        metrics.reading("client_manager_channels", "Terminals and streams that have not ended.") { Double(channels.count) }
        let files = files
        metrics.reading("client_manager_stored_files", "Files of the managed store, unfinished ones included.") {
            Double(files.used.files)
        }
        metrics.reading("client_manager_stored_file_bytes", "Bytes that they are charged with.") { Double(files.used.bytes) }
        metrics.registerProcess()
    }
}

/// Counters and events of the commands.
struct CommandMetrics {
    let observers: CommandObservers

    init(_ metrics: Metrics, _ events: Events, _ log: Log) {
        var ended: [FinalState: Counter] = [:]
        for state in FinalState.allCases {
            ended[state] = metrics.counter(
                "client_manager_targets_total", "Ended targets by final state.", labels: [("state", state.name)])
        }
        let submitted = metrics.counter("client_manager_commands_total", "Accepted commands.")
        let foreign = metrics.counter("client_manager_foreign_answers_total", "Answers for commands of other clients.")
        let failures = metrics.counter("client_manager_record_failures_total", "Ends that the store refused at first.")
        let bytes = metrics.counter("client_manager_output_bytes_total", "Output taken from agents.")
        let withheld = metrics.counter(
            "client_manager_output_withheld_bytes_total", "Output kept as asterisks for want of a filter.")
        let seconds = metrics.histogram(
            "client_manager_command_seconds", "From submit to the last recorded end.", bounds: Histogram.latencyBounds)

        var observers = CommandObservers()
        let endedByState = ended
        observers.targetEnded = { endedByState[$0]?.add() }
        observers.commandTook = { seconds.observe(Double($0) / 1_000) }
        observers.outputTaken = { bytes.add(UInt64($0)) }
        observers.foreignAnswer = { client, command in
            foreign.add()
            log.warning(
                "command.foreign-answer", ["client": .string("\(client)"), "command": .string("\(command)")])
        }
        observers.outputWithheld = { client, command, bytes in
            withheld.add(bytes)
            log.warning(
                "command.output-withheld",
                ["client": .string("\(client)"), "command": .string("\(command)"), "bytes": .integer(Int64(clamping: bytes))])
        }
        observers.outputDropped = { segments, bytes in
            log.error(
                "output.archive-lost",
                [
                    "code": "output-archive-dropped", "segments": .integer(Int64(segments)), "bytes": .integer(Int64(clamping: bytes)),
                ])
            events.publish(Event(
                kind: "output.archive-lost", data: ["segments": .integer(Int64(segments)), "bytes": .integer(Int64(clamping: bytes))]))
        }
        observers.recordFailed = { problem in
            failures.add()
            log.error("command.record-failed", ["code": .string(problem.code), "detail": .string(problem.detail)])
        }
        observers.event = { event in
            switch event.kind {
            case .submitted:
                submitted.add()
                log.debug("command.submitted", logFields(event))
            case .finished: log.debug("command.finished", logFields(event))
            }
            events.publish(
                Event(
                    kind: event.kind.rawValue, client: event.client, command: event.command, title: event.title,
                    by: event.principal, targets: event.targetCount))
        }
        self.observers = observers
    }
}

private func logFields(_ event: CommandEvent) -> JSONObject {
    [
        "command": .string("\(event.command)"), "correlation": .string(event.correlation), "by": .string(event.principal),
        "targets": .integer(Int64(event.targetCount)),
    ]
}

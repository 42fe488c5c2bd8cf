import JSON
import Kernel
import Web

/// Commands and targets as JSON.
enum CommandWriting {
    /// Output bytes in one answer; what goes beyond is read target by target.
    static let outputBytes = 8 << 20

    static func counts(_ counts: OutcomeCounts, of total: Int, _ writer: inout JSONWriter) {
        writer.object("counts") { writer in
            for state in FinalState.allCases where counts[state] > 0 { writer.member(state.name, counts[state]) }
            let open = total - counts.total
            if open > 0 { writer.field("unfinished", open) }
        }
    }

    static func summary(_ summary: CommandSummary, _ writer: inout JSONWriter) {
        writer.field("id", summary.id)
        writer.field("title", summary.title)
        writer.field("state", summary.isFinished ? "finished" : "running")
        writer.field("created_at", summary.id.milliseconds)
        writer.field("finished_at", ifPresent: summary.finishedAt)
        writer.object("principal") { writer in
            writer.field("kind", summary.principalKind)
            writer.field("id", summary.principal)
        }
        writer.field("selector", ifPresent: summary.selector)
        writer.field("target_count", summary.targetCount)
        counts(summary.counts, of: summary.targetCount, &writer)
    }

    static func answer(_ answer: CommandAnswer, showsOutput: (ClientID) -> Bool) -> [UInt8] {
        var budget = outputBytes
        var writer = JSONWriter(reserving: 512 + 256 * answer.targets.count)
        writer.object { writer in
            writer.field("id", answer.id)
            writer.field("state", answer.isFinished ? "finished" : "running")
            writer.field("target_count", answer.targetCount)
            counts(answer.counts, of: answer.targetCount, &writer)
            writer.array("targets") { writer in
                // By index: an iterator would copy each, field by field.
                for index in answer.targets.indices {
                    target(answer.targets[index], showsOutput: showsOutput(answer.targets[index].client), &budget, &writer)
                }
            }
            writer.field("next", answer.next.map { String($0) })
        }
        return writer.finish()
    }

    static func target(
        _ view: TargetView, showsOutput: Bool, _ budget: inout Int, _ writer: inout JSONWriter
    ) {
        writer.object { writer in
            writer.field("client", view.client)
            writer.field("state", view.state)
            if let end = view.end { self.end(end, &writer) }
            writer.field("recorded_at", ifPresent: view.recordedAt)
            guard let output = view.output else { return }
            writer.field("stdout_bytes", output.output)
            writer.field("stderr_bytes", output.errors)
            if output.truncated { writer.field("truncated", true) }
            if output.withheld > 0 { writer.field("withheld_bytes", output.withheld) }
            if let archived = view.archived { self.archived(archived, &writer) }
            guard showsOutput else { return }
            if let inline = output.inline, inline.output.count + inline.errors.count <= budget {
                budget -= inline.output.count + inline.errors.count
                writer.bytes("stdout", inline.output)
                writer.bytes("stderr", inline.errors)
            } else if output.output + output.errors > 0 {
                writer.field("output_omitted", true)
            }
        }
    }

    private static func archived(_ archived: ArchivedOutput, _ writer: inout JSONWriter) {
        writer.object("archived") { writer in
            writer.field("at_ms", archived.milliseconds)
            for (name, object) in [("stdout", archived.output), ("stderr", archived.errors)] {
                guard let object else { continue }
                writer.name(name)
                writer.object { writer in
                    writer.field("remote", object.remote)
                    writer.field("key", object.key)
                    writer.field("bytes", object.bytes)
                }
            }
        }
    }

    private static func end(_ end: TargetEnd, _ writer: inout JSONWriter) {
        writer.field("started", end.started.rawValue)
        writer.field("exit_code", ifPresent: end.exitCode)
        writer.field("signal", ifPresent: end.signal)
        writer.field("code", ifPresent: end.code)
        writer.field("message", ifPresent: end.message)
        guard let record = end.record else { return }
        writer.field("started_at", ifPresent: record.startedAt)
        writer.field("finished_at", record.finishedAt)
        writer.key("duration_ms")
        writer.thousandths(record.durationMicroseconds)
        writer.key("user_ms")
        writer.thousandths(record.userMicroseconds)
        writer.key("system_ms")
        writer.thousandths(record.systemMicroseconds)
        writer.field("max_resident_bytes", record.maximumResidentBytes)
    }

    // MARK: For the document

    private static let archivedSchema = Schema.object([
        .required("remote", .string()), .required("key", .string()), .required("bytes", .integer()),
    ])
    static let targetSchema = Schema.object([
        .required("client", .string()), .required("state", .string("waiting, sent, running, or how it ended.")),
        .optional("started", .choice(["no", "yes", "maybe"])), .optional("exit_code", .integer()),
        .optional("signal", .integer()), .optional("code", .string()), .optional("message", .string()),
        .optional("stdout", .string("When it is UTF-8 and small.")), .optional("stdout_base64", .string("When it is not.")),
        .optional("stderr", .string()), .optional("stderr_base64", .string()),
        .optional("output_omitted", .boolean("There is output: read it by range.")),
        .optional("stdout_bytes", .integer()), .optional("stderr_bytes", .integer()),
        .optional("truncated", .boolean("A limit was met and later bytes were dropped.")),
        .optional("withheld_bytes", .integer("Kept as asterisks, because a filter of the command was not there or failed.")),
        .optional(
            "archived",
            .object([
                .required("at_ms", .integer()), .optional("stdout", archivedSchema), .optional("stderr", archivedSchema),
            ])),
        .optional("duration_ms", .number()), .optional("max_resident_bytes", .integer("Peak memory.")),
    ])
    static let answerSchema = Schema.object([
        .required("id", .string()), .required("state", .choice(["running", "finished"])),
        .required("target_count", .integer()), .required("counts", .map(.integer())),
        .required("targets", .array(targetSchema)), .optional("next", .string()),
    ])
    static let commandSchema = Schema.object([
        .required("id", .string()), .required("title", .string("What is run, in one line.")),
        .required("state", .choice(["running", "finished"])), .required("created_at", .integer("Unix milliseconds.")),
        .optional("finished_at", .integer()), .required("principal", .any()), .optional("selector", .string()),
        .required("target_count", .integer()), .required("counts", .map(.integer())),
        .optional("request", .any("What was asked for; values of the environment and standard input are not shown.")),
    ])
    static func pageSchema(_ item: Schema) -> Schema {
        .object([.required("items", .array(item)), .optional("next", .string("Cursor of the next page, or null."))])
    }
}

/// Durable jobs.
extension Verb {
    private static let jobColumns: [Column] = [
        "id", "kind", "state", "title", "owner.id:BY", "created_ms:CREATED", "attempt", "code",
    ]

    static let jobs: [Verb] = [
        .list(
            "jobs list", "/api/v1/jobs", "Jobs, newest first.", jobColumns,
            flags: [
                .query("state", "STATE", "waiting, running, succeeded, cancelled or dead."),
                .query("kind", "KIND", "Only those of this kind."),
                .query("schedule", "NAME", "Only those of this schedule."),
                .query("parent", "ID", "Only children of this job."),
            ]),
        .show("jobs show ID", "/api/v1/jobs/{ID}", "One job with its arguments and result."),
        .list(
            "jobs logs ID", "/api/v1/jobs/{ID}/logs", "What its attempts had to say.", ["time_ms", "attempt", "level", "text"]),
        .list(
            "jobs kinds", "/api/v1/jobs/kinds", "What can be run as a job.",
            ["name", "owner", "guarantee", "concurrency", "summary"], paged: false),
        .change(
            "POST", "jobs create KIND", "/api/v1/jobs", "Puts in a job.",
            flags: [
                .body("arguments", "JSON", "For the kind; JSON, @FILE or -.", .json),
                .body("priority", "N", "-100 to 100; higher ones go first.", .integer),
                .body("run-at", "TIME", "Not before this; Unix milliseconds.", .integer, as: "run_at_ms"),
                .body("deadline", "TIME", "Not after this; Unix milliseconds.", .integer, as: "deadline_ms"),
                .body("timeout", "TIME", "Of one attempt, such as 15m.", .seconds, as: "timeout_s"),
                .body("attempts", "N", "Failures that end it.", .integer, as: "retry.attempts"),
                .body("parent", "ID", "A job that this one belongs to."),
            ]),
        .change("POST", "jobs cancel ID", "/api/v1/jobs/{ID}/cancel", "Ends a job and its children."),
        .change("POST", "jobs retry ID", "/api/v1/jobs/{ID}/retry", "Puts a dead or cancelled job in again."),
    ]
}

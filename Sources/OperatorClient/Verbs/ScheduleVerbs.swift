/// Jobs at their times.
extension Verb {
    static let schedules: [Verb] = [
        .list(
            "schedule list", "/api/v1/schedules", "All schedules.",
            ["name", "kind", "state", "cron", "at", "at_ms", "zone", "next_ms:NEXT", "last_run_ms:LAST", "owner.id:OWNER", "title"],
            flags: [.query("kind", "KIND", "Only those that run this kind of job.")]),
        .show("schedule show NAME", "/api/v1/schedules/{NAME}", "One schedule."),
        .change(
            "POST", "schedule create NAME KIND", "/api/v1/schedules",
            "Makes a schedule; KIND is a kind of job, such as command or template.", flags: scheduleFlags),
        .change(
            "PATCH", "schedule set NAME", "/api/v1/schedules/{NAME}", "Changes what is given, such as --enabled false; whoever changes more owns it.",
            flags: [.body("kind", "KIND", "Kind of job.")] + scheduleFlags),
        .delete("schedule delete NAME", "/api/v1/schedules/{NAME}", "Deletes a schedule; runs that are under way go on."),
        .change("POST", "schedule run NAME", "/api/v1/schedules/{NAME}/run", "Puts in a run now."),
        .list(
            "schedule upcoming NAME", "/api/v1/schedules/{NAME}/upcoming", "Its times to come.", ["local:TIME", "time_ms"],
            flags: [.query("count", "N", "How many; 10 by default.", .integer, as: "limit")], paged: false),
        .list(
            "schedule runs NAME", "/api/v1/schedules/{NAME}/runs", "The jobs of its runs, newest first.",
            ["id", "scheduled_ms:TIME", "state", "created_ms:CREATED", "finished_ms:FINISHED", "code", "reason"],
            flags: [.query("state", "STATE", "waiting, running, succeeded, cancelled or dead.")]),
    ]

    private static let scheduleFlags: [VerbFlag] = [
        .body("cron", "CRON", "Such as \"30 2 * * mon-fri\" or @daily."),
        .body("at", "TIME", "Once, on the clock of the zone: 2026-03-29T02:30."),
        .body("at-ms", "TIME", "Once; Unix milliseconds.", .integer),
        .body("zone", "ZONE", "Time zone such as Europe/Berlin; UTC by default."),
        .body("arguments", "JSON", "For the kind; JSON, @FILE or -.", .json),
        .body("starts", "TIME", "No times before; Unix milliseconds.", .integer, as: "starts_ms"),
        .body("ends", "TIME", "No times after; Unix milliseconds.", .integer, as: "ends_ms"),
        .body("jitter", "TIME", "Each time is put off by chance, up to this.", .seconds, as: "jitter_s"),
        .body("overlap", "RULE", "skip, queue or allow, when the run before has not ended."),
        .body("missed", "RULE", "skip, once or all, for times that nobody could run."),
        .body("missed-limit", "N", "How many runs --missed all makes up for.", .integer),
        .body("grace", "TIME", "A time that is acted upon later than this is missed.", .seconds, as: "grace_s"),
        .body("priority", "N", "-100 to 100; higher ones go first.", .integer),
        .body("timeout", "TIME", "Of one attempt, such as 15m.", .seconds, as: "timeout_s"),
        .body("attempts", "N", "Failures that end a run.", .integer, as: "retry.attempts"),
        .body("deadline", "TIME", "How long a run may take in all.", .seconds, as: "deadline_s"),
        .body("description", "TEXT", "For people."),
        .body("enabled", "true|false", "Whether it is on.", .boolean),
    ]
}

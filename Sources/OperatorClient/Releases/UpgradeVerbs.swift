/// Agent releases, and upgrades of the fleet to one.
extension Verb {
    static let upgrades: [Verb] = [
        Verb(
            "upgrades key FILE", "Makes a release key: FILE (keep it off every core and agent) and FILE.pub for agents. Needs no core.",
            .program { (invocation) async throws(OperatorError) in try invocation.makeReleaseKey() }),
        Verb(
            "upgrades sign PROGRAM", "Makes a release of an agent program: a stamped copy and its signed manifest. Needs no core.",
            flags: [
                .own("key", "FILE", "The release key, private."), .own("version", "VERSION", "MAJOR.MINOR.PATCH[-PRE]."),
                .own("platform", "NAME", "Such as linux-x86_64; an ELF file tells it by itself."),
                .own("out", "FILE", "The copy; PROGRAM-VERSION by default. The manifest is FILE.release.json."),
            ],
            .program { (invocation) async throws(OperatorError) in try invocation.signRelease() }),
        Verb(
            "upgrades verify FILE", "Checks a release and its manifest against a public release key. Needs no core.",
            flags: [.own("key", "FILE", "The public release key.")],
            .program { (invocation) async throws(OperatorError) in try invocation.verifyRelease() }),
        Verb(
            "upgrades upload FILE", "Gives the core a release: FILE and FILE.release.json.",
            calls: [
                "POST /api/v1/files", "PATCH /api/v1/files/{ID}", "POST /api/v1/upgrades/releases",
            ],
            .program { (invocation) async throws(OperatorError) in try await invocation.uploadRelease() }),
        .list(
            "upgrades releases", "/api/v1/upgrades/releases", "Releases that the core can hand out, newest first.",
            ["id", "version", "platform", "size", "created_ms:SIGNED", "added_by:BY", "sha256"]),
        .show("upgrades release ID", "/api/v1/upgrades/releases/{ID}", "One release."),
        .delete("upgrades remove-release ID", "/api/v1/upgrades/releases/{ID}", "Removes a release that no upgrade hands out."),
        .change(
            "POST", "upgrades run RELEASE SELECTOR", "/api/v1/upgrades", "Starts an upgrade of clients to a release, as a job.",
            flags: [
                .body("canary", "N", "So many clients are the first wave.", .integer),
                .body("canary-selector", "SELECTOR", "Those that meet this are the first wave.", as: "canary_selector"),
                .body("wave", "N", "Size of each further wave; else all the rest is one.", .integer),
                .body("parallel", "N", "Most clients in the middle of their upgrade.", .integer),
                .body("failures", "N", "Failures that are tolerated; one more stops the rest.", .integer),
                .body("online-within", "TIME", "The new program has to be online so soon; 60s by default.", .seconds, as: "online_within_s"),
                .body("settle", "TIME", "And to keep running so long after that; 3s by default.", .seconds, as: "settle_s"),
                .body("wait", "TIME", "How long an absent client is waited for; 60s by default.", .seconds, as: "wait_s"),
                .body("answer-within", "TIME", "A client silent for so long has failed; 15m by default.", .seconds, as: "answer_within_s"),
            ]),
        .list(
            "upgrades list", "/api/v1/upgrades", "Upgrades, newest first.",
            ["id", "version", "state", "paused", "clients", "owner.id:BY", "created_ms:CREATED", "code"]),
        .show("upgrades show ID", "/api/v1/upgrades/{ID}", "One upgrade with its clients by state."),
        .list(
            "upgrades clients ID", "/api/v1/upgrades/{ID}/clients", "The clients of an upgrade in the order of their turns.",
            ["client", "state", "changed_ms:SINCE", "code", "message"],
            flags: [.query("state", "STATE", "waiting, sent, receiving, staged, restarted, online, rolled-back, failed or skipped.")]),
        .change("POST", "upgrades pause ID", "/api/v1/upgrades/{ID}/pause", "Nobody else gets the release until it is resumed."),
        .change("POST", "upgrades resume ID", "/api/v1/upgrades/{ID}/resume", "Goes on with a paused upgrade."),
        .change("POST", "upgrades cancel ID", "/api/v1/upgrades/{ID}/cancel", "Nobody else gets the release; who has it comes to an end."),
    ]
}

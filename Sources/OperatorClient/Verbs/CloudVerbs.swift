import JSON

/// Stores of others, by the plugin "cloud-storage".
extension Verb {
    private static let remote = "/api/v1/cloud/remotes/{REMOTE}"

    static let cloud: [Verb] = [
        .list(
            "cloud remotes", "/api/v1/cloud/remotes", "Remotes that you may use.",
            ["name", "kind", "endpoint", "bucket", "prefix", "area", "read_only"], paged: false),
        .show("cloud show REMOTE", remote, "One remote, without its credentials."),
        .change(
            "POST", "cloud add NAME", "/api/v1/cloud/remotes", "Makes a remote: a bucket, or a WebDAV collection. Its credentials come with --data, which keeps them off the command line.", flags: remoteFlags),
        .delete("cloud remove REMOTE", remote, "Forgets a remote; what is in the store stays."),
        .change("POST", "cloud test REMOTE", remote + "/test", "Asks the store whether address, trust and credentials are right."),
        .list(
            "cloud ls REMOTE", remote + "/objects", "Objects and folders of a remote.", ["key", "size", "modified_ms:MODIFIED", "folder"],
            flags: [
                .query("prefix", "TEXT", "Only keys that begin so."), .queryToggle("recursive", "All keys, and no folders."),
            ]),
        .show("cloud stat REMOTE KEY", remote + "/stat", "What the store says of an object."),
        Verb(
            "cloud get REMOTE KEY", "Writes an object to standard output.",
            flags: [.own("range", "FIRST-LAST", "A part of it.")],
            .program { (invocation) async throws(OperatorError) in
                var request = try invocation.request(method: "GET", path: remote + "/object")
                if let range = invocation.flags.value("range") { request.headers.append((name: "range", value: "bytes=" + range)) }
                return try await invocation.session.pass(request)
            }),
        Verb(
            "cloud put REMOTE KEY PATH", "Writes a local file, or standard input (-), to a remote.",
            flags: [
                .own("type", "TYPE", "Its content type."), .own("metadata", "JSON", "Texts that go with it."),
                .own("resume", nil, "Go on with an upload that was broken off.", .toggle),
            ],
            .program { (invocation) async throws(OperatorError) in try await invocation.cloudPut() }),
        .delete("cloud rm REMOTE KEY", remote + "/object", "Removes an object."),
        .change("POST", "cloud cp REMOTE FROM TO", remote + "/copy", "Copies an object inside its store."),
        .change("POST", "cloud mv REMOTE FROM TO", remote + "/move", "Renames an object inside its store.", .done("done")),
        .change("POST", "cloud mkdir REMOTE KEY", remote + "/folders", "Makes a folder; its key ends with a slash."),
        .change(
            "POST", "cloud presign REMOTE KEY", remote + "/presign", "A URL that reads or writes one object for a while.",
            flags: [
                .body("method", "GET|PUT", "What it is for; GET if not said."),
                .body("expires", "TIME", "How long it works, at most 7d.", .seconds, as: "expires_s"),
            ]),
        .list(
            "cloud uploads REMOTE", remote + "/uploads", "Uploads that were broken off.", ["key", "size", "started_ms:STARTED", "by"], paged: false),
        .delete("cloud abandon REMOTE KEY", remote + "/upload", "Gives an upload up that was broken off."),
        .change(
            "POST", "cloud sync", "/api/v1/cloud/sync", "Makes a tree of a remote, or of a client, like another one: a job.",
            flags: [
                .body("from", "REMOTE", "Where it comes from.", as: "from.remote"),
                .body("from-prefix", "PREFIX/", "The tree there; all of it if not said.", as: "from.prefix"),
                .body("from-client", "ID", "A directory of this client instead.", as: "from.client"),
                .body("from-path", "PATH", "Its absolute path there.", as: "from.path"),
                .body("to", "REMOTE", "Where it goes.", as: "to.remote"),
                .body("to-prefix", "PREFIX/", "The tree there.", as: "to.prefix"),
                .body("to-client", "ID", "A directory of this client instead.", as: "to.client"),
                .body("to-path", "PATH", "Its absolute path there.", as: "to.path"),
                .body("compare", "time|size|hash", "What tells that a copy differs; time if not said."),
                .body("include", "PATTERN", "Only keys like this: * and ? within a folder, ** across.", .list),
                .body("exclude", "PATTERN", "No keys like this.", .list),
                .bodyToggle("delete", "Remove what is only in the copy."),
                .bodyToggle("dry-run", "Only say what would be done."),
            ]),
        .change("GET", "cloud report JOB", "/api/v1/cloud/reports/{JOB}", "What a synchronisation did, a line for each act.", .text),
        .change(
            "POST", "cloud copy", "/api/v1/cloud/copy", "Copies an object or a stored file from one place to another: a job.",
            flags: [
                .body("from", "REMOTE", "Where it is.", as: "from.remote"), .body("from-key", "KEY", "What it is.", as: "from.key"),
                .body("from-file", "ID", "A file of the core's store instead.", as: "from.file"),
                .body("from-client", "ID", "A file of this client instead.", as: "from.client"),
                .body("from-path", "PATH", "Its absolute path there.", as: "from.path"),
                .body("to", "REMOTE", "Where it goes.", as: "to.remote"), .body("to-key", "KEY", "What it becomes.", as: "to.key"),
                .body("to-file", "NAME", "A new file of the core's store instead.", as: "to.file"),
                .body("to-client", "ID", "A file of this client instead.", as: "to.client"),
                .body("to-path", "PATH", "Its absolute path there.", as: "to.path"),
                .body("way", "relay|direct|auto", "From or to a client: by way of the core (without it), or by the client itself with a presigned URL."),
                .body("verify", "hash|size", "Of a direct copy: hash (without it) reads the object once more."),
            ]),
    ]

    private static let remoteFlags: [VerbFlag] = [
        .body("kind", "s3|webdav", "What the store speaks; s3 if not said."),
        .body("endpoint", "URL", "Where it is."),
        .body("region", "NAME", "S3 only."),
        .body("bucket", "NAME", "S3 only."),
        .body("prefix", "TEXT", "Put before every key."),
        .body("area", "NAME", "Its rights are NAME.read and NAME.write."),
        .body("ca-file", "FILE", "The authority that its certificate comes from.", .file, as: "ca"),
        .bodyToggle("read-only", "Nobody writes through it."),
        .bodyToggle("services", "Other plugins may use it."),
    ]
}

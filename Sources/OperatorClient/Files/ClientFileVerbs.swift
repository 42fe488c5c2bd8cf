import JSON

/// Looking at, and changing, the file systems of clients.
extension Verb {
    static let clientFiles: [Verb] = [
        Verb(
            "cp PATH…", "Copies files to, from and between clients: sources, then the target, each a local path or CLIENT:PATH.",
            flags: copyFlags,
            calls: ["POST /api/v1/transfers"],
            .program { (invocation) async throws(OperatorError) in try await invocation.copy() }),
        Verb(
            "ls CLIENT:PATH", "What is in a directory of a client; of a file the file itself. Patterns are allowed.",
            flags: [.own("all", nil, "Also names that begin with a dot.", .toggle, letter: "a")],
            calls: ["GET /api/v1/clients/{ID}/files", "GET /api/v1/clients/{ID}/files/status"],
            .program { (invocation) async throws(OperatorError) in try await invocation.listClientFiles() }),
        Verb(
            "rm CLIENT:PATH…", "Removes files, links and empty directories of clients; patterns are allowed.",
            flags: [.own("recursive", nil, "Directories with everything in them.", .toggle, letter: "r")],
            calls: ["DELETE /api/v1/clients/{ID}/files"],
            .program { (invocation) async throws(OperatorError) in try await invocation.removeClientFiles() }),
        Verb(
            "mv CLIENT:PATH TARGET", "Gives a file or directory of a client another name there.",
            flags: [.own("replace", nil, "A file that is there is replaced.", .toggle)],
            calls: ["POST /api/v1/clients/{ID}/files/rename"],
            .program { (invocation) async throws(OperatorError) in try await invocation.renameClientFile() }),
        Verb(
            "mkdir CLIENT:PATH…", "Makes directories on clients.",
            flags: [
                .own("parents", nil, "Those above too; one that is there is no error.", .toggle, letter: "p"),
                .own("mode", "OCTAL", "Permission bits; 755 by default."),
            ],
            calls: ["POST /api/v1/clients/{ID}/files/directories"],
            .program { (invocation) async throws(OperatorError) in try await invocation.makeClientDirectories() }),
        .list(
            "transfers list", "/api/v1/transfers", "Transfers, newest first.",
            ["id", "client", "direction", "form", "path", "state", "bytes", "size", "rate", "seconds_left:LEFT", "code"],
            flags: [
                .query("state", "STATE", "Only those in this state."), .query("client", "ID", "Only those of this client."),
                .query("group", "ID", "Only those of one request."),
            ]),
        Verb(
            "transfers direct CLIENT:PATH",
            "Moves a file between clients and a URL, past the core. A presigned URL is a secret: it is read from a file.",
            flags: directFlags, calls: ["POST /api/v1/transfers"],
            .program { (invocation) async throws(OperatorError) in try await invocation.copyDirect() }),
        .show("transfers show ID", "/api/v1/transfers/{ID}", "One transfer."),
        .change("POST", "transfers pause ID", "/api/v1/transfers/{ID}/pause", "Stops a transfer where it is."),
        .change("POST", "transfers resume ID", "/api/v1/transfers/{ID}/resume", "Lets a paused transfer go on."),
        .change(
            "POST", "transfers cancel ID", "/api/v1/transfers/{ID}/cancel", "Ends a transfer; nothing of it stays."),
    ]

    private static let directFlags: [VerbFlag] = [
        .own("from", "FILE", "The client fetches from the URL in this file (- for standard input) by GET."),
        .own("to", "FILE", "The client uploads to the URL in this file (- for standard input) by PUT."),
        .own("size", "BYTES", "With --from: what the server has to announce.", .integer),
        .own("sha256", "HEX", "The hash that the bytes have to have."),
    ] + copyFlags.filter { ["no-replace", "parents", "mode", "rate-limit", "offline", "within", "detach"].contains($0.flag.name) }

    private static let copyFlags: [VerbFlag] = [
        .own("recursive", nil, "Directories with everything in them.", .toggle, letter: "r"),
        .own("resume", nil, "Go on with what an earlier, interrupted run of this copy left.", .toggle),
        .own("no-replace", nil, "To clients: a file that is there is a refusal.", .toggle),
        .own("parents", nil, "To clients: missing directories are made.", .toggle, letter: "p"),
        .own("mode", "OCTAL", "To clients: permission bits; those of the local file by default."),
        .own("links", "keep|skip", "Symbolic links of a tree; keep by default."),
        .own("rate-limit", "BYTES", "Bytes per second of each transfer at most.", .integer),
        .own("offline", "queue|fail", "When a client is not connected; fail by default."),
        .own("within", "TIME", "A transfer that is not over by then fails; a day by default.", .seconds),
        .own("detach", nil, "To clients: print the ids of the transfers and do not wait.", .toggle),
        .own("keep", nil, "The copy in the core's store stays after the end.", .toggle),
    ]
}

extension Invocation {
    func listClientFiles() async throws(OperatorError) -> Outcome {
        let remote = try RemotePath.required(operand("CLIENT:PATH") ?? "")
        let files = try await clientFiles(remote)
        var items: [JSONValue] = []
        let paths = try await files.expand(remote.trimmed)
        for path in paths {
            guard let entry = try await files.status(path) else {
                throw OperatorError(.remoteFailure, "\(path) is not there")
            }
            if entry["kind"]?.string == "directory", paths.count == 1 || remote.endsInSlash {
                items += try await files.list(path).filter { flags.has("all") || $0["name"]?.string?.hasPrefix(".") != true }
            } else {
                items.append(entry)
            }
        }
        if session.isJSON {
            session.showRecord(["items": .array(items)])
        } else {
            for line in Table.lines(items.map(Self.shown), ["mode", "size", "modified_ms", "name"], width: nil).dropFirst() { console.print(line) }
        }
        return .success
    }

    /// As `ls -l` writes it.
    private static func shown(_ entry: JSONValue) -> JSONValue {
        let kind = entry["kind"]?.string ?? ""
        let letter = ["directory": "d", "link": "l", "file": "-"][kind] ?? "?"
        let bits = entry["mode"]?.integer ?? 0
        var mode = letter
        for shift in stride(from: 6, through: 0, by: -3) {
            let part = bits >> Int64(shift)
            mode += (part & 4 != 0 ? "r" : "-") + (part & 2 != 0 ? "w" : "-") + (part & 1 != 0 ? "x" : "-")
        }
        let milliseconds = (entry["modified_ns"]?.integer ?? 0) / 1_000_000
        let target = entry["target"]?.string.map { " -> " + $0 } ?? ""
        return [
            "mode": .string(mode), "size": entry["size"] ?? .null, "modified_ms": .integer(milliseconds),
            "name": .string((entry["name"]?.string ?? "") + target),
        ]
    }

    func removeClientFiles() async throws(OperatorError) -> Outcome {
        for word in operands["CLIENT:PATH"] ?? [] {
            let remote = try RemotePath.required(word)
            let files = try await clientFiles(remote)
            for path in try await files.expand(remote.trimmed) {
                try await files.remove(path, recursive: flags.has("recursive"))
                if !session.isJSON { console.print(path) }
            }
        }
        return .success
    }

    func renameClientFile() async throws(OperatorError) -> Outcome {
        let remote = try RemotePath.required(operand("CLIENT:PATH") ?? "")
        let word = operand("TARGET") ?? ""
        let files = try await clientFiles(remote)
        var target = word
        if let other = RemotePath(word) {
            guard try await oneClient(other.selector) == files.client else {
                throw .usage("mv stays on one client", advice: "'cmctl cp' copies between clients.")
            }
            target = other.path
        }
        guard target.hasPrefix("/") else { throw .usage("'\(target)' is no absolute path") }
        if try await files.isDirectory(target) { target = RemotePath.joined(target, Self.lastPart(of: remote.trimmed)) }
        try await files.rename(remote.trimmed, to: target, replace: flags.has("replace"))
        if !session.isJSON { console.print(target) }
        return .success
    }

    func makeClientDirectories() async throws(OperatorError) -> Outcome {
        let mode = try octal("mode")
        for word in operands["CLIENT:PATH"] ?? [] {
            let remote = try RemotePath.required(word)
            try await clientFiles(remote).makeDirectory(remote.trimmed, parents: flags.has("parents"), mode: mode)
            if !session.isJSON { console.print(remote.trimmed) }
        }
        return .success
    }

    func octal(_ name: String) throws(OperatorError) -> Int64? {
        guard let text = flags.value(name) else { return nil }
        guard let bits = Int64(text, radix: 8), (0...0o7777).contains(bits) else {
            throw .usage("--\(name) \(text): expected permission bits such as 644 or 0755")
        }
        return bits
    }
}

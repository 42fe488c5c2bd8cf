import AgentProtocol
import JSON
import Reactor

extension Transfers {
    private static let requestMilliseconds: UInt64 = 30_000
    /// A little longer than the agent takes at most.
    private static let hashMilliseconds: UInt64 = 630_000

    /// Asks a client about its files. The caller has checked that the principal may look there.
    /// - Throws: 404 `path-not-found`, 403 `path-not-allowed`, …: what the agent says (Docs/errors.md); 409
    ///   `client-offline`, `file-unsupported`; 502 `file-answer`; 503 `client-busy`; 504 `client-timeout`.
    public func look(_ request: FileRequest, on client: ClientID) async throws(Problem) -> FileAnswer {
        try Self.validate(request)
        guard let link = clients.link(of: client) else {
            throw .conflict("client-offline", "client \(client) is not connected")
        }
        guard link.hasFiles else { throw Self.unsupported(client) }
        var milliseconds = Self.requestMilliseconds
        if case .hash = request {
            guard link.hasFileHashes else { throw Self.hashUnsupported(client) }
            milliseconds = Self.hashMilliseconds
        }
        let longest = milliseconds
        let answer: FileAnswer = await withCheckedContinuation { continuation in
            link.reach { $0.ask(request, milliseconds: longest, continuation) }
        }
        if let failure = answer.failure { throw Problem(failure) }
        if case .list(let path, let after, let limit) = request, let fault = Self.fault(of: answer, after: after, limit: limit) {
            throw Problem(
                502, "file-answer",
                "client \(client) lists \(path) as no directory is: \(fault); its agent is broken, or lies: reinstall it, or revoke the client")
        }
        return answer
    }

    /// A client that lies must not lead anybody elsewhere: others make paths and keys of these names, and read on after the last.
    static func fault(of answer: FileAnswer, after: String, limit: Int) -> String? {
        guard answer.entries.count <= limit else { return "\(answer.entries.count) entries, \(limit) were asked for" }
        guard !answer.hasMore || !answer.entries.isEmpty else { return "no entries, and more of them" }
        var last = after
        for entry in answer.entries {
            let name = entry.name
            if name.isEmpty || name == "." || name == ".." || name.utf8.contains(where: { $0 == 0 || $0 == UInt8(ascii: "/") }) {
                return "\"\(name.prefix(64))\" is no name"
            }
            guard last.utf8.lexicographicallyPrecedes(name.utf8) else {
                return "\"\(name.prefix(64))\" comes after \"\(last.prefix(64))\""
            }
            last = name
        }
        return nil
    }

    /// The same for who is not recorded by anybody else: the audit record `action` is on the disk before the client is asked.
    public func look(
        _ request: FileRequest, on client: ClientID, as action: String, by principal: Principal
    ) async throws(Problem) -> FileAnswer {
        try Self.validate(request)
        let (_, detail) = Self.audited(request)
        let audit = AuditRecord(principal: principal, action: action, clients: [client], detail: .object(detail))
        try await store.write { (transaction) throws(StoreError) in _ = try transaction.audit(audit) }
        return try await look(request, on: client)
    }

    /// Changes something in a client's file system. The audit record is on the disk before the client hears of it.
    public func change(_ request: FileRequest, on client: ClientID, by principal: Principal) async throws(Problem) {
        try Self.validate(request)
        let (action, detail) = Self.audited(request)
        let audit = AuditRecord(principal: principal, action: action, clients: [client], detail: .object(detail))
        try await store.write { (transaction) throws(StoreError) in _ = try transaction.audit(audit) }
        do throws(Problem) { _ = try await look(request, on: client) } catch {
            var failed = audit
            failed.outcome = .failed
            failed.reason = "\(error.code): \(error.detail)"
            let written = failed
            try await store.write { (transaction) throws(StoreError) in _ = try transaction.audit(written) }
            throw error
        }
    }

    private static func hashUnsupported(_ client: ClientID) -> Problem {
        .conflict("hash-unsupported", "the agent of client \(client) tells no hashes of files; install a newer one")
    }

    private static func validate(_ request: FileRequest) throws(Problem) {
        switch request {
        case .status(let path, _), .list(let path, _, _), .makeDirectory(let path, _, _), .remove(let path, _), .hash(let path, _):
            try FilePaths.validate(path, pointer: "/path")
        case .rename(let path, let target, _):
            try FilePaths.validate(path, pointer: "/path")
            try FilePaths.validate(target, pointer: "/target")
        }
    }

    private static func audited(_ request: FileRequest) -> (String, JSONObject) {
        switch request {
        case .status(let path, _): ("file.look", ["path": .string(path)])
        case .list(let path, _, _), .hash(let path, _): ("file.look", ["path": .string(path)])
        case .makeDirectory(let path, _, _): ("file.make-directory", ["path": .string(path)])
        case .rename(let path, let target, _): ("file.rename", ["path": .string(path), "target": .string(target)])
        case .remove(let path, let recursive): ("file.delete", ["path": .string(path), "recursive": .bool(recursive)])
        }
    }
}

extension FileEntry {
    /// As the API shows it.
    public var json: JSONObject {
        var object: JSONObject = [
            "name": .string(name), "kind": .string(kind.rawValue), "size": .integer(Int64(clamping: size)),
            "mode": .integer(Int64(mode)), "modified_ns": .integer(modified), "owner": .integer(Int64(owner)),
            "group": .integer(Int64(group)),
        ]
        if let target { object["target"] = .string(target) }
        return object
    }
}

extension Problem {
    /// What an agent says about files.
    init(_ failure: FileFailure) {
        let status =
            switch failure.code {
            case "path-not-found": 404
            case "path-denied", "path-not-allowed", "agent-policy": 403
            case "path-exists", "path-is-directory", "path-not-a-file", "directory-not-empty", "client-offline": 409
            case "disk-full": 507
            case "client-busy", "agent-busy": 503
            case "client-timeout": 504
            default: 422
            }
        self.init(status, failure.code, failure.message, retryAfter: status == 503 ? 5 : nil)
    }
}

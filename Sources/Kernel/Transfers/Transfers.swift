import AgentProtocol
import JSON
import Reactor
import Synchronization
import System

/// Files and trees between the managed store and clients. Functions may be called on any loop.
///
/// A transfer is written down, with its audit record and a hold on the file that it sends, before anything of it moves. It
/// goes on by itself after a lost link and a restart of agent or core, from what the far end has for good, until it is over,
/// cancelled or too late. A push of one file to many reads the one file of the store.
public final class Transfers: Sendable {
    public static let migrations = TransferRows.migrations
    /// Transfers that are not over.
    static let maximum = 100_000

    let store: Store
    let clients: Clients
    let security: Security
    let files: FileStore
    let events: Events
    let settings: Settings
    let rates = TransferRates()
    let report: @Sendable (Problem) -> Void

    struct State: Sendable {
        var live: [TransferID: LiveTransfer] = [:]
        /// Those that wait for a place, in their order, and those whose clients are away.
        var queue: [TransferID] = []
        var away: [ClientID: [TransferID]] = [:]
        /// Those that have a place, by client.
        var running: [ClientID: Set<TransferID>] = [:]
        var runningCount = 0
        var admitting = 0
        /// Ends that the database refused; the next tick tries them again.
        var unrecorded: [TransferID: Ending] = [:]
        var isStopped = false
        /// Where attempts begin that are asked for off every loop: that of the regular work, from `start` on.
        var home: EventLoop?
    }
    struct Ending: Sendable {
        var number: UInt32
        var attempt: Int
        var end: End
    }
    let state = Mutex(State())

    /// Reads what was under way when the core stopped; it goes on as its clients connect.
    static func open(
        store: Store, clients: Clients, security: Security, files: FileStore, events: Events, settings: Settings,
        report: @escaping @Sendable (Problem) -> Void
    ) async throws(Problem) -> Transfers {
        let transfers = Transfers(store, clients, security, files, events, settings, report)
        let known = try await store.read { (reader) throws(StoreError) in
            var query = TransferRows.select()
            query.and("finished_ms IS NULL")
            query.append(" ORDER BY id")
            return try TransferRows.all(query, reader)
        }
        transfers.state.withLock { state in
            for transfer in known {
                let live = LiveTransfer(transfer)
                _ = live.apply(.interrupted, now: 0)
                state.live[transfer.id] = live
                if live.transfer.state == .waiting { state.away[transfer.client, default: []].append(transfer.id) }
            }
        }
        transfers.applyRates()
        for setting in [Setting.transferRateKiB, .transferClientRateKiB] {
            settings.observe(setting) { [weak transfers] _ in transfers?.applyRates() }
        }
        return transfers
    }

    private init(
        _ store: Store, _ clients: Clients, _ security: Security, _ files: FileStore, _ events: Events,
        _ settings: Settings, _ report: @escaping @Sendable (Problem) -> Void
    ) {
        self.store = store
        self.clients = clients
        self.security = security
        self.files = files
        self.events = events
        self.settings = settings
        self.report = report
    }

    private func applyRates() {
        rates.set(
            TransferRates.Limits(
                server: UInt64(settings.integer(.transferRateKiB)) << 10,
                client: UInt64(settings.integer(.transferClientRateKiB)) << 10))
    }

    // MARK: Begin

    /// What became of a request.
    public struct Creation: Sendable {
        /// At least one; a repeated request's as they are now.
        public var transfers: [TransferView]
        /// False: a request with the same idempotency key has made them.
        public var isNew: Bool
    }

    /// Takes the transfers of a request, one for each client. When this returns they are on the disk.
    /// - Throws: 400, 403, 404 (also `file-unknown`), 409 `client-offline`, `file-unsupported` and `idempotency-key-reused`, 503
    ///   `too-many-transfers`.
    public func create(_ request: TransferRequest, by principal: Principal) async throws(Problem) -> Creation {
        try request.validate()
        // Before all else: the client may have left since, and the file.
        if let key = request.idempotencyKey {
            let known = try await store.read { (reader) throws(StoreError) in try TransferRows.known(key, of: principal, reader) }
            if !known.isEmpty { return repeated(known) }
        }
        let isPush = request.direction == .push
        let right: Right = isPush ? .fileWrite : .fileRead
        let targets = try await targets(of: request, right, principal)
        var source: StoredFile?
        if let file = request.file {
            let found = try await files.get(file, for: principal, .fileRead)
            guard found.isWhole else {
                throw .conflict("file-unfinished", "file \(file) is not whole yet: \(found.durable) bytes are there")
            }
            source = found
        }
        guard request.url == nil || isPush || targets.count == 1 else {
            throw .invalid("\(targets.count) clients would write to one URL; name one client", pointer: "/url")
        }
        let form = request.form ?? (source?.form == .tree ? .tree : .file)
        try reserve(targets.count)
        defer { state.withLock { $0.admitting -= targets.count } }
        let now = unixMilliseconds()
        var group: TransferID?
        let made = targets.map { client in
            let id = TransferID(milliseconds: now, random: (.random(in: .min ... .max), .random(in: .min ... .max)))
            group = group ?? id
            return Transfer(
                id: id, group: group ?? id, client: client, direction: request.direction, form: form, path: request.path,
                file: request.file, name: request.name ?? source?.name ?? request.defaultName, size: source?.size ?? request.url?.size,
                digest: source?.digest, mode: request.mode, modified: request.modified, replaces: request.replaces,
                makesParents: request.makesParents, links: request.links, rate: request.rate, ownerKind: principal.kind,
                owner: principal.id, createdAt: now, deadline: now + request.withinMilliseconds,
                far: request.url?.description)
        }
        if let known = try await record(made, request.idempotencyKey, principal) { return repeated(known) }
        killPoint("transfer.created")
        state.withLock { state in
            for transfer in made {
                state.live[transfer.id] = LiveTransfer(transfer, url: request.url)
                state.queue.append(transfer.id)
            }
        }
        for transfer in made { tell("transfer.created", transfer) }
        schedule()
        return Creation(transfers: made.map { TransferView(transfer: $0) }, isNew: true)
    }

    private func repeated(_ known: [Transfer]) -> Creation {
        let live = state.withLock { state in known.map { state.live[$0.id] } }
        return Creation(transfers: zip(known, live).map { $1?.view ?? TransferView(transfer: $0) }, isNew: false)
    }

    private func targets(
        of request: TransferRequest, _ right: Right, _ principal: Principal
    ) async throws(Problem) -> [ClientID] {
        let scope = try security.scope(of: principal, for: .createTransfers)
            .intersected(with: security.scope(of: principal, for: right))
        var ids: [ClientID]
        switch request.targets {
        case .selector(let selector):
            ids = try clients.select(selector, allowed: scope.allowed, denied: scope.denied)
            guard !ids.isEmpty else { throw .notFound("no client that you may use for this matches the selector") }
        case .clients(let list):
            let sorted = try clients.narrow(list, allowed: scope.allowed, denied: scope.denied)
            if let id = sorted.unknown.first { throw .notFound("there is no client \(id)") }
            if let id = sorted.refused.first {
                try await clients.recordRefusal(of: right, on: id, to: principal)
                throw .forbidden("no role of \(principal.id) grants \"\(Right.createTransfers)\" and \"\(right)\" on client \(id)")
            }
            ids = sorted.permitted
        }
        guard ids.count <= TransferRequest.maximumTargets else {
            throw .invalid("\(ids.count) clients; one request may have \(TransferRequest.maximumTargets)", pointer: "/selector")
        }
        for id in ids {
            guard let registered = clients.state(of: id), registered != .revoked else {
                throw .conflict("client-revoked", "client \(id) was revoked")
            }
            guard let link = clients.link(of: id) else {
                if request.offline == .fail { throw .conflict("client-offline", "client \(id) is not connected") }
                continue
            }
            guard link.hasFiles else { throw Self.unsupported(id) }
            guard request.url == nil || link.hasURLTransfers else { throw Self.urlUnsupported(id) }
        }
        return ids
    }

    static func unsupported(_ client: ClientID) -> Problem {
        .conflict("file-unsupported", "the agent of client \(client) moves no files; install a newer one")
    }

    static func urlUnsupported(_ client: ClientID) -> Problem {
        .conflict("url-unsupported", "the agent of client \(client) moves no files between its machine and a URL; install a newer one")
    }

    private func reserve(_ count: Int) throws(Problem) {
        let refusal = state.withLock { state -> Problem? in
            guard !state.isStopped else { return Problem(503, "stopping", "the core is stopping", retryAfter: 5) }
            guard state.live.count + state.admitting + count <= Self.maximum else {
                return Problem(
                    503, "too-many-transfers", "\(state.live.count) transfers are under way; \(Self.maximum) may be",
                    retryAfter: 60)
            }
            state.admitting += count
            return nil
        }
        if let refusal { throw refusal }
    }

    /// - Returns: those that the same request has made in the meantime; then nothing is written.
    private func record(
        _ made: [Transfer], _ key: IdempotencyKey?, _ principal: Principal
    ) async throws(Problem) -> [Transfer]? {
        guard let first = made.first else { return nil }
        var detail: JSONObject = [
            "direction": .string(first.direction.rawValue), "form": .string(first.form.rawValue), "path": .string(first.path),
        ]
        if let file = first.file { detail["file"] = .string("\(file)") }
        if let far = first.far { detail["url"] = .string(far) }
        if let size = first.size { detail["size"] = .integer(Int64(clamping: size)) }
        let audit = AuditRecord(
            principal: principal, action: "transfer.create", clients: made.map(\.client), target: "\(first.group)",
            detail: .object(detail))
        return try await store.write(bytes: 512 + 512 * made.count) { (transaction) throws(StoreError) in
            if let key {
                let known = try TransferRows.known(key, of: principal, transaction)
                if !known.isEmpty { return known }
            }
            for transfer in made {
                try TransferRows.insert(transfer, transfer.id == first.id ? key : nil, transaction)
                if transfer.direction == .push, let file = transfer.file {
                    try FileStore.hold(file, for: Self.holder(transfer.id), transaction)
                }
            }
            _ = try transaction.audit(audit)
            return nil
        }
    }

    static func holder(_ id: TransferID) -> String { "transfer \(id)" }

    // MARK: Reading

    /// - Throws: 404, also for one on a client that the principal may not see.
    public func get(_ id: TransferID, _ principal: Principal) async throws(Problem) -> TransferView {
        let view: TransferView?
        if let live = state.withLock({ $0.live[id] }) { view = live.view } else {
            view = try await store.read { (reader) throws(StoreError) in
                try TransferRows.load(id, reader).map { TransferView(transfer: $0) }
            }
        }
        guard let view, try isVisible(view.transfer, principal, .readTransfers) else {
            throw .notFound("there is no transfer \(id)")
        }
        return view
    }

    /// Newest first. With transfers that the principal may not see in between a page holds fewer.
    public func list(_ query: TransferQuery, _ principal: Principal) async throws(Problem) -> (items: [TransferView], next: TransferID?) {
        var rows = TransferRows.select()
        if let before = query.before { rows.and("id < ?", .bytes(before.bytes)) }
        if let client = query.client { rows.and("client = ?", .bytes(client.bytes)) }
        if let group = query.group { rows.and("group_id = ?", .bytes(group.bytes)) }
        switch query.state {
        case nil: break
        // Between these two a row may be behind.
        case .waiting, .running: rows.and("state IN ('waiting', 'running')")
        case .some(let state): rows.and("state = ?", .text(state.rawValue))
        }
        rows.append(" ORDER BY id DESC LIMIT ?", .integer(Int64(query.limit)))
        let select = rows
        let found = try await store.read { (reader) throws(StoreError) in try TransferRows.all(select, reader) }
        let live = state.withLock { state in found.map { state.live[$0.id] } }
        var items: [TransferView] = []
        for (transfer, live) in zip(found, live) where try isVisible(transfer, principal, .readTransfers) {
            let view = live?.view ?? TransferView(transfer: transfer)
            if query.state == nil || query.state == view.transfer.state { items.append(view) }
        }
        return (items, found.count == query.limit ? found.last?.id : nil)
    }

    private func isVisible(_ transfer: Transfer, _ principal: Principal, _ right: Right) throws(Problem) -> Bool {
        if transfer.isOwned(by: principal) || principal.kind == .system { return true }
        let scope = security.scope(of: principal, for: right)
        return try clients.permits(transfer.client, allowed: scope.allowed, denied: scope.denied)
    }

    /// The transfer, for somebody who may act on it. One that may be seen but not touched is a refusal, which is recorded.
    func authorize(_ id: TransferID, _ principal: Principal) async throws(Problem) -> LiveTransfer {
        _ = try await get(id, principal)
        guard let live = state.withLock({ $0.live[id] }) else {
            throw .conflict("transfer-over", "transfer \(id) is over")
        }
        if principal.kind == .system { return live }
        let scope = security.scope(of: principal, for: .cancelTransfers)
        guard try clients.permits(live.client, allowed: scope.allowed, denied: scope.denied) else {
            try await clients.recordRefusal(of: .cancelTransfers, on: live.client, to: principal)
            throw .forbidden("no role of \(principal.id) grants \"\(Right.cancelTransfers)\" on client \(live.client)")
        }
        return live
    }

    // MARK: Events

    func tell(_ kind: String, _ transfer: Transfer) {
        events.publish(Event(kind: kind, client: transfer.client) { ("\(transfer.id)", TransferView(transfer: transfer).json) })
    }

    func tellProgress(_ live: LiveTransfer) {
        events.publish(Event(kind: "transfer.progress", client: live.client) { ("\(live.id)", live.view.json) })
    }

    func stop() { state.withLock { $0.isStopped = true } }
}

/// A transfer as people see it: with its pace while it runs.
public struct TransferView: Sendable {
    public var transfer: Transfer
    public var pace: Pace?

    public init(transfer: Transfer, pace: Pace? = nil) {
        self.transfer = transfer
        self.pace = pace
    }
}

extension LiveTransfer {
    var view: TransferView {
        state.withLock { TransferView(transfer: $0.transfer, pace: $0.transfer.state == .running ? $0.pace : nil) }
    }
}

extension TransferView {
    public var json: JSONValue {
        let machine = transfer.machine
        var object: JSONObject = [
            "id": .string("\(transfer.id)"), "group": .string("\(transfer.group)"), "client": .string("\(transfer.client)"),
            "direction": .string(transfer.direction.rawValue), "form": .string(transfer.form.rawValue),
            "path": .string(transfer.path), "name": .string(transfer.name), "state": .string(machine.state.rawValue),
            "bytes": number(transfer.bytes), "durable": number(transfer.durable),
            "owner": ["kind": .string(transfer.ownerKind.rawValue), "id": .string(transfer.owner)],
            "created_ms": number(transfer.createdAt), "deadline_ms": number(transfer.deadline),
        ]
        if let file = transfer.file { object["file"] = .string("\(file)") }
        if let far = transfer.far { object["url"] = .string(far) }
        if let size = transfer.size { object["size"] = number(size) }
        if let digest = transfer.digest { object["sha256"] = .string(digest.hex) }
        if let mode = transfer.mode { object["mode"] = .integer(Int64(mode)) }
        if let modified = transfer.modified { object["modified_ns"] = .integer(modified) }
        if transfer.rate > 0 { object["rate_limit"] = number(transfer.rate) }
        if let time = machine.startedAt { object["started_ms"] = number(time) }
        if let time = machine.finishedAt { object["finished_ms"] = number(time) }
        if !machine.code.isEmpty {
            object["code"] = .string(machine.code)
            object["reason"] = .string(machine.reason)
        }
        if transfer.form == .tree {
            object["entries"] = number(transfer.entries)
            object["skipped"] = number(transfer.skipped)
        }
        if let pace {
            object["rate"] = number(UInt64(max(0, pace.bytesPerSecond)))
            if let left = pace.secondsLeft(to: transfer.size) { object["seconds_left"] = .number((left * 10).rounded() / 10) }
        }
        return .object(object)
    }

    private func number(_ value: UInt64) -> JSONValue { .integer(Int64(clamping: value)) }
}

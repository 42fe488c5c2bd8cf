import AgentProtocol
import Crypto
import JSON
import Reactor
import System

extension Transfers {
    /// How a transfer came to its end on its way.
    enum End: Sendable {
        /// The client has it in its place.
        case pushed(TransferResult)
        /// The store has it.
        case pulled(StoredFile)
        case failed(code: String, reason: String)

        init(_ problem: Problem) { self = .failed(code: problem.code, reason: problem.detail) }
    }

    /// What a transfer moves on the core's side.
    enum Source: Sendable {
        case push(FileReader)
        /// `nil`: its file is made when the client has said what it is.
        case pull(FileWriter?)
        /// Nothing: the bytes move between the client and a URL.
        case url
    }

    // MARK: Places

    /// Gives free places to transfers whose clients are connected, in their order. Any thread.
    func schedule() {
        guard let loop = EventLoop.current ?? state.withLock({ $0.home }) else { return }
        let (most, mostPerClient) = (settings.integer(.transfersAtOnce), settings.integer(.transfersPerClient))
        let chosen = state.withLock { state -> [(LiveTransfer, AgentLink)] in
            guard !state.isStopped else { return [] }
            var chosen: [(LiveTransfer, AgentLink)] = []
            var left: [TransferID] = []
            var index = 0
            while index < state.queue.count, state.runningCount < most {
                let id = state.queue[index]
                index += 1
                guard let live = state.live[id], live.transfer.state == .waiting else { continue }
                guard let link = clients.link(of: live.client) else {
                    state.away[live.client, default: []].append(id)
                    continue
                }
                let running = state.running[live.client] ?? []
                // An attempt before may still be putting its bytes away.
                guard running.count < mostPerClient, !running.contains(id) else {
                    left.append(id)
                    continue
                }
                state.running[live.client, default: []].insert(id)
                state.runningCount += 1
                chosen.append((live, link))
            }
            state.queue.replaceSubrange(..<index, with: left)
            return chosen
        }
        for (live, link) in chosen { loop.spawn { await self.begin(live, link) } }
    }

    private func begin(_ live: LiveTransfer, _ link: AgentLink) async {
        let now = unixMilliseconds()
        guard let started = live.apply(.started, now: now) else { return released(live) }
        let attempt = live.change { state in
            state.attempt += 1
            state.link = link
            state.pace.start(at: started.durable, now: monotonicNanoseconds())
            return state.attempt
        }
        do throws(Problem) {
            guard link.hasFiles else { throw Self.unsupported(live.client) }
            try await store.write { (transaction) throws(StoreError) in _ = try TransferRows.save(started, transaction) }
            killPoint("transfer.started")
            tell("transfer.started", started)
            if started.far != nil { return try beginDirect(started, live, attempt, link) }
            switch started.direction {
            case .push:
                guard let file = started.file else { throw .notFound("the transfer names no file") }
                let reader = try await files.open(file)
                let order = started.order(from: 0, limit: 0)
                link.reach { $0.openTransfer(live, attempt, order, .push(reader)) }
            case .pull:
                guard let writer = try await writer(of: started, live, attempt, link) else { return }
                let limit = UInt64(settings.integer(.fileSizeMiB)) << 20
                let order = started.order(from: writer.found?.durable ?? 0, limit: limit)
                link.reach { $0.openTransfer(live, attempt, order, .pull(writer.found)) }
            }
        } catch {
            // Busy is not the transfer's fault.
            if error.status == 503 || error.status == 429 {
                await EventLoop.current?.sleep(milliseconds: 500)
                return interrupted(live, attempt)
            }
            await finishUnopened(live, attempt, End(error), link)
        }
    }

    /// It has no channel on this link that could say that it ended; the client may keep something of an earlier one.
    private func finishUnopened(_ live: LiveTransfer, _ attempt: Int, _ end: End, _ link: AgentLink) async {
        if await finish(live, attempt, end) { link.reach { $0.forgetTransfer(live.id) } }
        released(live)
    }

    private func beginDirect(
        _ started: Transfer, _ live: LiveTransfer, _ attempt: Int, _ link: AgentLink
    ) throws(Problem) {
        guard let url = live.url else {
            throw Problem(409, "url-lost", "the core was started anew, and a URL is kept in memory only; ask again with a new one")
        }
        guard link.hasURLTransfers else { throw Self.urlUnsupported(live.client) }
        var order = started.order(from: 0, limit: UInt64(settings.integer(.fileSizeMiB)) << 20)
        order.url = url
        let sent = order
        link.reach { $0.openTransfer(live, attempt, sent, .url) }
    }

    /// The client has said how much there is between its file and the URL.
    func announced(_ live: LiveTransfer, _ attempt: Int, size: UInt64?) {
        live.change { state in
            if state.attempt == attempt, state.transfer.state == .running { state.transfer.size = size }
        }
    }

    private struct Found {
        var found: FileWriter?
    }

    /// Where a pull goes on; `nil`: it had come to its end already.
    private func writer(
        of transfer: Transfer, _ live: LiveTransfer, _ attempt: Int, _ link: AgentLink
    ) async throws(Problem) -> Found? {
        guard let file = transfer.file else { return Found() }
        do throws(Problem) { return Found(found: try await files.resume(file)) } catch {
            if error.code == "file-whole" {
                await finishUnopened(live, attempt, .pulled(try await files.get(file)), link)
                return nil
            }
            // It was removed, or lay too long: once more from the beginning.
            guard error.status == 404 else { throw error }
            live.change { $0.transfer.file = nil }
            return Found()
        }
    }

    /// A client has connected and said what it keeps. Returns what it may forget. On the link's loop.
    func linked(_ link: AgentLink, _ reported: [TransferID]) -> [TransferID] {
        let unknown = state.withLock { state in
            state.queue += state.away.removeValue(forKey: link.client) ?? []
            return reported.filter { state.live[$0]?.client != link.client }
        }
        schedule()
        return unknown
    }

    /// The attempt cannot go on now: it waits for its client again.
    func interrupted(_ live: LiveTransfer, _ attempt: Int) {
        let isOwn = live.change { state in
            guard state.attempt == attempt else { return false }
            state.link = nil
            return state.transfer.machine.apply(.interrupted, now: unixMilliseconds())
        }
        released(live, isWaiting: isOwn)
    }

    /// Nothing of the attempt is under way any more: its place is free.
    func released(_ live: LiveTransfer, isWaiting: Bool = false) {
        state.withLock { state in
            if state.running[live.client]?.remove(live.id) != nil {
                state.runningCount -= 1
                if state.running[live.client]?.isEmpty ?? false { state.running[live.client] = nil }
            }
            if isWaiting { state.queue.append(live.id) }
        }
        rates.forget(live.id, client: nil)
        schedule()
    }

    // MARK: On their way; on the link's loop

    /// Bytes have moved.
    func moved(_ live: LiveTransfer, to bytes: UInt64, durable: UInt64?) {
        if live.moved(to: bytes, durable: durable, now: monotonicNanoseconds()) { tellProgress(live) }
    }

    /// Whether so much more may go now.
    func mayMove(_ count: Int, _ live: LiveTransfer) -> Bool {
        rates.take(count, live.id, rate: live.rate, live.client, now: monotonicNanoseconds())
    }

    /// The client has said what a pull brings: makes its file.
    func makeFile(_ live: LiveTransfer, _ attempt: Int, _ ready: TransferReady) async throws(Problem) -> FileWriter {
        let transfer = live.transfer
        try await checkQuota(transfer.client, ready.size ?? 0)
        let owner = Principal(kind: transfer.ownerKind, id: transfer.owner)
        let writer = try await files.begin(
            NewFile(
                name: transfer.name, form: transfer.form == .tree ? .tree : .file, size: ready.size,
                source: Self.source(transfer.client)), by: owner)
        let changed = live.change { state -> Transfer? in
            guard state.attempt == attempt, state.transfer.state == .running else { return nil }
            state.transfer.file = writer.id
            state.transfer.size = ready.size
            state.transfer.mode = ready.mode
            state.transfer.modified = ready.modified
            return state.transfer
        }
        guard let changed else {
            try? await writer.discard(by: owner)
            throw Problem(409, "transfer-over", "the transfer was stopped")
        }
        try await store.write { (transaction) throws(StoreError) in _ = try TransferRows.save(changed, transaction) }
        killPoint("transfer.file.made")
        return writer
    }

    static func source(_ client: ClientID) -> String { "client \(client)" }

    private func checkQuota(_ client: ClientID, _ size: UInt64) async throws(Problem) {
        let quota = UInt64(settings.integer(.transferQuotaMiB)) << 20
        guard quota > 0 else { return }
        let source = Self.source(client)
        let used = try await store.read { (reader) throws(StoreError) in
            try reader.count("SELECT total(max(coalesce(size, 0), durable)) FROM files WHERE source = ?", source)
        }
        guard UInt64(clamping: used) + size <= quota else {
            throw Problem(
                507, "client-quota", "files of client \(client) take \(used) bytes of the store; with \(size) more it is beyond \(quota)")
        }
    }

    // MARK: Ends

    /// Records an end once. True when the client may forget it.
    func finish(_ live: LiveTransfer, _ attempt: Int, _ end: End, number: UInt32 = 0) async -> Bool {
        let now = unixMilliseconds()
        let ended = live.change { state -> Transfer? in
            guard state.attempt == attempt, state.transfer.machine.apply(.ending, now: now) else { return nil }
            var transfer = state.transfer
            switch end {
            case .pushed(let result):
                if let failure = result.failure {
                    _ = transfer.machine.apply(.failed(code: failure.code, reason: failure.message), now: now)
                } else {
                    transfer.bytes = result.bytes
                    transfer.durable = result.bytes
                    transfer.entries = result.entries
                    transfer.skipped = result.skipped
                    if let digest = result.digest {
                        transfer.digest = digest
                        transfer.size = result.bytes
                    }
                    _ = transfer.machine.apply(.succeeded, now: now)
                }
            case .pulled(let file):
                transfer.size = file.durable
                transfer.bytes = file.durable
                transfer.durable = file.durable
                transfer.digest = file.digest
                _ = transfer.machine.apply(.succeeded, now: now)
            case .failed(let code, let reason):
                _ = transfer.machine.apply(.failed(code: code, reason: reason), now: now)
            }
            return transfer
        }
        // Stopped meanwhile: whoever did that has recorded it.
        guard let ended else { return live.transfer.state.isFinal }
        do throws(Problem) { try await record(ended) } catch {
            report(error)
            state.withLock { $0.unrecorded[live.id] = Ending(number: number, attempt: attempt, end: end) }
            live.change { _ = $0.transfer.machine.apply(.interrupted, now: now) }
            live.change { _ = $0.transfer.machine.apply(.started, now: now) }
            return false
        }
        await settle(live, ended)
        return true
    }

    /// Writes an end, with its audit record and without its hold.
    func record(_ ended: Transfer, by principal: Principal? = nil) async throws(Problem) {
        let machine = ended.machine
        var detail: JSONObject = [
            "state": .string(machine.state.rawValue), "bytes": .integer(Int64(clamping: ended.bytes)),
            "path": .string(ended.path),
        ]
        if let far = ended.far { detail["url"] = .string(far) }
        var audit = AuditRecord(
            principal: principal ?? Principal(kind: .agent, id: "\(ended.client)"),
            action: principal == nil ? "transfer.end" : "transfer.cancel", clients: [ended.client], target: "\(ended.id)",
            detail: .object(detail))
        if machine.state == .failed {
            audit.outcome = .failed
            audit.reason = "\(machine.code): \(machine.reason)"
        }
        let written = audit
        killPoint("transfer.record.before")
        try await store.write(bytes: 768) { (transaction) throws(StoreError) in
            try FileStore.release(holder: Self.holder(ended.id), transaction)
            guard try TransferRows.save(ended, transaction) else { return }
            _ = try transaction.audit(written)
        }
        killPoint("transfer.record.after")
    }

    /// An end is on the disk: nothing of it is in memory any more, and nothing half made in the store.
    func settle(_ live: LiveTransfer, _ ended: Transfer) async {
        live.change { $0.transfer = ended }
        state.withLock { state in
            state.live[live.id] = nil
            state.unrecorded[live.id] = nil
        }
        tell("transfer.finished", ended)
        guard ended.direction == .pull, ended.state != .succeeded, let file = ended.file,
            let found = try? await files.get(file), !found.isWhole
        else { return }
        // One that stays is removed by the store when nobody has added to it for a day.
        try? await files.remove(file, by: Self.system)
    }

    static let system = Principal(kind: .system, id: "transfers")
}

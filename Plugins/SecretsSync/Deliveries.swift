import JSON
import PluginKit

/// Brings what is wanted to the clients and keeps the proof of what they have. On the plugin's own thread.
///
/// What is wanted is worked out from secrets, assignments and the fleet's labels (`reconcile`), and so needs no record; what
/// clients have shown is written down, one record per client, shortly after it was shown. A record that is lost costs one
/// more showing, which changes nothing on the client.
final class Deliveries {
    private let host: Host
    private let executor: Executor
    private let store: Store
    private let vault: Vault
    private let assignments: Assignments
    private let fleet: Fleet
    private let maximumFiles: Int
    private let news: News
    private let appliedTotal: Metric?
    private let failedTotal: Metric?

    private var clients: [String: ClientFiles] = [:]
    private var queue: [ClientFiles] = []
    private var queueHead = 0
    private var underway = 0
    private var dirty: Set<String> = []
    private var isTickDue = false
    /// Something changed since what is wanted was worked out last.
    private(set) var isStale = true
    private var notBefore: UInt64 = 0
    private var isQuiet = false
    private var isPumping = false

    /// Clients that are worked on at the same time.
    private static let concurrency = 64
    /// Changes that come together are looked at, and written, together.
    private static let tickMilliseconds: UInt64 = 50

    init(_ host: Host, _ settings: Settings, _ vault: Vault, _ assignments: Assignments, _ fleet: Fleet) throws(PluginError) {
        self.host = host
        executor = try host.executor()
        store = try host.store()
        self.vault = vault
        self.assignments = assignments
        self.fleet = fleet
        maximumFiles = settings.maximumFiles
        news = News(try host.events(), executor)
        let metrics = try? host.metrics()
        appliedTotal = try? metrics?.define(.counter, "secrets_applied", "Versions of secrets that clients have shown to hold.")
        failedTotal = try? metrics?.define(.counter, "secrets_failed", "Deliveries of secrets that failed; each is tried again.")
    }

    // MARK: Beginning and end

    func restore() throws(PluginError) {
        clients = [:]
        var broken: [String] = []
        try store.each(prefix: "client/") { (key, bytes) throws(PluginError) in
            let id = String(key.dropFirst("client/".count))
            if let record = try? JSONValue(parsing: bytes), let client = ClientFiles(id, record: record) { clients[id] = client } else { broken.append(key) }
        }
        // What they had is found out by showing it again.
        for key in broken { host.log.warning("secrets.record-unreadable", ["key": .string(key)]) }
    }

    func begin() throws(PluginError) {
        try executor.timer(after: 1_000, every: 1_000) { [self] in everySecond() }
        caughtUp()
    }

    /// Starts nothing new.
    func quiesce() {
        isQuiet = true
        while !dirty.isEmpty, flush() {}
    }

    func resume() {
        isQuiet = false
        caughtUp()
    }

    /// Nobody knows what was missed: everything is worked out again, and shown again.
    func caughtUp() {
        reconcileSoon()
        for client in clients.values { lookAgain(client) }
        pump()
    }

    // MARK: What happens

    func reconcileSoon() {
        isStale = true
        tickSoon()
    }

    /// A client is there (again): its memory may be empty.
    func cameOnline(_ id: String) {
        guard let client = clients[id] else { return }
        lookAgain(client)
        pump()
    }

    /// The registry has forgotten it: so does the book.
    func forget(_ id: String) {
        guard let client = clients[id] else { return }
        client.files = [:]
        note(client)
    }

    private func lookAgain(_ client: ClientFiles) {
        for key in client.files.keys { client.files[key]?.machine.refresh() }
        enqueue(client)
    }

    // MARK: What is wanted

    /// Compares what is wanted with what is known, for the whole fleet; each selector is asked once.
    private func reconcile() {
        var found: [String: [String]] = [:]
        var wishes: [String: [DeliveredFile.Key: (version: Int, assignment: Assignment)]] = [:]
        var count = 0
        var left = 0
        for assignment in assignments.all {
            guard let secret = vault.find(assignment.secret) else { continue }
            if found[assignment.selector] == nil {
                do throws(PluginError) {
                    found[assignment.selector] = try fleet.asserted(assignment.selector)
                } catch {
                    // Not "nobody": what is there stays until the question is answered.
                    host.log.error("secrets.select-failed", ["assignment": .string(assignment.id), "reason": .string(error.text)])
                    notBefore = executor.now + 2_000
                    return
                }
            }
            for slot in Slot.allCases {
                guard let version = secret.wanted(in: slot) else { continue }
                for client in found[assignment.selector] ?? [] {
                    guard count < maximumFiles else {
                        left += 1
                        continue
                    }
                    count += 1
                    wishes[client, default: [:]][DeliveredFile.Key(assignment: assignment.id, slot: slot)] = (version, assignment)
                }
            }
        }
        if left > 0 {
            host.log.error("secrets.too-many-files", ["left_out": .integer(Int64(left)), "limit": .integer(Int64(maximumFiles))])
        }
        let now = executor.now
        for id in Set(wishes.keys).union(clients.keys) { reconcile(id, wishes[id] ?? [:], now) }
        isStale = false
        pump()
    }

    private func reconcile(_ id: String, _ wishes: [DeliveredFile.Key: (version: Int, assignment: Assignment)], _ now: UInt64) {
        let client: ClientFiles
        if let known = clients[id] {
            client = known
        } else {
            client = ClientFiles(id)
            clients[id] = client
        }
        var isChanged = false
        for (key, wish) in wishes {
            if client.files[key] == nil {
                client.files[key] = DeliveredFile(
                    secret: wish.assignment.secret, name: wish.assignment.file + key.slot.suffix,
                    machine: DeliveryStateMachine(wanted: wish.version), updatedAt: now)
                isChanged = true
            } else if client.files[key]?.machine.want(wish.version) == true {
                client.files[key]?.updatedAt = now
                isChanged = true
            }
        }
        for key in client.files.keys where wishes[key] == nil {
            if client.files[key]?.machine.want(nil) == true {
                client.files[key]?.updatedAt = now
                isChanged = true
            }
        }
        if isChanged {
            note(client)
            enqueue(client)
        }
    }

    // MARK: Sending

    private func enqueue(_ client: ClientFiles) {
        guard !client.isQueued, !client.isUnderway, !client.files.isEmpty else { return }
        client.isQueued = true
        queue.append(client)
    }

    private func pump() {
        // An order that is refused at once ends up here again: the loop that runs already goes on with it.
        guard !isPumping else { return }
        isPumping = true
        defer { isPumping = false }
        while !isQuiet, underway < Self.concurrency, queueHead < queue.count {
            let client = queue[queueHead]
            queueHead += 1
            client.isQueued = false
            work(on: client)
        }
        if queueHead == queue.count {
            queue.removeAll(keepingCapacity: true)
            queueHead = 0
        } else if queueHead > 4_096 {
            queue.removeFirst(queueHead)
            queueHead = 0
        }
    }

    private func work(on client: ClientFiles) {
        guard !client.isUnderway, fleet.isOnline(client.id) else { return }
        let now = executor.now
        for key in client.inOrder {
            guard let file = client.files[key] else { continue }
            let holder = client.holder(of: file.name) { id in assignments.find(id).map { Int(clamping: $0.createdAt) } }
            if let holder, holder != key, file.machine.wanted != nil || client.files[holder]?.machine.isConfirmed == true {
                giveWay(client, key, to: holder, now)
                continue
            }
            guard let step = client.files[key]?.machine.next(now: now) else { continue }
            client.isUnderway = true
            underway += 1
            switch step {
            case .put(let version): put(client, key, version)
            case .remove: remove(client, key)
            }
            return
        }
        tidy(client)
    }

    /// Another assignment has the name: what is wanted here waits; what is to go is gone, because the other's file took its place.
    private func giveWay(_ client: ClientFiles, _ key: DeliveredFile.Key, to holder: DeliveredFile.Key, _ now: UInt64) {
        guard let file = client.files[key], !file.machine.isUnderway else { return }
        if file.machine.wanted == nil {
            client.files[key]?.machine.removed()
            settle(client, key)
        } else if file.machine.code != "file-taken" {
            client.files[key]?.machine.failed("file-taken", "the assignment \(holder.assignment) has a file of this name there", now: now)
            settle(client, key)
        }
    }

    private func put(_ client: ClientFiles, _ key: DeliveredFile.Key, _ version: Int) {
        guard let file = client.files[key], let assignment = assignments.find(key.assignment) else {
            return finish(client, key) { machine, now in machine.failed("assignment-gone", "the assignment is gone", now: now) }
        }
        let id = client.id
        do throws(PluginError) {
            let value = try vault.value(file.secret, version)
            let hash = try vault.sha256(value)
            let order = FileOrder(
                name: file.name, owner: assignment.owner, group: assignment.group, mode: assignment.mode,
                lifetimeSeconds: assignment.lifetimeSeconds, hook: key.slot == .current ? assignment.hook : [])
            try fleet.put(order, value, on: id) { [self] answer in
                let client = clients[id] ?? client
                if case .done(let shown?) = answer {
                    client.files[key]?.path = shown.path
                    if let lifetime = assignment.lifetimeSeconds { client.files[key]?.refreshAt = executor.now + UInt64(lifetime) * 500 }
                }
                finish(client, key) { machine, now in Self.answered(&machine, version, hash, answer, now) }
            }
        } catch {
            finish(client, key) { machine, now in machine.failed(error.code.isEmpty ? "delivery-failed" : error.code, error.text, now: now) }
        }
    }

    /// The client's own hash of what it holds is the proof; its word alone is not.
    private static func answered(_ machine: inout DeliveryStateMachine, _ version: Int, _ hash: String, _ answer: FileAnswer, _ now: UInt64) {
        switch answer {
        case .done(let shown?) where shown.sha256 == hash: machine.confirmed(version, hookFault: shown.hookFault, now: now)
        case .done: machine.failed("hash-differs", "the client shows another content than was sent", now: now)
        case .refused(let code, let text): machine.failed(code, text, now: now)
        case .lost: machine.lost(now: now)
        }
    }

    private func remove(_ client: ClientFiles, _ key: DeliveredFile.Key) {
        guard let file = client.files[key] else { return finish(client, key) { _, _ in } }
        let id = client.id
        do throws(PluginError) {
            try fleet.remove(file.name, on: id) { [self] answer in
                finish(clients[id] ?? client, key) { machine, now in
                    switch answer {
                    case .done: machine.removed()
                    case .refused(let code, let text): machine.failed(code, text, now: now)
                    case .lost: machine.lost(now: now)
                    }
                }
            }
        } catch {
            finish(client, key) { machine, now in machine.failed(error.code.isEmpty ? "delivery-failed" : error.code, error.text, now: now) }
        }
    }

    /// An order has been answered.
    private func finish(_ client: ClientFiles, _ key: DeliveredFile.Key, _ change: (inout DeliveryStateMachine, UInt64) -> Void) {
        client.isUnderway = false
        underway -= 1
        let before = client.files[key]?.machine
        if var machine = before {
            change(&machine, executor.now)
            client.files[key]?.machine = machine
            if machine != before { settle(client, key) }
        }
        // Not when the link is down: `cameOnline` goes on.
        if fleet.isOnline(client.id) { enqueue(client) }
        pump()
    }

    private func settle(_ client: ClientFiles, _ key: DeliveredFile.Key) {
        guard let file = client.files[key] else { return }
        client.files[key]?.updatedAt = executor.now
        switch file.machine.phase {
        case .applied where !file.machine.isDoubtful: appliedTotal?.add()
        case .failed: failedTotal?.add()
        default: break
        }
        news.tell(file, key, client.id)
        if file.machine.isOver { client.files[key] = nil }
        note(client)
    }

    private func tidy(_ client: ClientFiles) {
        if client.files.isEmpty { note(client) }
    }

    // MARK: Writing down, and time

    private func note(_ client: ClientFiles) {
        client.isDirty = true
        dirty.insert(client.id)
        tickSoon()
    }

    private func tickSoon() {
        guard !isTickDue else { return }
        do throws(PluginError) {
            try executor.timer(after: Self.tickMilliseconds) { [self] in tick() }
            isTickDue = true
        } catch {
            // The look of every second does it.
            host.log.warning("secrets.timer-failed", ["reason": .string(error.text)])
        }
    }

    private func tick() {
        isTickDue = false
        guard !isQuiet else { return }
        if isStale, executor.now >= notBefore { reconcile() }
        flush()
        news.send()
        if news.isWaiting || !dirty.isEmpty { tickSoon() }
    }

    /// Records of changed clients, some hundred in one transaction. - Returns: whether they are durable.
    @discardableResult
    private func flush() -> Bool {
        let batch = dirty.prefix(256)
        guard !batch.isEmpty else { return true }
        do throws(PluginError) {
            try store.transaction { (transaction) throws(PluginError) in
                for id in batch {
                    if let client = clients[id], !client.files.isEmpty {
                        try transaction.put("client/" + id, JSONValue.object(client.record).serialized())
                    } else {
                        try transaction.remove("client/" + id)
                    }
                }
            }
            for id in batch {
                clients[id]?.isDirty = false
                if let client = clients[id], client.files.isEmpty, !client.isUnderway { clients[id] = nil }
            }
            dirty.subtract(batch)
            return true
        } catch {
            host.log.error("secrets.write-failed", ["reason": .string(error.text)])
            return false
        }
    }

    private func everySecond() {
        guard !isQuiet else { return }
        let now = executor.now
        for client in clients.values {
            var isDue = false
            for (key, file) in client.files {
                if let at = file.refreshAt, at <= now {
                    client.files[key]?.refreshAt = nil
                    client.files[key]?.machine.refresh()
                    isDue = true
                } else if let at = file.machine.wakeAt, at <= now {
                    isDue = true
                }
            }
            if isDue { enqueue(client) }
        }
        pump()
        if isStale || !dirty.isEmpty || news.isWaiting { tickSoon() }
    }

    // MARK: What is known

    /// How one version stands in one place, over all clients that are to have it.
    func standing(_ secret: String, _ slot: Slot, _ version: Int) -> Standing {
        var standing = Standing()
        for client in clients.values {
            for (key, file) in client.files where key.slot == slot && file.secret == secret && file.machine.wanted == version {
                if file.machine.placed == version, file.machine.phase == .applied {
                    standing.applied += 1
                } else if file.machine.phase == .delivered || (file.machine.phase == .failed && file.machine.failures >= 3) {
                    standing.failed += 1
                } else if fleet.isOnline(client.id) {
                    standing.waiting += 1
                } else {
                    standing.offline += 1
                }
            }
        }
        return standing
    }

    /// Files of one secret, by client, after `cursor`.
    func shown(_ secret: String, after cursor: String, limit: Int, state: String?) -> (items: [JSONValue], next: String?) {
        var items: [JSONValue] = []
        let ids = clients.values.filter { client in client.id > cursor && client.files.values.contains { $0.secret == secret } }.map(\.id).sorted()
        for (index, id) in ids.enumerated() {
            for (key, file) in (clients[id]?.files ?? [:]).sorted(by: { ($0.key.assignment, $0.value.name) < ($1.key.assignment, $1.value.name) })
            where file.secret == secret && (state == nil || file.machine.phase.rawValue == state) {
                items.append(.object(shown(id, key, file)))
            }
            if items.count >= limit, index + 1 < ids.count { return (items, id) }
        }
        return (items, nil)
    }

    private func shown(_ id: String, _ key: DeliveredFile.Key, _ file: DeliveredFile) -> JSONObject {
        var shown: JSONObject = [
            "client": .string(id), "online": .bool(fleet.isOnline(id)), "assignment": .string(key.assignment), "slot": .string(key.slot.rawValue),
            "file": .string(file.name), "state": .string(file.machine.phase.rawValue), "updated_ms": .integer(Int64(clamping: file.updatedAt)),
        ]
        if !file.path.isEmpty { shown["path"] = .string(file.path) }
        if let wanted = file.machine.wanted { shown["wanted"] = .integer(Int64(wanted)) }
        if let placed = file.machine.placed {
            shown["placed"] = .integer(Int64(placed))
            shown["confirmed_ms"] = .integer(Int64(clamping: file.machine.confirmedAt))
        }
        if !file.machine.code.isEmpty {
            shown["code"] = .string(file.machine.code)
            shown["reason"] = .string(file.machine.reason)
            if file.machine.retryAt > 0 { shown["retry_ms"] = .integer(Int64(clamping: file.machine.retryAt)) }
        }
        return shown
    }

    /// Files that there are, or are to be, of all secrets.
    func countFiles() -> Int {
        if isStale { reconcile() }
        return clients.values.reduce(0) { $0 + $1.files.count }
    }
}

import JSON
import PluginKit
import Synchronization

/// The sessions of this version of the plugin. Records are durable: the programs live with the clients' agents, and outlive this
/// process and this version.
///
/// The table is looked at from the core's loops; all changes happen on the plugin's own thread.
final class Sessions: Sendable {
    private let host: Host
    let settings: Settings
    private let channels: Channels
    private let store: Store
    private let executor: Executor
    private let audit: Audit
    private let crypto: Crypto
    /// Set before the first session; used on the plugin's own thread.
    private let copies: Confined<RecordingCopies>?
    private let table = Mutex<[String: Session]>([:])

    static let desertedMilliseconds: UInt64 = 5_000

    init(_ host: Host, _ settings: Settings) throws(PluginError) {
        self.host = host
        self.settings = settings
        channels = try host.channels()
        store = try host.store()
        executor = try host.executor()
        audit = try host.audit()
        crypto = try host.crypto()
        copies = settings.recordingsRemote.isEmpty
            ? nil : Confined(try RecordingCopies(host, remote: settings.recordingsRemote), on: executor)
    }

    private static func key(_ id: String) -> String { "session/" + id }
    private func clock() -> @Sendable () -> UInt64 {
        let executor = executor
        return { executor.now }
    }

    var all: [Session] { table.withLock { Array($0.values) } }

    // MARK: On the plugin's own thread

    /// What earlier versions and processes left: sessions whose channels are there go on, the records of others end.
    func restore() throws(PluginError) {
        try copies?.value.start()
        let open = Set(try channels.list().compactMap { $0["id"]?.string })
        var after = ""
        while true {
            let page = try store.list(prefix: "session/", after: after)
            for key in page.items {
                let id = String(key.dropFirst("session/".count))
                guard table.withLock({ $0[id] }) == nil else { continue }
                if open.contains(id) { _ = try revive(id) } else { try forget(id) }
            }
            guard let next = page.next else { return }
            after = next
        }
    }

    /// A session by id; one that another version opened is found by its record.
    func find(_ id: String) throws(PluginError) -> Session? {
        if let session = table.withLock({ $0[id] }) { return session }
        return try revive(id)
    }

    private func revive(_ id: String) throws(PluginError) -> Session? {
        guard let bytes = try store.get(Self.key(id)), let json = try? JSONValue(parsing: bytes),
            let client = json["client"]?.string, let owner = json["owner"]?.string
        else { return nil }
        let shape = Session.Shape(
            id: id, client: client, owner: owner, program: json["program"]?.string ?? "",
            openedAt: UInt64(clamping: json["opened_ms"]?.integer ?? 0), rows: Int(json["rows"]?.integer ?? 24),
            columns: Int(json["columns"]?.integer ?? 80))
        var recorder: Recorder?
        if json["recorded"]?.bool == true {
            let written = try store.size("recordings/\(id).cast") ?? 0
            recorder = Recorder(
                session: shape, terminal: "", limit: settings.recordingBytes, recordsInput: settings.recordsInput, isNew: false,
                written: written, startedAt: shape.openedAt, now: clock())
        }
        let session = Session(shape, recorder: recorder) { [self] session in later { $0.finish(session) } }
        table.withLock { $0[id] = session }
        if recorder != nil { try attach(session, wanting: nil) }
        return session
    }

    private func later(_ work: @escaping @Sendable (Sessions) -> Void) {
        // Full only when thousands of things wait: the regular look finds what was missed.
        try? executor.post { [self] in work(self) }
    }

    struct Wish {
        var client: String
        var specification: JSONObject
        var isRecorded: Bool
        var rows: Int
        var columns: Int
        var terminal: String
    }

    /// Opens a terminal in the name of `request`'s principal. Returns when channel and record are durable.
    func open(_ wish: Wish, for request: Request) throws(PluginError) -> Session {
        let opening = Opening()
        let (channel, id) = try channels.open(wish.specification, as: .request(request)) { handler in
            configure(handler) { opening.session }
        }
        let program = wish.specification["argv"]?.array?.compactMap(\.string).joined(separator: " ") ?? "login shell"
        let shape = Session.Shape(
            id: id, client: wish.client, owner: request.actor, program: program, openedAt: executor.now, rows: wish.rows,
            columns: wish.columns)
        let recorder = wish.isRecorded
            ? Recorder(
                session: shape, terminal: wish.terminal, limit: settings.recordingBytes, recordsInput: settings.recordsInput,
                isNew: true, written: 0, startedAt: shape.openedAt, now: clock())
            : nil
        let session = Session(shape, recorder: recorder) { [self] session in later { $0.finish(session) } }
        session.hold(channel)
        do throws(PluginError) {
            try write(shape, isRecorded: wish.isRecorded)
        } catch {
            channel.close()
            throw error
        }
        table.withLock { $0[id] = session }
        opening.fill(session)
        return session
    }

    private func write(_ shape: Session.Shape, isRecorded: Bool) throws(PluginError) {
        let record: JSONObject = [
            "client": .string(shape.client), "owner": .string(shape.owner), "program": .string(shape.program),
            "opened_ms": .integer(Int64(clamping: shape.openedAt)), "rows": .integer(Int64(shape.rows)),
            "columns": .integer(Int64(shape.columns)), "recorded": .bool(isRecorded),
        ]
        try store.transaction { (transaction) throws(PluginError) in
            try transaction.put(Self.key(shape.id), JSONValue.object(record).serialized())
        }
    }

    /// Makes sure that the session reads its channel. `offset`: what a viewer wants where nothing is kept here.
    func attach(_ session: Session, wanting offset: UInt64?) throws(PluginError) {
        guard let from = session.beginAttach(wanting: offset) else { return }
        do throws(PluginError) {
            // The plugin in its own name: who may look was decided for each viewer.
            let channel = try channels.attach(session.id, from: from, isInline: true, as: .plugin) { handler in
                configure(handler) { session }
            }
            session.hold(channel)
        } catch {
            session.attachFailed()
            // Gone with its client, or ended while nobody looked.
            if error.status == .notFound { session.ended(["outcome": "lost", "code": "channel-gone"]) }
            throw error
        }
    }

    private func configure(_ handler: ChannelHandler, _ session: @escaping @Sendable () -> Session?) {
        handler.opened = { _, description in session()?.opened(at: UInt64(clamping: description["output"]?.integer ?? 0)) }
        handler.data = { _, offset, bytes in session()?.received(bytes, at: offset) }
        handler.writable = { _ in session()?.channelWritable() }
        handler.linked = { _, isUp in session()?.linked(isUp) }
        handler.ended = { _, result in session()?.ended(result) }
    }

    /// The program has ended: the record goes, the recording is sealed.
    private func finish(_ session: Session) {
        do throws(PluginError) {
            if let recorder = session.recorder { try seal(session, recorder) }
            try forget(session.id)
        } catch {
            host.log.error("session.finish-failed", ["session": .string(session.id), "reason": .string(error.text)])
        }
        // Viewers that lag still hold the session; nobody finds it any more.
        table.withLock { $0[session.id] = nil }
    }

    private func forget(_ id: String) throws(PluginError) {
        try store.transaction { (transaction) throws(PluginError) in try transaction.remove(Self.key(id)) }
    }

    // MARK: Recordings

    private func seal(_ session: Session, _ recorder: Recorder) throws(PluginError) {
        try flush(recorder)
        try store.sync(recorder.blob)
        let size = try store.size(recorder.blob) ?? 0
        var content: [UInt8] = []
        content.reserveCapacity(Int(size))
        while UInt64(content.count) < size {
            let piece = try store.read(recorder.blob, from: UInt64(content.count), limit: 1 << 20)
            if piece.isEmpty { break }
            content += piece
        }
        let hash = try crypto.sha256(content).map { byte in
            let text = String(byte, radix: 16)
            return text.utf8.count == 1 ? "0" + text : text
        }.joined()
        let shape = session.shape
        let record: JSONObject = [
            "id": .string(shape.id), "client": .string(shape.client), "owner": .string(shape.owner),
            "program": .string(shape.program), "started_ms": .integer(Int64(clamping: recorder.startedAt)),
            "ended_ms": .integer(Int64(clamping: executor.now)), "bytes": .integer(Int64(clamping: size)),
            "sha256": .string(hash), "truncated": .bool(recorder.isFull),
        ]
        // The hash stands in the audit trail: a recording that was changed afterwards shows.
        try audit.write(
            "terminal.recorded", clients: [shape.client], target: shape.id,
            detail: ["sha256": .string(hash), "bytes": .integer(Int64(clamping: size)), "owner": .string(shape.owner)])
        try store.transaction { (transaction) throws(PluginError) in
            try transaction.put("recording/" + shape.id, JSONValue.object(record).serialized())
            try copies?.value.add(shape.id, transaction)
        }
    }

    private func flush(_ recorder: Recorder) throws(PluginError) {
        let bytes = recorder.take()
        guard !bytes.isEmpty else { return }
        try store.append(recorder.blob, bytes)
        recorder.wrote(bytes.count)
    }

    func recording(_ id: String) throws(PluginError) -> JSONObject? {
        try store.get("recording/" + id).flatMap { try? JSONValue(parsing: $0).object }
    }

    /// Newest last; at most 1,000 after `after`.
    func recordings(after: String) throws(PluginError) -> (items: [JSONObject], next: String?) {
        let page = try store.list(prefix: "recording/", after: after)
        var items: [JSONObject] = []
        for key in page.items {
            if let item = try recording(String(key.dropFirst("recording/".count))) { items.append(item) }
        }
        return (items, page.next)
    }

    func removeRecording(_ id: String) throws(PluginError) {
        try store.removeBlob("recordings/\(id).cast")
        try store.transaction { (transaction) throws(PluginError) in try transaction.remove("recording/" + id) }
    }

    func read(_ id: String, from offset: UInt64) throws(PluginError) -> [UInt8] {
        try store.read("recordings/\(id).cast", from: offset, limit: 128 << 10)
    }

    // MARK: Regular work, on the plugin's own thread

    /// Every half second: recordings go to the disk, deserted sessions let go of their channels.
    func tick() {
        copies?.value.tick()
        let now = executor.now
        for session in all {
            if let recorder = session.recorder {
                do throws(PluginError) {
                    try flush(recorder)
                    session.recorderHasRoom()
                } catch {
                    host.log.warning("recording.failed", ["session": .string(session.id), "reason": .string(error.text)])
                }
            }
            if let channel = session.detachIfDeserted(now: now, after: Self.desertedMilliseconds) { channel.detach() }
        }
    }

    /// Once an hour: recordings that are older than the retention go.
    func sweep() {
        let oldest = executor.now - min(executor.now, settings.retentionDays * 86_400_000)
        do throws(PluginError) {
            var after = ""
            while true {
                let (items, next) = try recordings(after: after)
                for item in items {
                    guard let id = item["id"]?.string, let ended = item["ended_ms"]?.integer, UInt64(clamping: ended) < oldest else { continue }
                    try removeRecording(id)
                }
                guard let next else { return }
                after = next
            }
        } catch {
            host.log.warning("recording.sweep-failed", ["reason": .string(error.text)])
        }
    }

    /// The plugin stops: channels are let go of, programs run on.
    func letGo() {
        copies?.value.stop()
        for session in all {
            if let recorder = session.recorder { try? flush(recorder) }
            session.channel?.detach()
        }
    }
}

/// The session of a channel that is being opened: its first output may come before the session is made.
private final class Opening: Sendable {
    private let value = Mutex<Session?>(nil)
    var session: Session? { value.withLock { $0 } }
    func fill(_ session: Session) { value.withLock { $0 = session } }
}

import JSON
import PluginKit
import Synchronization

/// One terminal: a channel to the client, the newest output, and who looks at it.
///
/// Bytes go through on the core's loops: `received` on the client's link's, `message` on each viewer's. State stands behind a
/// lock that is never held while the core is called.
final class Session: Sendable {
    /// What of it never changes, or is shown.
    struct Shape: Sendable {
        let id: String
        let client: String
        let owner: String
        let program: String
        let openedAt: UInt64
        var rows: Int
        var columns: Int
    }

    private struct State {
        var shape: Shape
        var channel: Channel?
        /// An attach is under way on the plugin's thread.
        var isAttaching = false
        var isLinked = true
        var ring: OutputRing
        var granted: UInt64
        var viewers: [ObjectIdentifier: Viewer] = [:]
        /// Those that get output as it comes; made anew when it changes, so that the byte path only reads it.
        var caughtUp: [Viewer] = []
        var recorder: Recorder?
        /// The program's end; once it is there, no output follows.
        var result: JSONValue?
        var deserted: UInt64?
    }

    static let ringBytes = 1 << 20
    /// Output may come this far ahead of the fastest viewer.
    private static let window: UInt64 = 256 << 10
    private static let creditStep: UInt64 = 64 << 10
    private static let pieceBytes = 32 << 10
    private static let inputPiece = 16 << 10
    /// Where a viewer that fell out of the ring goes on.
    private static let jumpBytes: UInt64 = 64 << 10

    let id: String
    private let state: Mutex<State>
    /// Called once when the program has ended and nobody waits for output any more.
    private let over: @Sendable (Session) -> Void

    init(_ shape: Shape, recorder: Recorder?, over: @escaping @Sendable (Session) -> Void) {
        id = shape.id
        self.over = over
        state = Mutex(State(shape: shape, ring: OutputRing(capacity: Self.ringBytes), granted: Self.window, recorder: recorder))
    }

    var shape: Shape { state.withLock { $0.shape } }
    var isEnded: Bool { state.withLock { $0.result != nil } }
    var recorder: Recorder? { state.withLock { $0.recorder } }

    // MARK: The channel

    /// The channel is there, or in a moment. On the plugin's thread.
    func hold(_ channel: Channel) {
        state.withLock { state in
            state.channel = channel
            state.isAttaching = false
        }
    }

    /// Where output is to go on if the session must attach to its channel now; then `hold` or `attachFailed` must follow.
    func beginAttach(wanting offset: UInt64?) -> UInt64? {
        state.withLock { state in
            guard state.channel == nil, !state.isAttaching, state.result == nil else { return nil }
            state.isAttaching = true
            // A ring that holds nothing begins where the viewer wants it.
            if state.ring.start == state.ring.end, let offset { state.ring.restart(at: offset) }
            state.granted = state.ring.end + Self.window
            return state.ring.end
        }
    }

    func attachFailed() { state.withLock { $0.isAttaching = false } }

    /// Lets go of the channel when nobody has looked for a while: the program runs on, its output stays with the client.
    func detachIfDeserted(now: UInt64, after milliseconds: UInt64) -> Channel? {
        state.withLock { state in
            guard state.viewers.isEmpty, state.recorder == nil, state.result == nil else {
                state.deserted = nil
                return nil
            }
            let since = state.deserted ?? now
            state.deserted = since
            guard now >= since + milliseconds else { return nil }
            defer { state.channel = nil }
            return state.channel
        }
    }

    var channel: Channel? { state.withLock { $0.channel } }

    // MARK: From the client's link, on its loop

    /// Output begins, or goes on, at `output`.
    func opened(at output: UInt64) {
        let viewers = state.withLock { state in
            if output != state.ring.end { state.ring.restart(at: output) }
            state.granted = output + Self.window
            return Array(state.viewers.values)
        }
        for viewer in viewers { pump(viewer) }
    }

    func received(_ bytes: RawSpan, at offset: UInt64) {
        let (viewers, recorder) = state.withLock { state in
            state.ring.append(bytes, at: offset)
            return (state.caughtUp, state.recorder)
        }
        recorder?.output(bytes)
        for viewer in viewers {
            guard let socket = viewer.socket else { continue }
            switch socket.send(bytes) {
            case .taken: break
            case .gone: leave(viewer)
            case .busy:
                fallBehind(viewer, at: offset)
                pump(viewer)
            }
        }
        grant()
    }

    private func fallBehind(_ viewer: Viewer, at offset: UInt64) {
        state.withLock { state in
            guard viewer.isCaughtUp else { return }
            viewer.isCaughtUp = false
            viewer.position = offset
            state.caughtUp.removeAll { $0 === viewer }
        }
    }

    /// Credit follows the fastest: the slowest lag and jump, and when nobody can take more, the program waits.
    private func grant() {
        let due = state.withLock { state -> (Channel, UInt64)? in
            guard let channel = state.channel, state.recorder?.hasRoom ?? true else { return nil }
            let fastest = state.caughtUp.isEmpty && state.recorder == nil
                ? state.viewers.values.map(\.position).max() ?? state.ring.start : state.ring.end
            let wanted = fastest + Self.window
            guard wanted >= state.granted + Self.creditStep else { return nil }
            state.granted = wanted
            return (channel, wanted)
        }
        if let (channel, offset) = due { channel.grant(upTo: offset) }
    }

    /// The recorder has written what held it up.
    func recorderHasRoom() { grant() }

    func linked(_ isUp: Bool) {
        let viewers = state.withLock { state in
            state.isLinked = isUp
            return Array(state.viewers.values)
        }
        for viewer in viewers { _ = viewer.socket?.send(Notice.linked(isUp), .text) }
    }

    func channelWritable() {
        let waiting = state.withLock { state in state.viewers.values.filter { !$0.pendingInput.isEmpty } }
        for viewer in waiting { writePending(of: viewer) }
    }

    /// What waits, in pieces that fit, until there is no room. One at a time per viewer, so that keys keep their order.
    private func writePending(of viewer: Viewer) {
        let begins = state.withLock { _ in
            defer { viewer.isWriting = true }
            return !viewer.isWriting
        }
        guard begins else { return }
        while true {
            let (piece, channel) = state.withLock { state in
                let piece = Array(viewer.pendingInput.prefix(Self.inputPiece))
                if piece.isEmpty || state.channel == nil { viewer.isWriting = false }
                return (piece, state.channel)
            }
            guard let channel, !piece.isEmpty else { break }
            guard channel.write(piece) != .busy else {
                state.withLock { _ in viewer.isWriting = false }
                return
            }
            state.withLock { _ in viewer.pendingInput.removeFirst(piece.count) }
        }
        viewer.socket?.receive(true)
    }

    /// The end. "taken-over": by the next version of this plugin, which goes on with it.
    func ended(_ result: JSONValue) {
        let viewers: [Viewer]? = state.withLock { state in
            state.channel = nil
            if result["code"]?.string == "taken-over" { return nil }
            state.result = result
            // From here on everybody is served from the ring, at whose end the end is told.
            for viewer in state.caughtUp {
                viewer.isCaughtUp = false
                viewer.position = state.ring.end
            }
            state.caughtUp = []
            return Array(state.viewers.values)
        }
        guard let viewers else { return }
        for viewer in viewers { pump(viewer) }
        over(self)
    }

    // MARK: Viewers

    static let maximumViewers = 64

    /// False: too many.
    func join(_ viewer: Viewer, _ socket: WebSocket) -> Bool {
        let (isTaken, notice) = state.withLock { state -> (Bool, [UInt8]) in
            guard state.viewers.count < Self.maximumViewers else { return (false, []) }
            viewer.socket = socket
            state.deserted = nil
            state.viewers[ObjectIdentifier(viewer)] = viewer
            let first = state.ring.start == state.ring.end && state.channel == nil ? viewer.position : max(viewer.position, state.ring.start)
            return (true, Notice.attached(state.shape, offset: first, mode: viewer.mode))
        }
        guard isTaken else { return false }
        _ = socket.send(notice, .text)
        pump(viewer)
        return true
    }

    func leave(_ viewer: Viewer) {
        state.withLock { state in
            state.viewers[ObjectIdentifier(viewer)] = nil
            state.caughtUp.removeAll { $0 === viewer }
            viewer.isCaughtUp = false
        }
        grant()
    }

    func writable(_ viewer: Viewer) { pump(viewer) }

    private enum Piece {
        case bytes([UInt8])
        case notice([UInt8])
        case end([UInt8])
    }

    /// Sends a viewer what the ring has for it, until it is caught up or has no room. One at a time per viewer.
    private func pump(_ viewer: Viewer) {
        let begins = state.withLock { _ in
            if viewer.isPumping { viewer.pumpsAgain = true }
            defer { viewer.isPumping = true }
            return !viewer.isPumping
        }
        guard begins, let socket = viewer.socket else {
            if begins { state.withLock { _ in viewer.isPumping = false } }
            return
        }
        while true {
            let (piece, reached) = next(for: viewer)
            guard let piece else {
                if stopPumping(viewer) { break } else { continue }
            }
            let sent: Sent
            switch piece {
            case .bytes(let bytes): sent = socket.send(bytes)
            case .notice(let text), .end(let text): sent = socket.send(text, .text)
            }
            switch sent {
            case .taken:
                let isEnd = if case .end = piece { true } else { false }
                state.withLock { _ in
                    viewer.position = reached
                    if isEnd { viewer.isDone = true }
                }
                if isEnd { socket.close(1000, "the session has ended") }
            case .busy:
                if stopPumping(viewer) { return grant() }
            case .gone:
                state.withLock { _ in viewer.isPumping = false }
                return leave(viewer)
            }
        }
        grant()
    }

    /// False: somebody called meanwhile, so there may be more.
    private func stopPumping(_ viewer: Viewer) -> Bool {
        state.withLock { _ in
            guard !viewer.pumpsAgain else {
                viewer.pumpsAgain = false
                return false
            }
            viewer.isPumping = false
            return true
        }
    }

    /// What the viewer gets next, and where it is afterwards; `nil`: nothing, and it is caught up if it can be.
    private func next(for viewer: Viewer) -> (Piece?, UInt64) {
        state.withLock { state in
            guard state.viewers[ObjectIdentifier(viewer)] != nil, !viewer.isCaughtUp, !viewer.isDone else { return (nil, 0) }
            let ring = state.ring
            if viewer.position < ring.start {
                let target = ring.end - min(ring.end - ring.start, Self.jumpBytes)
                // Joining, it gets all that is kept; later it was too slow, and the newest matters.
                let goesOn = viewer.hasBegun ? target : ring.start
                return (.notice(Notice.gap(from: viewer.position, to: goesOn)), goesOn)
            }
            if viewer.position < ring.end {
                viewer.hasBegun = true
                let bytes = ring.copy(from: viewer.position, limit: Self.pieceBytes)
                return (.bytes(bytes), viewer.position + UInt64(bytes.count))
            }
            if let result = state.result { return (.end(Notice.ended(result)), viewer.position) }
            // Ahead of the ring: an attach that has not begun to flow.
            guard viewer.position == ring.end, state.channel != nil || state.isAttaching else { return (nil, 0) }
            viewer.isCaughtUp = true
            state.caughtUp.append(viewer)
            return (nil, 0)
        }
    }

    /// Keystrokes, or a text. On the viewer's loop.
    func message(_ viewer: Viewer, _ kind: WebSocket.Kind, _ payload: RawSpan) {
        guard viewer.mode == .typist else { return }
        let channel = state.withLock { $0.channel }
        guard kind == .binary else { return control(viewer, payload, channel) }
        guard let channel else { return }
        let mustWait = state.withLock { _ in !viewer.pendingInput.isEmpty }
        if mustWait || channel.write(payload) == .busy {
            viewer.socket?.receive(false)
            state.withLock { _ in viewer.pendingInput += [UInt8](payload) }
            // It may have become writable in between.
            writePending(of: viewer)
        }
        state.withLock { $0.recorder }?.input(payload)
    }

    private func control(_ viewer: Viewer, _ payload: RawSpan, _ channel: Channel?) {
        guard case .resize(let rows, let columns) = Control(payload) else {
            viewer.socket?.close(1008, "a text must be {\"type\": \"resize\", \"rows\": …, \"columns\": …}")
            return
        }
        channel?.resize(rows: UInt32(rows), columns: UInt32(columns))
        let (others, recorder) = state.withLock { state in
            state.shape.rows = rows
            state.shape.columns = columns
            return (state.viewers.values.filter { $0 !== viewer }, state.recorder)
        }
        recorder?.resize(rows: rows, columns: columns)
        for other in others { _ = other.socket?.send(Notice.resized(rows: rows, columns: columns), .text) }
    }

    /// Ends the program.
    func close() { channel?.close() }

    var json: JSONValue {
        state.withLock { state in
            let viewers = state.viewers.values.map { viewer -> JSONValue in
                ["actor": .string(viewer.actor), "mode": .string(viewer.mode.rawValue)]
            }
            var object: JSONObject = [
                "id": .string(state.shape.id), "client": .string(state.shape.client), "owner": .string(state.shape.owner),
                "program": .string(state.shape.program), "opened_ms": .integer(Int64(clamping: state.shape.openedAt)),
                "rows": .integer(Int64(state.shape.rows)), "columns": .integer(Int64(state.shape.columns)),
                "viewers": .array(viewers), "recorded": .bool(state.recorder != nil),
                "state": .string(state.result != nil ? "ended" : state.isLinked ? "open" : "away"),
            ]
            if let result = state.result { object["result"] = result }
            return .object(object)
        }
    }
}

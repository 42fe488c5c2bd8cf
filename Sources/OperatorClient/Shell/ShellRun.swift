import JSON
import Reactor

/// One person in one terminal: keystrokes there, output here, and back again after a lost connection, from the next byte.
final class ShellRun {
    private let session: Session
    private let core: Core
    private let id: String
    private let isViewer: Bool
    private let console: any Console
    private var state = ShellStateMachine()
    private var socket: (any APISocket)?
    private var size: (rows: Int, columns: Int)?
    /// Typed while there was no connection.
    private var waiting: [UInt8] = []
    static let waitingBytes = 64 << 10

    init(_ session: Session, core: Core, terminal id: String, isViewer: Bool) {
        self.session = session
        self.core = core
        self.id = id
        self.isViewer = isViewer
        console = session.console
    }

    func run() async throws(OperatorError) -> Outcome {
        guard let keyboard = console.keyboard({ [self] bytes in typed(bytes) }) else {
            throw .usage("a terminal is needed to type in", advice: "For a single command use 'cmctl exec'.")
        }
        defer { keyboard.restore() }
        var failures = 0
        while state.end == nil, !state.isDetached {
            do throws(OperatorError) {
                try await attach()
                failures = 0
            } catch {
                guard error.status == .unreachable, failures < 60 else { throw error }
                failures += 1
            }
            guard state.end == nil, !state.isDetached else { break }
            await session.pause(min(UInt64(200) << UInt64(min(failures, 4)), 2_000))
        }
        keyboard.restore()
        return conclude()
    }

    /// Until this connection ends.
    private func attach() async throws(OperatorError) {
        var request = APIRequest("GET", "/api/v1/terminal/sessions/\(id)/attach")
        request.query = [(name: "mode", value: isViewer ? "viewer" : "typist")]
        if let offset = state.offset { request.query.append((name: "offset", value: String(offset))) }
        let socket = try await core.transport.webSocket(request) { [self] message in
            switch message {
            case .binary(let bytes): perform(state.output(bytes))
            case .text(let bytes): perform(state.notice(bytes))
            }
        }
        self.socket = socket
        defer { self.socket = nil }
        if !waiting.isEmpty {
            socket.send(waiting)
            waiting = []
        }
        while !socket.isClosed {
            tellSize()
            if state.isDetached || state.end != nil { socket.close() }
            await socket.wait(milliseconds: 250)
        }
    }

    private func perform(_ actions: [ShellStateMachine.Action]) {
        for action in actions {
            switch action {
            case .print(let bytes): console.write(bytes, toError: false)
            case .say(let text): console.write(Array("\r\n[\(text)]\r\n".utf8), toError: true)
            case .tellSize:
                size = nil
                tellSize()
            }
        }
        if state.end != nil { socket?.wake() }
    }

    private func typed(_ bytes: [UInt8]) {
        let keys = state.typed(bytes)
        if state.isDetached { socket?.wake() }
        guard !keys.isEmpty, !isViewer else { return }
        if let socket {
            socket.send(keys)
        } else if waiting.count + keys.count <= Self.waitingBytes {
            waiting += keys
        }
    }

    private func tellSize() {
        let now = console.windowSize
        guard !isViewer, size?.rows != now.rows || size?.columns != now.columns else { return }
        size = now
        let text: JSONValue = ["type": "resize", "rows": .integer(Int64(now.rows)), "columns": .integer(Int64(now.columns))]
        socket?.send(text: text.serialized())
    }

    private func conclude() -> Outcome {
        guard case .exited(let status, let why) = state.end else {
            console.complain("\r\nDetached. 'cmctl shell attach \(id)' goes on.")
            return .success
        }
        if let why { console.complain(why) }
        return status == 0 ? .success : .remoteFailure
    }
}

import Kernel
import Reactor
import Transport

/// The loop's side of an operator's WebSocket.
final class SocketBridge: WebSocketDelegate {
    /// Above the handle's high mark there is room for the message that crossed it and for control frames; a peer that lets
    /// more pile up is gone.
    private static let outputBound = 4 << 20
    private static let keptCapacity = 64 << 10

    let socket: WebSocketConnection
    private let handle: OperatorSocket
    private let service: WebService
    private let number: UInt64
    /// Ends the socket with the credential; dropped at the end.
    private var watch: AnyObject?
    private(set) var lastHeard: UInt64
    private var isReading = true

    /// What other threads sent, on its way into the connection; swapped with the handle's buffers.
    var outgoing: [UInt8] = []
    var frames: [OperatorSocket.Frame] = []

    /// Upgrades the exchange; every refusal ends the handle, too.
    static func open(
        _ handle: OperatorSocket, _ exchange: HTTPExchange, _ admission: Pipeline.Admission, _ limits: WebSocketLimits,
        _ service: WebService
    ) {
        let placed = admission.matched.placed
        do throws(Problem) {
            let number = try service.pipeline.table.register(handle, placed)
            do throws(HTTPRefusal) {
                let socket = try exchange.upgrade(
                    subprotocol: limits.subprotocols.first { WebSocketHandshake.offered($0, by: exchange.head) },
                    maximumMessage: limits.maximumMessage, headers: ["x-correlation-id": admission.matched.correlation])
                service.pipeline.observed(admission, status: 101)
                SocketBridge(socket, handle, number, service).start(admission.request.principal)
            } catch {
                service.pipeline.table.unregister(number)
                throw Problem(error.status, "websocket-required", error.message)
            }
        } catch {
            let response = service.pipeline.complete(
                error.response(correlation: admission.matched.correlation), admission, exchange.head)
            if case .bytes(let bytes) = response.body { exchange.respond(response.status, response.headers, body: bytes) }
            handle.ended(1006, error.detail)
        }
    }

    private init(_ socket: WebSocketConnection, _ handle: OperatorSocket, _ number: UInt64, _ service: WebService) {
        self.socket = socket
        self.handle = handle
        self.number = number
        self.service = service
        lastHeard = service.loop.now
    }

    private func start(_ principal: Principal) {
        socket.delegate = self
        socket.setOutputBound(SocketBridge.outputBound)
        socket.markAuthenticated()
        service.sockets.add(self)
        handle.opened(Confined(self, on: service.loop))
        watch = service.pipeline.watch(principal) { [weak handle] in
            handle?.close(1008, "the credential no longer holds")
        }
        if watch == nil { handle.close(1008, "the credential no longer holds") }
    }

    func sendOutgoing() {
        guard !frames.isEmpty else { return }
        var offset = 0
        for frame in frames {
            socket.send(outgoing.span.bytes.extracting(offset..<(offset + frame.count)), isText: frame.isText)
            offset += frame.count
        }
        frames.removeAll(keepingCapacity: true)
        if outgoing.capacity > SocketBridge.keptCapacity { outgoing = [] } else { outgoing.removeAll(keepingCapacity: true) }
    }

    func setReading(_ isOn: Bool) {
        guard isOn != isReading else { return }
        isReading = isOn
        if isOn { socket.resumeReading() } else { socket.pauseReading() }
    }

    /// Looks after a silent peer; called by the loop's clock.
    func checkTime(_ now: UInt64, _ times: WebSocketTimes) {
        // A peer that may not speak, because nobody takes its messages, is not silent by its own will.
        guard isReading else {
            lastHeard = now
            return
        }
        let silent = (now &- lastHeard) / 1_000_000
        if silent >= times.deadMilliseconds { return socket.abort() }
        if silent >= times.pingMilliseconds {
            let nothing: [UInt8] = []
            socket.ping(nothing.span.bytes)
        }
    }

    // MARK: WebSocket

    func webSocket(_ socket: WebSocketConnection, received message: RawSpan, isText: Bool) {
        lastHeard = service.loop.now
        handle.receiver.message(message, isText: isText)
    }

    func webSocket(_ socket: WebSocketConnection, pong payload: RawSpan) {
        lastHeard = service.loop.now
        handle.receiver.pong(payload)
    }

    func webSocketDrained(_ socket: WebSocketConnection) {
        if handle.hasRoom(isFull: false) { handle.receiver.drained() }
    }

    func webSocketClosed(_ socket: WebSocketConnection, _ code: WebSocketCloseCode, _ reason: String) {
        watch = nil
        service.sockets.remove(self)
        service.pipeline.table.unregister(number)
        handle.ended(code.rawValue, reason)
    }
}

/// When a silent operator is asked, and when given up.
public struct WebSocketTimes: Sendable {
    public var pingMilliseconds: UInt64 = 20_000
    public var deadMilliseconds: UInt64 = 60_000
    public init() {}
}

/// The open WebSockets of one loop, and the clock that looks after them.
final class SocketClock {
    private let loop: EventLoop
    private let times: WebSocketTimes
    private var open: [ObjectIdentifier: SocketBridge] = [:]
    private var timer: Timer?

    init(_ loop: EventLoop, _ times: WebSocketTimes) {
        self.loop = loop
        self.times = times
    }

    func add(_ bridge: SocketBridge) {
        open[ObjectIdentifier(bridge)] = bridge
        if timer == nil {
            let timer = Timer { [weak self] in self?.tick() }
            self.timer = timer
            schedule(timer)
        }
    }

    func remove(_ bridge: SocketBridge) { open[ObjectIdentifier(bridge)] = nil }

    private func schedule(_ timer: Timer) { loop.schedule(timer, afterMilliseconds: max(times.pingMilliseconds / 4, 1)) }

    private func tick() {
        let now = loop.now
        for bridge in Array(open.values) { bridge.checkTime(now, times) }
        if open.isEmpty { timer = nil } else if let timer { schedule(timer) }
    }
}

import AgentProtocol
import Crypto
import Reactor
import Transport

/// Whether the other side is still there: the connection's one timer, its heartbeats, and the challenge to an older link.
extension AgentConnection {
    /// A link is half-open when this many heartbeats in a row went unanswered.
    private static var missedBeats: UInt64 { 2 }
    private static var ticketNanoseconds: UInt64 { 86_400 * 1_000_000_000 }

    struct Liveness {
        let nonce: [UInt8]
        let answer: CheckedContinuation<Bool, Never>
        let timer: Timer
    }

    /// Spread over the interval the first time, then within the jitter of it, so that beats of many links never align.
    func beatLater(first: Bool) {
        guard let timer else { return }
        let interval = heartbeatSeconds * 1_000
        let random = Random.uint64()
        home.loop.schedule(
            timer,
            afterMilliseconds: first
                ? random % interval + 1 : Self.beatDelay(interval, jitterPercent: UInt64(jitterPercent), random: random))
    }

    static func beatDelay(_ interval: UInt64, jitterPercent: UInt64, random: UInt64) -> UInt64 {
        let reach = interval * min(jitterPercent, 50) / 100
        return interval - reach + random % (2 * reach + 1)
    }

    func timerFired() {
        switch phase {
        case .handshake: refuse("handshake-timeout", "the handshake took more than 10 seconds")
        case .deciding: refuse("unavailable", "the core cannot decide now; try again")
        case .pending, .active:
            let now = home.loop.now
            guard now &- heardAt <= (Self.missedBeats * heartbeatSeconds + heartbeatSeconds / 2) * 1_000_000_000 else {
                return end(LinkEnd(code: "timeout", detail: "no answer to \(Self.missedBeats) heartbeats"), tellAgent: true)
            }
            if phase == .active {
                if now &- ticketAt > Self.ticketNanoseconds { issueTicket() }
                beatSentAt = now
                write { $0.frame(.beat, offset: now) }
            } else {
                // A pending agent has no rights; a WebSocket ping keeps the path open and shows that it is there.
                socket.ping([UInt8]().span.bytes)
            }
            beatLater(first: false)
        case .closed: break
        }
    }

    func beatAnswered(_ link: AgentLink, _ header: FrameHeader, _ payload: borrowing RawSpan) throws(WireError) {
        let answer = try BeatAnswer(reading: payload)
        guard beatSentAt != 0, header.offset == beatSentAt else { return }
        let roundTrip = (home.loop.now &- beatSentAt) / 1_000
        beatSentAt = 0
        endpoint.authority.heartbeat(
            link.client,
            Beat(
                roundTripMicroseconds: UInt32(clamping: roundTrip), loadHundredths: answer.loadHundredths,
                memoryAvailableKiB: answer.memoryAvailableKiB, memoryTotalKiB: answer.memoryTotalKiB))
    }

    func webSocket(_ socket: WebSocketConnection, pong payload: RawSpan) { heardAt = home.loop.now }

    /// An agent that comes back with a ticket costs both sides no certificate and one signature less. It gets a fresh one
    /// each day, so that a link of months has one that is good.
    func issueTicket() {
        ticketAt = home.loop.now
        socket.issueTicket()
    }

    // MARK: A challenge

    func checkLiveness(milliseconds: UInt64, _ answer: CheckedContinuation<Bool, Never>) {
        guard phase == .active, liveness == nil else { return answer.resume(returning: false) }
        let nonce = Random.bytes(LivenessCheck.nonceBytes)
        let timer = Timer { [unowned self] in livenessEnded(false) }
        liveness = Liveness(nonce: nonce, answer: answer, timer: timer)
        home.loop.schedule(timer, afterMilliseconds: milliseconds)
        write { $0.frame(.liveness, payload: nonce) }
    }

    func livenessAnswered(_ payload: borrowing RawSpan) {
        guard let liveness, let link else { return }
        // Invariant: the array copies before the closure ends.
        let signature = unsafe payload.withUnsafeBytes { unsafe [UInt8]($0) }
        livenessEnded(
            LivenessCheck.isValid(
                signature: signature, nonce: liveness.nonce, client: link.client, epoch: link.epoch, key: agentKey))
    }

    func livenessEnded(_ isAlive: Bool) {
        guard let liveness else { return }
        self.liveness = nil
        home.loop.cancel(liveness.timer)
        liveness.answer.resume(returning: isAlive)
    }
}

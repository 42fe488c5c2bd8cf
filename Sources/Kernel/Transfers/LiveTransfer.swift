import AgentProtocol
import JSON
import Synchronization

/// A transfer that is not over, in memory. Its row says the same whenever it changes its state; how far it is stands here
/// alone, because the far end knows that for good. Thread-safe.
final class LiveTransfer: Sendable {
    struct State: Sendable {
        var transfer: Transfer
        /// The link that it runs over.
        var link: AgentLink?
        /// Counts attempts: what an old one has to say changes nothing.
        var attempt = 0
        var pace = Pace()
        var toldAt: UInt64 = 0
    }

    let id: TransferID
    let client: ClientID
    let rate: UInt64
    /// The far end in place of the store. A secret that is in memory only, and goes with this object.
    let url: TransferURL?
    let state: Mutex<State>

    init(_ transfer: Transfer, url: TransferURL? = nil) {
        self.url = url
        id = transfer.id
        client = transfer.client
        rate = transfer.rate
        state = Mutex(State(transfer: transfer))
    }

    var transfer: Transfer { state.withLock { $0.transfer } }
    var pace: Pace { state.withLock { $0.pace } }

    /// Applies an event. `nil`: it cannot happen now; else the transfer afterwards, to be written down.
    func apply(_ event: TransferStateMachine.Event, now: UInt64) -> Transfer? {
        state.withLock { state in
            guard state.transfer.machine.apply(event, now: now) else { return nil }
            return state.transfer
        }
    }

    /// This attempt is still wanted: nobody has stopped it since it got its place.
    func isWanted(_ attempt: Int) -> Bool {
        state.withLock { $0.attempt == attempt && $0.link != nil && $0.transfer.state == .running }
    }

    func change<Result: Sendable>(_ body: (inout State) -> Result) -> Result { state.withLock { body(&$0) } }

    /// Bytes have moved; true when it is time to tell of it. Monotonic nanoseconds.
    func moved(to bytes: UInt64, durable: UInt64?, now: UInt64) -> Bool {
        state.withLock { state in
            state.transfer.bytes = bytes
            if let durable { state.transfer.durable = durable }
            state.pace.moved(to: bytes, now: now)
            guard now &- state.toldAt >= 1_000_000_000 else { return false }
            state.toldAt = now
            return true
        }
    }
}

/// How fast bytes move: a mean in which a second ago counts a third.
public struct Pace: Sendable, Equatable {
    public private(set) var bytesPerSecond = 0.0
    private var at: UInt64 = 0
    private var bytes: UInt64 = 0

    init() {}

    mutating func start(at bytes: UInt64, now: UInt64) {
        self = Pace()
        self.bytes = bytes
        at = now
    }

    mutating func moved(to bytes: UInt64, now: UInt64) {
        guard at != 0, bytes >= self.bytes else { return start(at: bytes, now: now) }
        let seconds = Double(now &- at) / 1e9
        // Shorter steps say nothing about a disk or a network.
        guard seconds >= 0.2 else { return }
        let rate = Double(bytes - self.bytes) / seconds
        let share = bytesPerSecond == 0 ? 1 : min(1, seconds)
        bytesPerSecond += (rate - bytesPerSecond) * share
        self.bytes = bytes
        at = now
    }

    /// Seconds until `total`; `nil` when nothing moves.
    func secondsLeft(to total: UInt64?) -> Double? {
        guard let total, bytesPerSecond >= 1, total >= bytes else { return nil }
        return Double(total - bytes) / bytesPerSecond
    }
}

import AgentProtocol
import Synchronization

/// How much may go now, by the limits of one transfer, of its client and of the whole server. A bucket may be overdrawn by
/// one piece, so that a limit below a piece's size still lets pieces through, only seldom. Thread-safe.
final class TransferRates: Sendable {
    struct Limits: Sendable, Equatable {
        /// Bytes per second; 0: none.
        var server: UInt64 = 0
        var client: UInt64 = 0
    }

    struct Bucket {
        private(set) var level: Double
        private var filledAt: UInt64

        init(_ rate: UInt64, now: UInt64) {
            level = Double(rate) / 10
            filledAt = now
        }

        /// A tenth of a second's worth is kept at most.
        mutating func fill(_ rate: UInt64, now: UInt64) {
            level = min(Double(rate) / 10, level + Double(rate) * Double(now &- filledAt) / 1e9)
            filledAt = now
        }

        mutating func take(_ count: Int) { level -= Double(count) }
    }

    private struct State {
        var limits = Limits()
        var server: Bucket?
        var clients: [ClientID: Bucket] = [:]
        var transfers: [TransferID: Bucket] = [:]
    }
    private let state = Mutex(State())

    var limits: Limits { state.withLock { $0.limits } }

    func set(_ limits: Limits) {
        state.withLock { state in
            guard state.limits != limits else { return }
            state.limits = limits
            state.server = nil
            state.clients = [:]
        }
    }

    /// False: nothing may go now. `now` is monotonic nanoseconds.
    func take(_ count: Int, _ transfer: TransferID, rate: UInt64, _ client: ClientID, now: UInt64) -> Bool {
        state.withLock { state in
            let limits = state.limits
            if rate == 0, limits.client == 0, limits.server == 0 { return true }
            var own = rate == 0 ? nil : state.transfers[transfer] ?? Bucket(rate, now: now)
            var shared = limits.client == 0 ? nil : state.clients[client] ?? Bucket(limits.client, now: now)
            var server = limits.server == 0 ? nil : state.server ?? Bucket(limits.server, now: now)
            own?.fill(rate, now: now)
            shared?.fill(limits.client, now: now)
            server?.fill(limits.server, now: now)
            let isFree = own?.level ?? 1 > 0 && shared?.level ?? 1 > 0 && server?.level ?? 1 > 0
            if isFree {
                own?.take(count)
                shared?.take(count)
                server?.take(count)
            }
            state.transfers[transfer] = own
            state.clients[client] = shared
            state.server = server
            return isFree
        }
    }

    func forget(_ transfer: TransferID, client: ClientID?) {
        state.withLock { state in
            state.transfers[transfer] = nil
            if let client { state.clients[client] = nil }
        }
    }
}

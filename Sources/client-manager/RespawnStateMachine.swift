import System

/// When a core that ended is started again, and with which status its parent ends. A value: what happened in, what to do
/// out.
struct RespawnStateMachine {
    enum Action: Equatable {
        case start(afterMilliseconds: UInt64)
        case exit(Int32)
    }

    /// The first restart comes almost at once; each further one waits twice as long, up to this.
    static let firstDelay: UInt64 = 50
    static let longestDelay: UInt64 = 30_000
    /// A core that has served this long has proved itself: the next fault is a first one.
    static let provenMilliseconds: UInt64 = 60_000

    private var faults = 0
    private(set) var stopIsWanted = false
    private var hasServed = false

    /// SIGTERM or SIGINT came.
    mutating func stopRequested() { stopIsWanted = true }

    /// - Parameters:
    ///   - served: it had announced that it serves.
    ///   - jitter: 0 to 1, so that many cores that died of one cause do not come back in step.
    mutating func ended(_ how: ProcessEnd.How, afterMilliseconds ran: UInt64, served: Bool, jitter: Double) -> Action {
        hasServed = hasServed || served
        switch how {
        case .exited(let status):
            // Ended by itself and well: somebody stopped the core itself. A core that never served has told why: its
            // configuration or its data directory will not be better in a moment.
            if status == 0 || stopIsWanted || !hasServed { return .exit(status) }
        case .signaled(let signal):
            if stopIsWanted { return .exit(128 + signal) }
        }
        faults = ran >= RespawnStateMachine.provenMilliseconds ? 1 : faults + 1
        let shift = UInt64(min(faults - 1, 16))
        let delay = min(RespawnStateMachine.firstDelay << shift, RespawnStateMachine.longestDelay)
        return .start(afterMilliseconds: delay / 2 + UInt64(Double(delay / 2) * min(max(jitter, 0), 1)))
    }
}

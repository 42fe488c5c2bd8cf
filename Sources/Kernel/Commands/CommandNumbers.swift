import AgentProtocol
import Crypto
import Synchronization

/// Hands out command ids and the row numbers of targets.
///
/// The upper half of a command id is unique and grows in the order of the calls: 48 bits of milliseconds and a counter
/// in place of random bits; the lower half is random. So the upper half alone is the row number in the database, new
/// rows go to the end of the tables, and the targets of a command are one range of row numbers.
final class CommandNumbers: Sendable {
    struct Range: Sendable {
        var command: CommandID
        var firstTarget: Int64
    }

    private struct State {
        var lastHigh: UInt64
        var nextTarget: Int64
    }
    private let state: Mutex<State>
    private let random: @Sendable () -> UInt64

    /// - Parameters:
    ///   - lastHigh, nextTarget: as found in the database.
    init(lastHigh: UInt64, nextTarget: Int64, random: @escaping @Sendable () -> UInt64) {
        state = Mutex(State(lastHigh: lastHigh, nextTarget: nextTarget))
        self.random = random
    }

    /// The number that the next target will get.
    var nextTarget: Int64 { state.withLock { $0.nextTarget } }

    func next(targets: Int, now unixMilliseconds: UInt64) -> Range {
        let low = random()
        return state.withLock { state in
            let high = max((unixMilliseconds & 0xFFFF_FFFF_FFFF) << 16, state.lastHigh + 1)
            state.lastHigh = high
            let first = state.nextTarget
            state.nextTarget += Int64(targets)
            return Range(command: CommandID(high: high, low: low), firstTarget: first)
        }
    }
}

/// Random numbers, drawn many at a time: one by one each would cost a system call.
final class RandomNumbers: Sendable {
    private let drawn = Mutex<[UInt64]>([])

    func next() -> UInt64 {
        drawn.withLock { drawn in
            if drawn.isEmpty {
                drawn = Random.bytes(1_024).withUnsafeBytes { Array($0.bindMemory(to: UInt64.self)) }
            }
            return drawn.removeLast()
        }
    }
}

extension CommandID {
    /// The row number of the command.
    var row: Int64 { Int64(truncatingIfNeeded: high) }
    /// Milliseconds since 1970 when it was accepted.
    public var milliseconds: UInt64 { high >> 16 }
}

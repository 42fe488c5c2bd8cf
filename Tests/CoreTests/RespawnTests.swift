import System
import Testing

@testable import client_manager

@Suite struct RespawnTests {
    private func delay(_ action: RespawnStateMachine.Action) -> UInt64? {
        if case .start(let milliseconds) = action { milliseconds } else { nil }
    }

    @Test func faultsAreAnsweredWithGrowingBoundedDelays() {
        var machine = RespawnStateMachine()
        var delays: [UInt64] = []
        for _ in 0..<30 {
            let action = machine.ended(.signaled(11), afterMilliseconds: 1_000, served: true, jitter: 1)
            delays.append(delay(action) ?? 0)
        }
        #expect(delays.prefix(4) == [50, 100, 200, 400])
        #expect(delays.last == RespawnStateMachine.longestDelay)
        #expect(zip(delays, delays.dropFirst()).allSatisfy { $0 <= $1 })
        let proven = machine.ended(.signaled(6), afterMilliseconds: RespawnStateMachine.provenMilliseconds, served: true, jitter: 0)
        #expect(delay(proven) == 25)
    }

    @Test func aPlannedStopEndsWithTheCoresStatus() {
        var machine = RespawnStateMachine()
        #expect(machine.ended(.exited(0), afterMilliseconds: 1, served: false, jitter: 0) == .exit(0))
        machine.stopRequested()
        #expect(machine.ended(.exited(3), afterMilliseconds: 1, served: true, jitter: 0) == .exit(3))
        #expect(machine.ended(.signaled(9), afterMilliseconds: 1, served: true, jitter: 0) == .exit(137))
    }

    @Test func aCoreThatNeverServedIsNotTriedForEver() {
        var machine = RespawnStateMachine()
        #expect(machine.ended(.exited(1), afterMilliseconds: 5, served: false, jitter: 0) == .exit(1))
        var served = RespawnStateMachine()
        #expect(delay(served.ended(.signaled(11), afterMilliseconds: 5, served: true, jitter: 0)) == 25)
        #expect(delay(served.ended(.exited(1), afterMilliseconds: 5, served: false, jitter: 0)) == 50)
    }
}

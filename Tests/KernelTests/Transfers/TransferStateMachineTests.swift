import Testing

@testable import Kernel

@Suite struct TransferStateMachineTests {
    private static let events: [TransferStateMachine.Event] = [
        .started, .interrupted, .pause, .resume, .cancel, .ending, .succeeded, .failed(code: "x", reason: "y"),
    ]

    private func machine(_ events: [TransferStateMachine.Event]) -> TransferStateMachine {
        var machine = TransferStateMachine()
        for event in events {
            let happened = machine.apply(event, now: 5)
            #expect(happened)
        }
        return machine
    }

    /// Every event in every state: what may happen, and that nothing changes where it may not.
    @Test func onlyLegalTransitionsHappen() {
        let states: [(TransferStateMachine, [Int: TransferState])] = [
            (machine([]), [0: .running, 2: .paused, 4: .cancelled, 7: .failed]),
            (machine([.started]), [1: .waiting, 2: .paused, 4: .cancelled, 5: .running, 6: .succeeded, 7: .failed]),
            (machine([.started, .ending]), [1: .waiting, 6: .succeeded, 7: .failed]),
            (machine([.pause]), [3: .waiting, 4: .cancelled, 7: .failed]),
            (machine([.started, .succeeded]), [:]),
            (machine([.started, .failed(code: "x", reason: "y")]), [:]),
            (machine([.cancel]), [:]),
        ]
        for (before, legal) in states {
            for (index, event) in Self.events.enumerated() {
                var after = before
                let happened = after.apply(event, now: 9)
                #expect(happened == (legal[index] != nil), "\(event) in \(before.state)")
                #expect(happened ? after.state == legal[index] : after == before, "\(event) in \(before.state)")
                #expect(after.state.isFinal == (after.finishedAt != nil))
            }
        }
    }

    @Test func timesAndReasonsAreKept() {
        var machine = machine([.started])
        #expect(machine.startedAt == 5)
        for (event, now) in [(.interrupted, 6), (.started, 7)] as [(TransferStateMachine.Event, UInt64)] {
            let happened = machine.apply(event, now: now)
            #expect(happened)
        }
        #expect(machine.startedAt == 5)
        let failed = machine.apply(.failed(code: "disk-full", reason: "no room"), now: 8)
        #expect(failed)
        #expect(machine.code == "disk-full" && machine.reason == "no room" && machine.finishedAt == 8)
    }

    @Test func limitsOfSpeedHoldTogether() {
        let rates = TransferRates()
        let (client, other) = (ClientID(high: 1, low: 1), ClientID(high: 1, low: 2))
        let id = TransferID(high: 2, low: 1)
        /// Bytes that go in ten seconds, in pieces of 1,000.
        func moved(_ transfer: TransferID, rate: UInt64, _ client: ClientID, from start: UInt64) -> Int {
            var bytes = 0
            for step in 0..<10_000 as Range<UInt64> where rates.take(1_000, transfer, rate: rate, client, now: start + step * 1_000_000) {
                bytes += 1_000
            }
            return bytes
        }
        #expect(moved(id, rate: 0, client, from: 1) == 10_000_000)
        #expect((95_000...115_000).contains(moved(id, rate: 10_000, client, from: 1)))
        rates.set(TransferRates.Limits(server: 20_000, client: 5_000))
        #expect((45_000...60_000).contains(moved(TransferID(high: 2, low: 2), rate: 10_000, client, from: 1)))
        #expect((45_000...60_000).contains(moved(TransferID(high: 2, low: 3), rate: 0, other, from: 20_000_000_000)))
        rates.set(TransferRates.Limits(server: 2_000, client: 5_000))
        #expect((18_000...24_000).contains(moved(TransferID(high: 2, low: 4), rate: 0, other, from: 40_000_000_000)))
    }

    @Test func paceTellsTheTimeLeft() {
        var pace = Pace()
        pace.start(at: 0, now: 1_000_000_000)
        for second in 1...10 as ClosedRange<UInt64> { pace.moved(to: second * 1_000_000, now: (second + 1) * 1_000_000_000) }
        #expect(abs(pace.bytesPerSecond - 1_000_000) < 1_000)
        #expect(abs((pace.secondsLeft(to: 15_000_000) ?? 0) - 5) < 0.1)
        #expect(Pace().secondsLeft(to: 10) == nil && pace.secondsLeft(to: nil) == nil)
    }
}

import Testing

@testable import Agent

@Suite struct OutputPaceTests {
    private let second: UInt64 = 1_000_000_000

    @Test func aTurnHasAnEndAndNobodyWaits() {
        var pace = OutputPaceStateMachine()
        #expect(pace.allowance(at: 5 * second) == OutputPaceStateMachine.longTurnBytes)
        let pauses = pace.spent(at: 5 * second)
        #expect(!pauses)
        #expect(pace.allowance(at: 5 * second) == OutputPaceStateMachine.longTurnBytes)
    }

    @Test func besideAKeystrokeThereIsAPause() {
        var pace = OutputPaceStateMachine()
        pace.typed(at: 5 * second)
        #expect(pace.allowance(at: 5 * second) == OutputPaceStateMachine.turnBytes)
        let pauses = pace.spent(at: 5 * second)
        #expect(pauses)
        #expect(pace.allowance(at: 5 * second + 999_999) == 0)
        #expect(pace.allowance(at: 5 * second + 1_000_000) == OutputPaceStateMachine.turnBytes)
        // The timer of a loop may fire a little early.
        pace.resume()
        #expect(pace.allowance(at: 5 * second + 999_999) == OutputPaceStateMachine.turnBytes)
    }

    @Test func itIsOverTwoSecondsAfterTheLastKeystroke() {
        var pace = OutputPaceStateMachine()
        pace.typed(at: 5 * second)
        let before = pace.spent(at: 7 * second - 1)
        pace.resume()
        #expect(pace.allowance(at: 7 * second - 1) == OutputPaceStateMachine.turnBytes)
        #expect(pace.allowance(at: 7 * second) == OutputPaceStateMachine.longTurnBytes)
        let after = pace.spent(at: 7 * second)
        #expect(before && !after)
    }
}

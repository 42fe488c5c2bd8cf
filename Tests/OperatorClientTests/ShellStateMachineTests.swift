import JSON
import Testing

@testable import OperatorClient

@Suite struct ShellStateMachineTests {
    private func notice(_ state: inout ShellStateMachine, _ text: String) -> [ShellStateMachine.Action] {
        state.notice(Array(text.utf8))
    }

    @Test func outputIsCountedFromWhereTheCoreSays() {
        var state = ShellStateMachine()
        #expect(notice(&state, #"{"type": "attached", "offset": 100}"#) == [.tellSize])
        #expect(state.output([1, 2, 3]) == [.print([1, 2, 3])])
        #expect(state.offset == 103)
    }

    @Test func aLostConnectionGoesOnAtTheNextByte() {
        var state = ShellStateMachine()
        _ = notice(&state, #"{"type": "attached", "offset": 0}"#)
        _ = state.output([7])
        #expect(notice(&state, #"{"type": "attached", "offset": 1}"#) == [.say("attached again"), .tellSize])
        #expect(state.offset == 1)
    }

    @Test func aGapIsShownAndCounted() {
        var state = ShellStateMachine()
        _ = notice(&state, #"{"type": "attached", "offset": 10}"#)
        #expect(notice(&state, #"{"type": "gap", "from": 10, "to": 50}"#) == [.say("40 bytes of output are not kept any more")])
        #expect(state.offset == 50)
    }

    @Test(arguments: [
        (#"{"outcome": "exited", "exit_code": 3}"#, 3), (#"{"outcome": "signaled", "signal": 9}"#, 137),
        (#"{"outcome": "closed"}"#, 255), (#"{"outcome": "start-failed", "message": "no such program"}"#, 255),
    ]) func theEndIsTheProgramsOwn(result: String, status: Int) {
        var state = ShellStateMachine()
        _ = notice(&state, #"{"type": "exit", "result": \#(result)}"#)
        guard case .exited(let seen, _) = state.end else {
            Issue.record("no end")
            return
        }
        #expect(Int(seen) == status)
    }

    @Test func theDetachKeyLeaves() {
        var state = ShellStateMachine()
        #expect(state.typed([0x61, 0x1D, 0x62]) == [0x61])
        #expect(state.isDetached)
    }
}

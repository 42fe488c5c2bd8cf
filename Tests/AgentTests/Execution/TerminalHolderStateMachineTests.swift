import AgentProtocol
import Testing

@testable import Agent

@Suite struct TerminalHolderStateMachineTests {
    private func machine(
        maximum: UInt64? = nil, idle: UInt64? = nil, orphan: UInt64 = 1_000_000
    ) -> TerminalHolderStateMachine {
        TerminalHolderStateMachine(startedAt: 1_000, grace: 500, maximum: maximum, idle: idle, orphan: orphan)
    }

    /// Says the time at each deadline until something happens.
    private func run(
        _ machine: inout TerminalHolderStateMachine, isLeft: Bool = false, isBlocked: Bool = false
    ) -> (at: UInt64, actions: [TerminalHolderStateMachine.Action]) {
        for _ in 0..<10_000 {
            guard let deadline = machine.nextDeadline else { return (0, []) }
            let actions = machine.receive(.time(isAnythingLeft: isLeft, isBlocked: isBlocked), now: deadline)
            if !actions.isEmpty { return (deadline, actions) }
        }
        return (0, [])
    }

    @Test func aPlainEndWaitsForTheOutputAndSweepsTheSession() {
        var machine = machine()
        #expect(machine.nextDeadline == nil)
        #expect(machine.receive(.ended(.exited(3)), now: 2_000) == [.terminate])
        // Nothing is left, but the terminal has not said its last.
        #expect(machine.receive(.time(isAnythingLeft: false, isBlocked: false), now: 2_000) == [])
        #expect(machine.receive(.outputEnded, now: 2_010) == [.record(.exited(code: 3))])
        #expect(machine.isRecorded)
        #expect(machine.receive(.forget, now: 2_020) == [.leave])
        #expect(machine.isOver)
    }

    @Test func stragglersAreKilledAfterTheGrace() {
        var machine = machine()
        #expect(machine.receive(.outputEnded, now: 1_900) == [])
        #expect(machine.receive(.ended(.signaled(1)), now: 2_000) == [.terminate])
        let kill = run(&machine, isLeft: true)
        #expect(kill.actions == [.kill])
        #expect(kill.at == 2_500)
        #expect(run(&machine, isLeft: false).actions == [.record(.signaled(signal: 1))])
    }

    @Test func whatCannotBeKilledDoesNotHoldUpTheEnd() {
        var machine = machine()
        _ = machine.receive(.outputEnded, now: 1_900)
        _ = machine.receive(.ended(.exited(0)), now: 2_000)
        #expect(run(&machine, isLeft: true).actions == [.kill])
        let end = run(&machine, isLeft: true)
        #expect(end.actions == [.record(.exited(code: 0))])
        #expect(end.at >= 3_500)
    }

    @Test func anEndlessOutputIsLeftAfterAWhileButNotASlowReader() {
        var machine = machine()
        _ = machine.receive(.ended(.exited(0)), now: 2_000)
        var slow = machine
        let end = run(&machine)
        #expect(end.actions == [.record(.exited(code: 0))])
        #expect(end.at == 2_000 + TerminalHolderStateMachine.drainMilliseconds)
        _ = slow.receive(.time(isAnythingLeft: false, isBlocked: true), now: 2_000)
        _ = slow.receive(.time(isAnythingLeft: false, isBlocked: true), now: 3_000)
        #expect(slow.receive(.outputEnded, now: 3_900) != [])
        #expect(slow.isRecorded)
    }

    @Test func limitsAndOrdersEndItWithTheirOwnOutcome() {
        var cancelled = machine()
        #expect(cancelled.receive(.cancel, now: 2_000) == [.terminate])
        #expect(cancelled.receive(.cancel, now: 2_001) == [])
        #expect(run(&cancelled).actions == [.kill])
        _ = cancelled.receive(.outputEnded, now: 2_501)
        #expect(cancelled.receive(.ended(.signaled(9)), now: 2_502) == [])
        #expect(run(&cancelled).actions == [.record(.cancelled)])

        var idle = machine(idle: 300)
        #expect(idle.nextDeadline == 1_300)
        _ = idle.receive(.input, now: 1_250)
        #expect(run(&idle).at == 1_550)

        var longest = machine(maximum: 700, idle: 5_000)
        _ = longest.receive(.input, now: 1_600)
        #expect(run(&longest).at == 1_700)

        var orphan = machine(orphan: 400)
        #expect(orphan.nextDeadline == nil)
        _ = orphan.receive(.core(false), now: 2_000)
        _ = orphan.receive(.core(false), now: 2_300)
        #expect(orphan.nextDeadline == 2_400)
        _ = orphan.receive(.core(true), now: 2_350)
        #expect(orphan.nextDeadline == nil)
    }

    @Test func anEndThatNobodyTakesIsLeftInTheEnd() {
        var machine = machine()
        _ = machine.receive(.outputEnded, now: 1_900)
        _ = machine.receive(.ended(.exited(0)), now: 2_000)
        _ = run(&machine)
        let end = run(&machine)
        #expect(end.actions == [.leave])
        #expect(end.at >= 2_000 + TerminalHolderStateMachine.lingerMilliseconds)
    }

    @Test func aForgottenTerminalThatRunsIsEnded() {
        var machine = machine()
        #expect(machine.receive(.forget, now: 2_000) == [.terminate])
    }
}

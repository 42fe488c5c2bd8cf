import AgentProtocol
import Testing

@testable import Kernel

@Suite struct UpgradeRunTests {
    private static let limits = UpgradeRunStateMachine.Limits(waitMilliseconds: 1_000, answerMilliseconds: 5_000)

    private func clients(_ count: Int) -> [ClientID] { (0..<count).map { ClientID(high: 1, low: UInt64($0)) } }

    private func run(
        _ count: Int, parallel: Int? = nil, waves: [Int] = [], failures: Int? = 0
    ) -> UpgradeRunStateMachine {
        UpgradeRunStateMachine(
            clients(count).map { .init(client: $0) }, parallel: parallel, waves: waves, failures: failures, limits: Self.limits)
    }

    private func says(
        _ machine: inout UpgradeRunStateMachine, _ index: Int, _ progress: UpgradeProgress, now: UInt64 = 0
    ) {
        let id = UpgradeID(high: 1, low: 1)
        let report = UpgradeReport(upgrade: id, progress: progress, code: progress.isFinal ? "c" : "")
        #expect(machine.reported(report, by: clients(index + 1)[index], now: now) == true)
    }

    private func states(_ machine: UpgradeRunStateMachine) -> [UpgradeTargetState] { machine.targets.map(\.machine.state) }

    @Test func wavesBeginWhenTheOneBeforeIsOver() {
        var machine = run(7, waves: [1, 2, 2])
        #expect(machine.turn(now: 0) { _ in true }.count == 1)
        #expect(machine.turn(now: 1) { _ in true } == [])
        for progress in [UpgradeProgress.receiving, .staged, .restarted] {
            says(&machine, 0, progress)
            #expect(machine.turn(now: 2) { _ in true } == [])
        }
        says(&machine, 0, .online)
        #expect(machine.turn(now: 3) { _ in true } == Array(clients(3)[1...]))
        says(&machine, 1, .online)
        #expect(machine.turn(now: 4) { _ in true } == [])
        says(&machine, 2, .online)
        #expect(machine.turn(now: 5) { _ in true }.count == 2)
        says(&machine, 3, .online)
        says(&machine, 4, .online)
        #expect(machine.turn(now: 6) { _ in true }.count == 2)
        #expect(!machine.isOver)
        says(&machine, 5, .online)
        says(&machine, 6, .online)
        #expect(machine.isOver && machine.counts() == [.online: 7])
    }

    @Test func placesBoundAWave() {
        var machine = run(5, parallel: 2)
        #expect(machine.turn(now: 0) { _ in true }.count == 2)
        says(&machine, 1, .online)
        #expect(machine.turn(now: 1) { _ in true } == [clients(3)[2]])
    }

    @Test func oneFailureMoreThanIsToleratedStopsTheRest() {
        var machine = run(6, waves: [1, 3], failures: 1)
        _ = machine.turn(now: 0) { _ in true }
        says(&machine, 0, .online)
        #expect(machine.turn(now: 1) { _ in true }.count == 3)
        says(&machine, 1, .rolledBack)
        #expect(machine.stopCode == nil)
        says(&machine, 2, .failed)
        #expect(machine.stopCode == "stopped" && machine.failures == 2)
        // Who has it comes to an end of its own.
        #expect(states(machine) == [.online, .rolledBack, .failed, .sent, .skipped, .skipped])
        #expect(machine.turn(now: 2) { _ in true } == [] && !machine.isOver)
        says(&machine, 3, .rolledBack)
        #expect(machine.isOver)
    }

    @Test func pauseHoldsBackWhoHasNotGotIt() {
        var machine = run(3, waves: [1])
        _ = machine.turn(now: 0) { _ in true }
        machine.isPaused = true
        says(&machine, 0, .online)
        #expect(machine.turn(now: 1) { _ in true } == [])
        #expect(states(machine) == [.online, .waiting, .waiting] && !machine.isOver)
        machine.isPaused = false
        #expect(machine.turn(now: 2) { _ in true }.count == 2)
    }

    @Test func absentClientsAreWaitedForAndThenSkipped() {
        var machine = run(2)
        #expect(machine.turn(now: 0) { $0 == clients(2)[1] } == [clients(2)[1]])
        #expect(machine.turn(now: 999) { _ in false } == [])
        #expect(machine.deadline() == 1_000)
        var late = machine
        #expect(late.turn(now: 999) { _ in true } == [clients(1)[0]])
        #expect(machine.turn(now: 1_000) { _ in false } == [])
        #expect(states(machine) == [.skipped, .sent])
        #expect(machine.targets[0].machine.code == "client-offline")
        // That is no failure: nothing was tried.
        #expect(machine.failures == 0 && machine.stopCode == nil)
    }

    @Test func silenceIsAFailureThatALateWordSetsRight() {
        var machine = run(3, waves: [2])
        _ = machine.turn(now: 0) { _ in true }
        says(&machine, 0, .receiving, now: 4_000)
        _ = machine.turn(now: 5_000) { _ in true }
        #expect(states(machine) == [.receiving, .failed, .skipped])
        #expect(machine.targets[1].machine.code == "no-answer" && machine.stopCode == "stopped")
        says(&machine, 1, .staged, now: 6_000)
        #expect(states(machine)[1] == .failed)
        says(&machine, 1, .rolledBack, now: 6_001)
        #expect(states(machine)[1] == .rolledBack && machine.failures == 1)
        _ = machine.turn(now: 9_000) { _ in true }
        #expect(machine.isOver)
    }

    @Test func cancelSkipsWhoHasNotGotIt() {
        var machine = run(3, parallel: 1)
        _ = machine.turn(now: 0) { _ in true }
        machine.stop("cancelled", 1)
        #expect(states(machine) == [.sent, .skipped, .skipped] && !machine.isOver)
        #expect(machine.targets[1].machine.code == "cancelled")
        says(&machine, 0, .online)
        #expect(machine.isOver)
    }

    @Test func aRestartGoesOnWhereItStood() {
        var first = run(6, waves: [2, 2])
        // The first client is away when its turn comes.
        _ = first.turn(now: 0) { $0 != clients(1)[0] }
        says(&first, 1, .staged, now: 10)
        #expect(first.takeChanged().map(\.place) == [1])
        #expect(first.takeChanged().count == 0)
        var rows = first.targets
        for index in rows.indices { rows[index].dueAt = nil }
        var second = UpgradeRunStateMachine(rows, parallel: nil, waves: [2, 2], failures: 0, limits: Self.limits)
        #expect(second.isUnderWay(clients(2)[1]) && !second.isUnderWay(clients(1)[0]))
        #expect(second.turn(now: 20) { _ in true } == [clients(1)[0]])
        says(&second, 0, .online)
        #expect(second.turn(now: 21) { _ in true } == [])
        says(&second, 1, .online)
        #expect(second.turn(now: 22) { _ in true } == Array(clients(4)[2...]))
        // And one that was stopped stays stopped.
        says(&second, 2, .rolledBack)
        var third = UpgradeRunStateMachine(second.targets, parallel: nil, waves: [2, 2], failures: 0, limits: Self.limits)
        #expect(third.stopCode == "stopped" && states(third)[4...] == [.skipped, .skipped])
        #expect(third.turn(now: 30) { _ in true } == [])
    }

    @Test func strangersAreNotHeard() {
        var machine = run(1)
        let report = UpgradeReport(upgrade: UpgradeID(high: 1, low: 1), progress: .online)
        #expect(machine.reported(report, by: ClientID(high: 9, low: 9), now: 0) == false)
        // Before its turn a client has nothing to say.
        #expect(machine.reported(report, by: clients(1)[0], now: 0) == true)
        #expect(states(machine) == [.waiting])
    }

    @Test func anotherAttemptGivesThoseATurnThatDoNotHaveIt() {
        for (state, again) in [
            (UpgradeTargetState.online, false), (.rolledBack, true), (.failed, true), (.skipped, true), (.waiting, false),
        ] {
            var machine = UpgradeTargetStateMachine()
            machine.restore(state: state, code: "c", message: "", changedAt: 1)
            #expect(machine.apply(.again, now: 2) == again)
            #expect(machine.state == (again ? .waiting : state))
        }
    }
}

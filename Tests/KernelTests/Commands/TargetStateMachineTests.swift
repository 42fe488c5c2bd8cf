import AgentProtocol
import Testing

@testable import Kernel

@Suite struct TargetStateMachineTests {
    static let id = CommandID(high: 1, low: 1)
    static let record = ExitRecord(command: id, outcome: .exited(code: 0), started: .yes)

    static let inputs: [TargetStateMachine.Input] = [
        .dispatch, .started, .output, .reported(.no), .reported(.yes), .reported(.maybe), .unknownToAgent, .exit(record),
        .cancel, .expire, .lost, .clientGone(code: "client-revoked"), .abort, .skip, .refuse(code: "x", message: "y"),
        .overdue, .recorded,
    ]

    /// Every machine that can be reached, by trying every input on every machine until nothing new comes.
    static func reachable() -> [TargetStateMachine] {
        var known: [TargetStateMachine] = [TargetStateMachine(.waiting), TargetStateMachine(.sent)]
        var next = 0
        while next < known.count, known.count < 10_000 {
            for input in inputs {
                var machine = known[next]
                _ = machine.apply(input)
                if !known.contains(machine) { known.append(machine) }
            }
            next += 1
        }
        return known
    }

    @Test func everyReachableStateKeepsThePromises() {
        let machines = Self.reachable()
        #expect(machines.count > 20 && machines.count < 200)
        for machine in machines {
            for input in Self.inputs {
                var after = machine
                let action = after.apply(input)
                switch action {
                case .send:
                    #expect(machine.phase == .open(.waiting) && input == .dispatch && after.phase == .open(.sent))
                    #expect(!machine.cancelRequested)
                case .requeue:
                    #expect(machine.phase == .open(.sent) && input == .unknownToAgent && after.phase == .open(.waiting))
                case .record(let end):
                    #expect(machine.isOpen && !after.isOpen)
                    if machine.sawStart { #expect(end.started == .yes) }
                    // Only what never left the core may claim that it did not start, or an agent's own word.
                    if end.started == .no, case .exit = input {} else if end.started == .no {
                        #expect(machine.phase == .open(.waiting) || input == .unknownToAgent || input == .dispatch)
                    }
                case .illegal: #expect(after == machine)
                case .none, .sendCancel: break
                }
                if case .ended(let state) = machine.phase { #expect(after.phase == .ended(state)) }
                if case .ending(let state, _) = machine.phase {
                    switch after.phase {
                    case .ending(let same, _): #expect(same == state && input != .recorded)
                    case .ended(let same): #expect(same == state && input == .recorded)
                    case .open: Issue.record("an end was taken back by \(input)")
                    }
                }
            }
        }
    }

    @Test func anOrderIsSentAgainOnlyAfterTheAgentDeniedIt() {
        var machine = TargetStateMachine()
        #expect(machine.apply(.dispatch) == .send)
        #expect(machine.apply(.dispatch) == .illegal)
        #expect(machine.apply(.unknownToAgent) == .requeue)
        #expect(machine.apply(.dispatch) == .send)
        #expect(machine.apply(.started) == .none)
        guard case .record(let end) = machine.apply(.unknownToAgent) else { return #expect(Bool(false)) }
        #expect(end.state == .interrupted && end.started == .yes && end.code == "agent-data-lost")
    }

    @Test func aCancelWhileTheAgentIsAwayWaitsForIt() {
        var machine = TargetStateMachine(.sent)
        #expect(machine.apply(.cancel) == .sendCancel)
        #expect(machine.apply(.cancel) == .sendCancel)
        var denied = machine
        guard case .record(let end) = denied.apply(.unknownToAgent) else { return #expect(Bool(false)) }
        #expect(end.state == .cancelled && end.started == .no)
        #expect(machine.apply(.reported(.yes)) == .sendCancel)
    }

    @Test func aRecordCannotTakeBackAStart() {
        var machine = TargetStateMachine(.sent)
        _ = machine.apply(.output)
        let record = ExitRecord(command: Self.id, outcome: .interrupted(reason: "reboot"), started: .no)
        guard case .record(let end) = machine.apply(.exit(record)) else { return #expect(Bool(false)) }
        #expect(end.state == .interrupted && end.started == .yes)
    }
}

@Suite struct RolloutStateMachineTests {
    @Test func theWindowIsNeverExceeded() {
        var rollout = RolloutStateMachine(count: 10, concurrency: 3, waves: [], errorBudget: nil)
        #expect((0..<3).map { _ in rollout.next() } == [0, 1, 2])
        #expect(rollout.next() == nil)
        _ = rollout.ended(.succeeded, heldPlace: true)
        #expect(rollout.next() == 3)
        #expect(rollout.next() == nil)
    }

    @Test func aWaveWaitsForTheOneBefore() {
        var rollout = RolloutStateMachine(count: 6, concurrency: nil, waves: [1, 2], errorBudget: nil)
        #expect(rollout.next() == 0)
        #expect(rollout.next() == nil)
        _ = rollout.ended(.succeeded, heldPlace: true)
        #expect([rollout.next(), rollout.next(), rollout.next()] == [1, 2, nil])
        _ = rollout.ended(.failed, heldPlace: true)
        #expect(rollout.next() == nil)
        _ = rollout.ended(.succeeded, heldPlace: true)
        #expect([rollout.next(), rollout.next(), rollout.next(), rollout.next()] == [3, 4, 5, nil])
    }

    @Test func theErrorBudgetStopsTheRestOnce() {
        var rollout = RolloutStateMachine(count: 10, concurrency: 4, waves: [], errorBudget: 1)
        for _ in 0..<4 { _ = rollout.next() }
        #expect(rollout.ended(.failed, heldPlace: true) == false)
        #expect(rollout.ended(.skipped, heldPlace: true) == false)
        #expect(rollout.ended(.timedOut, heldPlace: true) == true)
        #expect(rollout.ended(.failed, heldPlace: true) == false)
        #expect(rollout.next() == nil)
    }

    @Test func aParkedTargetHoldsNoPlaceAndGoesFirstWhenItIsBack() {
        var rollout = RolloutStateMachine(count: 4, concurrency: 1, waves: [], errorBudget: nil)
        #expect(rollout.next() == 0)
        rollout.park()
        #expect(rollout.next() == 1)
        rollout.comeBack(0)
        #expect(rollout.next() == nil)
        _ = rollout.ended(.succeeded, heldPlace: true)
        #expect(rollout.next() == 0)
    }
}

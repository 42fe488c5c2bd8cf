import AgentProtocol
import Testing

@testable import Agent

@Suite struct HolderStateMachineTests {
    @Test func aNormalEndWaitsForBothStreams() {
        var machine = HolderStateMachine(startedAt: 0, timeout: nil, grace: 100)
        #expect(machine.nextDeadline == nil)
        #expect(machine.receive(.ended(.exited(2)), now: 10) == [])
        #expect(machine.receive(.streamEnded(.standardOutput), now: 11) == [])
        #expect(machine.receive(.streamEnded(.standardError), now: 12) == [.finish(.exited(code: 2))])
        #expect(machine.finished)
        #expect(machine.receive(.cancel, now: 13) == [])
    }

    @Test func backgroundProcessesHoldTheEndBackOnlyForTheDrain() {
        var machine = HolderStateMachine(startedAt: 0, timeout: 5_000, grace: 100)
        _ = machine.receive(.ended(.exited(0)), now: 10)
        #expect(machine.nextDeadline == 10 + HolderStateMachine.drainMilliseconds)
        #expect(
            machine.receive(.time(groupExists: true), now: 10 + HolderStateMachine.drainMilliseconds)
                == [.finish(.exited(code: 0))])
    }

    @Test func timeoutTermsThenKills() {
        var machine = HolderStateMachine(startedAt: 1_000, timeout: 500, grace: 100)
        #expect(machine.nextDeadline == 1_500)
        #expect(machine.receive(.time(groupExists: true), now: 1_500) == [.terminateGroup])
        #expect(machine.nextDeadline == 1_600)
        #expect(machine.receive(.cancel, now: 1_550) == [])
        #expect(machine.receive(.time(groupExists: true), now: 1_600) == [.killGroup])
        #expect(machine.receive(.ended(.signaled(9)), now: 1_601) == [])
        _ = machine.receive(.streamEnded(.standardOutput), now: 1_602)
        #expect(machine.receive(.streamEnded(.standardError), now: 1_602) == [.finish(.timedOut)])
    }

    @Test func cancelWaitsForStragglersAndKillsThem() {
        var machine = HolderStateMachine(startedAt: 0, timeout: nil, grace: 100)
        #expect(machine.receive(.cancel, now: 10) == [.terminateGroup])
        _ = machine.receive(.streamEnded(.standardOutput), now: 20)
        _ = machine.receive(.streamEnded(.standardError), now: 20)
        #expect(machine.receive(.ended(.exited(0)), now: 20) == [])
        #expect(machine.receive(.time(groupExists: true), now: 30) == [])
        #expect(machine.receive(.time(groupExists: true), now: 110) == [.killGroup, .finish(.cancelled)])
    }

    @Test func cancelIsOverWhenTheGroupIsGone() {
        var machine = HolderStateMachine(startedAt: 0, timeout: nil, grace: 60_000)
        _ = machine.receive(.cancel, now: 10)
        _ = machine.receive(.streamEnded(.standardOutput), now: 20)
        _ = machine.receive(.streamEnded(.standardError), now: 20)
        _ = machine.receive(.ended(.signaled(15)), now: 20)
        #expect(machine.receive(.time(groupExists: false), now: 30) == [.finish(.cancelled)])
    }

    @Test func extremeTimesDoNotOverflow() {
        var machine = HolderStateMachine(startedAt: 5, timeout: .max, grace: .max)
        #expect(machine.nextDeadline == nil)
        #expect(machine.receive(.cancel, now: 10) == [.terminateGroup])
        #expect(machine.receive(.time(groupExists: true), now: 1 << 40) == [])
    }
}

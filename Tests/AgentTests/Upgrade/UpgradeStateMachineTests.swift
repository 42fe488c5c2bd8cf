import AgentProtocol
import JSON
import Program
import Testing

@testable import Agent

@Suite struct UpgradeStateMachineTests {
    static func machine() throws -> UpgradeStateMachine {
        let manifest = ReleaseManifest(
            version: try #require(ReleaseVersion("0.2.0")), platform: ReleasePlatform.own,
            sha256: String(repeating: "0", count: 64), size: 1, created: 1)
        let order = UpgradeOrder(
            upgrade: UpgradeID(high: 1, low: 2), release: SignedRelease(manifest: manifest.text, signature: "s", key: "k"))
        return UpgradeStateMachine(order, manifest, program: "/opt/cm-agent")
    }

    static let path: [(UpgradeStateMachine.Event, UpgradeStateMachine.Phase)] = [
        (.fileStaged, .staged), (.trialBegan, .trial), (.trialProved, .proven), (.swapped, .committed), (.cameOnline, .online),
    ]

    @Test func goodUpgradesTakeEachStepOnce() throws {
        var machine = try Self.machine()
        for (index, (event, phase)) in Self.path.enumerated() {
            for (other, _) in Self.path where other != event { #expect(machine.apply(other) == false, "\(other) in \(machine.phase)") }
            #expect(machine.apply(event) == true)
            #expect(machine.phase == phase && machine.isFinal == (index == Self.path.count - 1))
        }
        #expect(machine.report.progress == .online)
        #expect(machine.apply(.rolledBack(code: "c", message: "")) == false)
        #expect(machine.apply(.failed(code: "c", message: "")) == false)
    }

    @Test func failuresAreForBeforeTheTrialAndRollbacksForAfterIt() throws {
        var machine = try Self.machine()
        for (event, phase) in Self.path.dropLast() {
            var copy = machine
            let isEarly = phase == .staged || phase == .trial
            #expect(copy.apply(.failed(code: "c", message: "m")) == isEarly)
            #expect(copy.apply(.rolledBack(code: "c", message: "m")) == !isEarly)
            #expect(copy.isFinal && copy.report.code == "c" && copy.report.message == "m")
            #expect(copy.report.progress == (isEarly ? .failed : .rolledBack))
            _ = machine.apply(event)
        }
    }

    /// Whatever died, and when: the program in place is one of the two, and the journal says which.
    @Test func everyInterruptionEndsInOldOrNew() throws {
        var machine = try Self.machine()
        func recovered(_ isInPlace: Bool) -> (UpgradeStateMachine.Recovery, UpgradeStateMachine) {
            var copy = machine
            return (copy.recover(isInPlace: isInPlace), copy)
        }
        // Nothing is lost before the trial: the file is fetched again, the trial begins again.
        #expect(recovered(false).0 == .nothing && recovered(false).1 == machine)
        _ = machine.apply(.fileStaged)
        #expect(recovered(false).0 == .nothing && recovered(false).1 == machine)
        _ = machine.apply(.trialBegan)
        #expect(recovered(false).0 == .discardStaged)
        #expect(recovered(false).1.phase == .rolledBack && recovered(false).1.code == "upgrade-interrupted")
        _ = machine.apply(.trialProved)
        #expect(recovered(false).0 == .discardStaged && recovered(false).1.phase == .rolledBack)
        #expect(recovered(true).0 == .nothing && recovered(true).1.phase == .committed)
        _ = machine.apply(.swapped)
        #expect(recovered(false).0 == .discardStaged && recovered(false).1.code == "upgrade-replaced")
        #expect(recovered(true).0 == .nothing && recovered(true).1.phase == .committed)
        for _ in 0..<UpgradeStateMachine.starts { #expect(machine.recover(isInPlace: true) == .nothing) }
        #expect(machine.recover(isInPlace: true) == .restorePrevious)
        #expect(machine.phase == .rolledBack && machine.code == "upgrade-not-online")
        // An end stays what it is.
        #expect(machine.recover(isInPlace: false) == .nothing)
    }

    @Test func journalsAreReadBack() throws {
        var machine = try Self.machine()
        for (event, _) in Self.path.dropLast() {
            #expect(UpgradeStateMachine(machine.json) == machine)
            _ = machine.apply(event)
        }
        _ = machine.recover(isInPlace: true)
        #expect(UpgradeStateMachine(machine.json) == machine)
        _ = machine.apply(.rolledBack(code: "c", message: "m"))
        #expect(UpgradeStateMachine(machine.json) == machine)
        for name in ["order", "program", "phase"] {
            var object = try #require(machine.json.object)
            object[name] = "x"
            #expect(UpgradeStateMachine(.object(object)) == nil)
        }
    }
}

@Suite struct TrialStateMachineTests {
    private func trial() -> TrialStateMachine {
        TrialStateMachine(client: "me", startedAt: 1_000, onlineWithin: 5_000, settle: 300)
    }

    private func code(_ machine: TrialStateMachine) -> String? {
        if case .bad(let code, _) = machine.verdict { return code }
        return nil
    }

    @Test func goodOnesComeOnlineAndStay() {
        var machine = trial()
        #expect(machine.deadline == 6_000)
        machine.apply(.online("me"), now: 2_000)
        #expect(machine.verdict == nil && machine.deadline == 2_300)
        // A reconnect says it again and does not put the end off.
        machine.apply(.online("me"), now: 2_200)
        machine.apply(.time, now: 2_299)
        #expect(machine.verdict == nil)
        machine.apply(.time, now: 2_300)
        #expect(machine.verdict == .good)
        machine.apply(.ended("ended"), now: 2_400)
        #expect(machine.verdict == .good)
        var hasty = TrialStateMachine(client: "me", startedAt: 0, onlineWithin: 5_000, settle: 0)
        hasty.apply(.online("me"), now: 1)
        #expect(hasty.verdict == .good)
    }

    @Test func badOnesAreFoundHoweverTheyFail() {
        var crashed = trial()
        crashed.apply(.ended("ended with status 1"), now: 1_040)
        #expect(code(crashed) == "trial-ended")
        var late = trial()
        late.apply(.online("me"), now: 2_000)
        late.apply(.ended("was ended by signal 11"), now: 2_100)
        #expect(code(late) == "trial-ended")
        var hangs = trial()
        hangs.apply(.time, now: 5_999)
        #expect(hangs.verdict == nil)
        hangs.apply(.time, now: 6_000)
        #expect(code(hangs) == "trial-not-online")
        var other = trial()
        other.apply(.online("somebody"), now: 2_000)
        #expect(code(other) == "trial-identity")
        var nobody = TrialStateMachine(client: nil, startedAt: 0, onlineWithin: 5_000, settle: 0)
        nobody.apply(.online("me"), now: 1)
        #expect(code(nobody) == "trial-identity")
        var stopped = trial()
        stopped.apply(.stopWanted, now: 2_000)
        #expect(stopped.verdict == .stopped)
    }
}

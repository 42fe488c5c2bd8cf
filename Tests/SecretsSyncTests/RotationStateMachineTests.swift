import Testing

@Suite struct RotationStateMachineTests {
    private func standing(_ applied: Int, failed: Int = 0, waiting: Int = 0, offline: Int = 0) -> Standing {
        Standing(applied: applied, failed: failed, waiting: waiting, offline: offline)
    }

    @Test func twoPhasesAndAnOverlap() {
        let rotation = Held(RotationStateMachine(.init(overlapMilliseconds: 1_000), now: 0))
        #expect(rotation.entry == .stage)
        #expect(rotation.look(standing(9, waiting: 1), now: 1) == nil)
        #expect(rotation.look(standing(10), now: 2) == .takeOver)
        #expect(rotation.phase == .switching && rotation.entry == .takeOver)
        #expect(rotation.look(standing(0, waiting: 10), now: 3) == nil)
        #expect(rotation.look(standing(10), now: 4) == .record)
        #expect(rotation.phase == .overlap && rotation.entry == .takeOver)
        #expect(rotation.look(standing(10), now: 1_003) == nil)
        #expect(rotation.look(standing(10), now: 1_004) == .retire)
        #expect(rotation.phase == .succeeded && rotation.isOver && rotation.entry == nil && rotation.code.isEmpty)
    }

    @Test func withoutOverlapTheOldOneGoesAtOnce() {
        let rotation = Held(RotationStateMachine(.init(), now: 0))
        #expect(rotation.look(standing(1), now: 1) == .takeOver)
        #expect(rotation.look(standing(1), now: 1) == .retire)
        #expect(rotation.phase == .succeeded)
    }

    @Test func oneFailureGoesBackWhenAllMustShowIt() {
        let rotation = Held(RotationStateMachine(.init(), now: 0))
        #expect(rotation.look(standing(5, failed: 1, waiting: 4), now: 1) == .goBack)
        #expect(rotation.phase == .returning && rotation.code == "rotation-failed" && rotation.entry == .goBack)
        #expect(rotation.look(standing(3, waiting: 2), now: 2) == nil)
        #expect(rotation.look(standing(5), now: 3) == .finish)
        #expect(rotation.phase == .failed)
    }

    @Test func aThresholdForgivesSome() {
        let rotation = Held(RotationStateMachine(.init(percent: 90), now: 0))
        #expect(rotation.look(standing(8, failed: 1, waiting: 1), now: 1) == nil)
        #expect(rotation.look(standing(9, failed: 1), now: 1) == .takeOver)
        #expect(rotation.look(standing(8, failed: 2), now: 2) == .goBack)
    }

    @Test func aThresholdIsRoundedUp() {
        let rotation = Held(RotationStateMachine(.init(percent: 50), now: 0))
        #expect(rotation.look(standing(1, waiting: 2), now: 1) == nil)
        #expect(rotation.look(standing(2, waiting: 1), now: 1) == .takeOver)
    }

    @Test func timeOutsGoBackInBothPhases() {
        var rotation = Held(RotationStateMachine(.init(timeoutMilliseconds: 100), now: 0))
        #expect(rotation.look(standing(1, waiting: 1), now: 99) == nil)
        #expect(rotation.look(standing(1, waiting: 1), now: 100) == .goBack)
        #expect(rotation.code == "rotation-timeout")
        rotation = Held(RotationStateMachine(.init(timeoutMilliseconds: 100), now: 0))
        #expect(rotation.look(standing(2), now: 50) == .takeOver)
        #expect(rotation.look(standing(1, waiting: 1), now: 149) == nil)
        #expect(rotation.look(standing(1, waiting: 1), now: 150) == .goBack)
    }

    @Test func whoIsAwayCountsOnlyWhenAskedFor() {
        var rotation = Held(RotationStateMachine(.init(), now: 0))
        #expect(rotation.look(standing(3, offline: 2), now: 1) == .takeOver)
        rotation = Held(RotationStateMachine(.init(countsOffline: true), now: 0))
        #expect(rotation.look(standing(3, offline: 2), now: 1) == nil)
        #expect(rotation.look(standing(5), now: 1) == .takeOver)
    }

    /// Nobody there is no proof; nobody assigned needs none.
    @Test func withoutAnybodyThereItWaits() {
        var rotation = Held(RotationStateMachine(.init(timeoutMilliseconds: 100), now: 0))
        #expect(rotation.look(standing(0, offline: 3), now: 99) == nil)
        #expect(rotation.look(standing(0, offline: 3), now: 100) == .goBack)
        rotation = Held(RotationStateMachine(.init(), now: 0))
        #expect(rotation.look(standing(0), now: 1) == .takeOver)
    }

    @Test func aCancelGoesBackOrEndsTheOverlap() {
        var rotation = Held(RotationStateMachine(.init(), now: 0))
        #expect(rotation.cancel(now: 1) == .goBack)
        #expect(rotation.code == "rotation-cancelled")
        #expect(rotation.cancel(now: 2) == nil)
        rotation = Held(RotationStateMachine(.init(overlapMilliseconds: 1_000), now: 0))
        _ = rotation.look(standing(1), now: 1)
        _ = rotation.look(standing(1), now: 2)
        #expect(rotation.cancel(now: 3) == .retire)
        #expect(rotation.phase == .succeeded)
    }

    @Test func returningEndsWithoutThoseWhoDoNotAnswer() {
        let rotation = Held(RotationStateMachine(.init(), now: 0))
        _ = rotation.cancel(now: 0)
        #expect(rotation.look(standing(1, waiting: 1), now: RotationStateMachine.returnMilliseconds - 1) == nil)
        #expect(rotation.look(standing(1, waiting: 1), now: RotationStateMachine.returnMilliseconds) == .finish)
    }

    @Test func itGoesOnFromWhatWasWritten() {
        let rotation = Held(RotationStateMachine(.init(), phase: .switching, since: 5, code: "", reason: ""))
        #expect(rotation.entry == .takeOver)
        #expect(rotation.look(standing(1), now: 6) == .retire)
    }
}

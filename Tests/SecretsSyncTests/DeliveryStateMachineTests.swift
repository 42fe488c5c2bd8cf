import Testing

@Suite struct DeliveryStateMachineTests {
    @Test func theHashIsTheProof() {
        let machine = Held(DeliveryStateMachine(wanted: 1))
        #expect(machine.phase == .wanted)
        #expect(machine.next(now: 0) == .put(1))
        #expect(machine.next(now: 0) == nil)
        machine.confirmed(1, hookFault: nil, now: 5)
        #expect(machine.phase == .applied && machine.placed == 1 && machine.confirmedAt == 5)
        #expect(machine.next(now: 100) == nil)
        #expect(machine.wakeAt == nil)
    }

    @Test func aNewVersionThatComesMeanwhileFollows() {
        let machine = Held(DeliveryStateMachine(wanted: 1))
        #expect(machine.next(now: 0) == .put(1))
        #expect(machine.want(2))
        #expect(!machine.want(2))
        machine.confirmed(1, hookFault: nil, now: 1)
        #expect(machine.phase == .wanted && machine.placed == 1)
        #expect(machine.next(now: 1) == .put(2))
    }

    @Test func failuresPauseLongerAndLongerAndStayVisible() {
        let machine = Held(DeliveryStateMachine(wanted: 1))
        var now: UInt64 = 0
        var pauses: [UInt64] = []
        for _ in 0..<12 {
            #expect(machine.next(now: now) == .put(1))
            machine.failed("private-file-limit", "full", now: now)
            #expect(machine.phase == .failed && machine.code == "private-file-limit")
            #expect(machine.next(now: now) == nil)
            let wake = machine.wakeAt ?? 0
            pauses.append(wake - now)
            now = wake
        }
        #expect(pauses == pauses.sorted() && pauses.first == 1_000 && pauses.last == DeliveryStateMachine.longestPause)
        #expect(machine.failures == 12)
        #expect(machine.want(2))
        #expect(machine.next(now: now) == .put(2))
        machine.confirmed(2, hookFault: nil, now: now)
        #expect(machine.failures == 0 && machine.code.isEmpty && machine.phase == .applied)
    }

    @Test func aHookThatFailsIsDeliveredNotAppliedAndTriedAgain() {
        let machine = Held(DeliveryStateMachine(wanted: 1))
        _ = machine.next(now: 0)
        machine.confirmed(1, hookFault: "no such unit", now: 0)
        #expect(machine.phase == .delivered && machine.code == "hook-failed" && machine.reason == "no such unit")
        #expect(machine.next(now: 0) == nil)
        #expect(machine.wakeAt == 1_000)
        #expect(machine.next(now: 1_000) == .put(1))
        machine.confirmed(1, hookFault: nil, now: 1_000)
        #expect(machine.phase == .applied && machine.code.isEmpty)
    }

    @Test func aLostLinkIsTriedAgainAndProofStandsUntilThen() {
        let machine = Held(DeliveryStateMachine(wanted: 1))
        _ = machine.next(now: 0)
        machine.confirmed(1, hookFault: nil, now: 0)
        machine.refresh()
        #expect(machine.phase == .applied)
        #expect(machine.next(now: 0) == .put(1))
        machine.lost(now: 0)
        #expect(machine.phase == .applied && machine.next(now: 0) == nil)
        machine.refresh()
        #expect(machine.next(now: 0) == .put(1))
    }

    @Test func whatIsToGoIsGoneWhenTheClientSaysSo() {
        let machine = Held(DeliveryStateMachine(wanted: 1))
        _ = machine.next(now: 0)
        machine.confirmed(1, hookFault: nil, now: 0)
        #expect(machine.want(nil))
        #expect(machine.phase == .removing && !machine.isOver)
        #expect(machine.next(now: 0) == .remove)
        machine.lost(now: 0)
        #expect(!machine.isOver)
        #expect(machine.next(now: 1_000) == .remove)
        machine.removed()
        #expect(machine.isOver && machine.next(now: 9_999) == nil)
    }

    /// It may have arrived although nobody said so: it is removed all the same.
    @Test func whatWasUnderwayIsRemovedToo() {
        let machine = Held(DeliveryStateMachine(wanted: 1))
        _ = machine.next(now: 0)
        #expect(machine.want(nil))
        machine.lost(now: 0)
        #expect(!machine.isOver)
        #expect(machine.next(now: 1_000) == .remove)
    }

    @Test func wantedAgainWhileItIsRemoved() {
        let machine = Held(DeliveryStateMachine(wanted: 1))
        _ = machine.next(now: 0)
        machine.confirmed(1, hookFault: nil, now: 0)
        machine.want(nil)
        #expect(machine.next(now: 0) == .remove)
        #expect(machine.want(1))
        machine.removed()
        #expect(machine.next(now: 0) == .put(1))
    }

    @Test func afterARestartEverythingIsShownAgain() {
        let machine = Held(DeliveryStateMachine(wanted: 2, placed: 2, phase: .applied, code: "", reason: "", confirmedAt: 7))
        #expect(machine.next(now: 0) == .put(2))
        let removed = Held(DeliveryStateMachine(wanted: nil, placed: nil, phase: .removing, code: "", reason: "", confirmedAt: 0))
        #expect(removed.next(now: 0) == .remove)
    }
}

import Testing

@testable import Kernel

@Suite struct JobStateMachineTests {
    private let retry = JobRetry(maximumAttempts: 3, firstMilliseconds: 1_000, longestMilliseconds: 3_000)

    private func running(_ guarantee: JobGuarantee, deadline: UInt64? = nil) -> JobStateMachine {
        var machine = JobStateMachine(guarantee, retry, dueAt: 0, deadline: deadline, maximumInterruptions: 4)
        let started = machine.apply(.started(fence: 7), now: 10, random: 0)
        #expect(started)
        return machine
    }

    /// Applies; tells whether it was legal.
    private func can(_ machine: inout JobStateMachine, _ event: JobStateMachine.Event, now: UInt64 = 100) -> Bool {
        machine.apply(event, now: now, random: 0.5)
    }

    @Test func failuresPauseLongerAndLongerThenEnd() {
        var machine = running(.idempotent)
        #expect(can(&machine, .failed(code: "x", reason: "y", again: .ifIdempotent)))
        #expect(machine.state == .waiting && machine.dueAt == 100 + 750)
        #expect(machine.code == "x" && machine.reason == "y")
        #expect(can(&machine, .started(fence: 8)))
        #expect(can(&machine, .failed(code: "x", reason: "y", again: .ifIdempotent)))
        #expect(machine.dueAt == 100 + 1_500)
        #expect(can(&machine, .started(fence: 9)))
        #expect(can(&machine, .failed(code: "x", reason: "y", again: .ifIdempotent)))
        #expect(machine.state == .dead && machine.attempt == 3)
    }

    @Test func pausesAreBoundedAndSpread() {
        let retry = JobRetry()
        for failures in 1...200 {
            let least = retry.pause(afterFailures: failures, random: 0)
            let most = retry.pause(afterFailures: failures, random: 0.999_999)
            #expect(least > 0 && least < most && most <= retry.longestMilliseconds)
        }
    }

    @Test func anAtMostOnceJobRunsAgainOnlyIfNothingWasDone() {
        var machine = running(.atMostOnce)
        #expect(can(&machine, .failed(code: "x", reason: "", again: .nothingWasDone)))
        #expect(machine.state == .waiting)
        #expect(can(&machine, .started(fence: 8)))
        #expect(can(&machine, .failed(code: "x", reason: "", again: .ifIdempotent)))
        #expect(machine.state == .dead)

        var interrupted = running(.atMostOnce)
        #expect(can(&interrupted, .interrupted(reason: "power")))
        #expect(interrupted.state == .dead && interrupted.code == "interrupted" && interrupted.reason == "power")
    }

    @Test func interruptionsGoOnUntilTheyLookLikeTheJobsOwnFault() {
        var machine = running(.idempotent)
        for fence in 8..<12 as Range<UInt64> {
            #expect(can(&machine, .interrupted(reason: "crash")))
            #expect(machine.state == .waiting && machine.failures == 0)
            #expect(can(&machine, .started(fence: fence)))
        }
        #expect(can(&machine, .interrupted(reason: "crash")))
        #expect(machine.state == .dead && machine.code == "interrupted-too-often")
    }

    @Test func whatWasNotBegunGoesOnWhateverTheKindPromises() {
        for guarantee in JobGuarantee.allCases {
            var machine = running(guarantee)
            #expect(can(&machine, .notBegun(reason: "kind gone")))
            #expect(machine.state == .waiting && machine.failures == 0 && machine.interruptions == 1 && machine.dueAt == 100)
            for fence in 8..<12 as Range<UInt64> {
                #expect(can(&machine, .started(fence: fence)))
                #expect(can(&machine, .notBegun(reason: "kind gone")))
            }
            #expect(machine.state == .dead && machine.code == "interrupted-too-often")
        }
    }

    @Test func aCancelWinsOverEveryEndButSuccess() {
        let ends: [JobStateMachine.Event] = [
            .failed(code: "x", reason: "", again: .nothingWasDone), .interrupted(reason: ""), .notBegun(reason: ""),
            .afterChildren, .cancelled,
        ]
        for end in ends {
            var machine = running(.idempotent)
            #expect(can(&machine, .cancel))
            #expect(!can(&machine, .cancel))
            #expect(machine.state == .running)
            #expect(can(&machine, end))
            #expect(machine.state == .cancelled)
        }
        var done = running(.idempotent)
        #expect(can(&done, .cancel))
        #expect(can(&done, .succeeded))
        #expect(done.state == .succeeded)
    }

    @Test func childrenHoldAParentWithoutCountingAsFailure() {
        var machine = running(.atMostOnce)
        #expect(can(&machine, .afterChildren))
        #expect(machine.state == .waiting && machine.waitsForChildren)
        #expect(!can(&machine, .started(fence: 8)))
        #expect(can(&machine, .childrenEnded))
        #expect(!can(&machine, .childrenEnded))
        #expect(can(&machine, .started(fence: 8)))
        #expect(machine.attempt == 2 && machine.failures == 0)
    }

    @Test func aDeadlineEndsWhatWaitsAndWhatRuns() {
        var waiting = JobStateMachine(.idempotent, retry, dueAt: 0, deadline: 500)
        #expect(!can(&waiting, .deadlinePassed, now: 499))
        #expect(can(&waiting, .deadlinePassed, now: 500))
        #expect(waiting.state == .dead && waiting.code == "deadline-passed")
        // A pause that would end after it is not begun.
        var failed = running(.idempotent, deadline: 500)
        #expect(can(&failed, .failed(code: "x", reason: "y", again: .ifIdempotent)))
        #expect(failed.state == .dead && failed.code == "x")
    }

    @Test func aFinishedJobTakesNothingButARetry() {
        let all: [JobStateMachine.Event] = [
            .started(fence: 99), .succeeded, .failed(code: "", reason: "", again: .nothingWasDone), .afterChildren,
            .childrenEnded, .interrupted(reason: ""), .notBegun(reason: ""), .cancel, .cancelled, .deadlinePassed,
        ]
        for end in [JobStateMachine.Event.succeeded, .cancelled, .failed(code: "x", reason: "", again: .never)] {
            var machine = running(.idempotent)
            #expect(can(&machine, end))
            let before = machine
            for event in all {
                #expect(!can(&machine, event))
                #expect(machine == before)
            }
            #expect(can(&machine, .retried) == (before.state != .succeeded))
        }
    }

    @Test func aRetryGivesAllAttemptsAgain() {
        var machine = running(.idempotent, deadline: 500)
        #expect(can(&machine, .failed(code: "x", reason: "", again: .never)))
        #expect(can(&machine, .retried, now: 900))
        #expect(machine.state == .waiting && machine.dueAt == 900 && machine.deadline == nil && machine.failures == 0)
        #expect(!can(&machine, .started(fence: 7)), "an old fencing number starts nothing")
        #expect(can(&machine, .started(fence: 8)))
        #expect(machine.attempt == 2)
    }
}

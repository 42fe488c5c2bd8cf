import Testing

@testable import Kernel

@Suite struct ScheduleStateMachineTests {
    typealias Skip = ScheduleStateMachine.Skip

    private func rules(
        _ overlap: ScheduleOverlap = .skip, _ missed: ScheduleMissed = .once, limit: Int = 3, grace: UInt64 = 10
    ) throws -> ScheduleStateMachine.Rules {
        var definition = ScheduleDefinition(kind: "k", timing: .cron(try CronExpression("* * * * *")))
        definition.overlap = overlap
        definition.missed = missed
        definition.missedLimit = limit
        definition.graceMilliseconds = grace
        return ScheduleStateMachine.Rules(definition)
    }

    private func arrival(_ times: [UInt64], isAll: Bool = true, following: UInt64? = 1_000) -> ScheduleStateMachine.Arrival {
        ScheduleStateMachine.Arrival(newest: times, isAll: isAll, following: following, followingDue: following)
    }

    @Test func aTimeThatComesGetsItsRunAndTheNextFollows() throws {
        var machine = ScheduleStateMachine(next: 100, due: 100)
        let decision = machine.arrive(arrival([100], following: 200), now: 105, isBusy: false, rules: try rules())
        #expect(decision.runs == [100] && decision.skips.isEmpty)
        #expect(machine == ScheduleStateMachine(next: 200, due: 200))
        let last = machine.arrive(arrival([200], following: nil), now: 200, isBusy: false, rules: try rules())
        #expect(last.runs == [200] && machine.next == nil && machine.due == nil)
        #expect(machine.arrive(arrival([200]), now: 300, isBusy: false, rules: try rules()).runs.isEmpty, "it has ended")
    }

    @Test func aRunThatHasNotEndedMeetsTheOverlapRule() throws {
        var machine = ScheduleStateMachine(next: 100, due: 100)
        let skipped = machine.arrive(arrival([100]), now: 100, isBusy: true, rules: try rules(.skip))
        #expect(skipped.runs.isEmpty && skipped.skips == [Skip(reason: .overlap, first: 100, last: 100)])
        #expect(machine.backlog.isEmpty)

        machine = ScheduleStateMachine(next: 100, due: 100)
        let beside = machine.arrive(arrival([100]), now: 100, isBusy: true, rules: try rules(.allow))
        #expect(beside.runs == [100] && beside.skips.isEmpty)

        machine = ScheduleStateMachine(next: 100, due: 100)
        let queued = machine.arrive(arrival([100], following: 200), now: 100, isBusy: true, rules: try rules(.queue))
        #expect(queued.runs.isEmpty && queued.skips.isEmpty && machine.backlog == [100])
        let second = machine.arrive(arrival([200], following: 300), now: 200, isBusy: true, rules: try rules(.queue))
        #expect(second.skips == [Skip(reason: .overlap, first: 200, last: 200)], "one waits at most")
        #expect(machine.runEnded() == 100 && machine.runEnded() == nil)
    }

    @Test func whatWaitsGoesBeforeWhatComes() throws {
        var machine = ScheduleStateMachine(next: 200, due: 200, backlog: [100])
        let decision = machine.arrive(arrival([200]), now: 200, isBusy: false, rules: try rules(.queue))
        #expect(decision.runs.isEmpty && machine.backlog == [100])
    }

    @Test func missedTimesMeetTheirRule() throws {
        let times: [UInt64] = [100, 200, 300, 400]
        // The last one is within its grace.
        var machine = ScheduleStateMachine(next: 100, due: 100)
        let skip = machine.arrive(arrival(times), now: 405, isBusy: false, rules: try rules(.skip, .skip))
        #expect(skip.runs == [400] && skip.skips == [Skip(reason: .missed, first: 100, last: 300)])
        machine = ScheduleStateMachine(next: 100, due: 100)
        let none = machine.arrive(arrival(times), now: 450, isBusy: false, rules: try rules(.skip, .skip))
        #expect(none.runs.isEmpty && none.skips == [Skip(reason: .missed, first: 100, last: 400)])
        machine = ScheduleStateMachine(next: 100, due: 100)
        let once = machine.arrive(arrival(times), now: 450, isBusy: false, rules: try rules(.skip, .once))
        #expect(once.runs == [400] && once.skips == [Skip(reason: .missed, first: 100, last: 300)])
        machine = ScheduleStateMachine(next: 100, due: 100)
        let all = machine.arrive(arrival(times), now: 450, isBusy: false, rules: try rules(.allow, .all))
        #expect(all.runs == [200, 300, 400] && all.skips == [Skip(reason: .missed, first: 100, last: 100)], "bounded")
    }

    @Test func madeUpRunsThatMustNotOverlapGoOneAfterTheOther() throws {
        for overlap in [ScheduleOverlap.skip, .queue] {
            var machine = ScheduleStateMachine(next: 100, due: 100)
            let decision = machine.arrive(arrival([100, 200, 300]), now: 450, isBusy: false, rules: try rules(overlap, .all))
            #expect(decision.runs == [100] && machine.backlog == [200, 300] && decision.skips.isEmpty)
            #expect(machine.runEnded() == 200)
            #expect(machine.runEnded() == 300)
        }
    }

    @Test func moreThanCouldBeLookedAtIsMissed() throws {
        var machine = ScheduleStateMachine(next: 100, due: 100)
        let decision = machine.arrive(
            arrival([97_000, 98_000, 99_000], isAll: false), now: 99_000, isBusy: false, rules: try rules(.skip, .skip))
        #expect(decision.runs == [99_000])
        #expect(decision.skips == [Skip(reason: .missed, first: 100, last: 98_000)])
    }

    @Test func jitterIsNotLateness() throws {
        var machine = ScheduleStateMachine(next: 100, due: 150)
        let decision = machine.arrive(arrival([100]), now: 155, isBusy: false, rules: try rules(.skip, .skip))
        #expect(decision.runs == [100])
        machine = ScheduleStateMachine(next: 100, due: 150)
        #expect(machine.arrive(arrival([100]), now: 161, isBusy: false, rules: try rules(.skip, .skip)).runs.isEmpty)
    }

    @Test func aRestartForgetsWhatWaited() {
        var machine = ScheduleStateMachine(next: 200, due: 200, backlog: [100])
        machine.restart(next: nil, due: nil)
        #expect(machine == ScheduleStateMachine())
    }
}

@Suite struct ScheduleTimesTests {
    private func times(_ cron: String, _ change: (inout ScheduleDefinition) -> Void = { _ in }) throws -> ScheduleTimes {
        var definition = ScheduleDefinition(kind: "k", timing: .cron(try CronExpression(cron)))
        change(&definition)
        return try ScheduleTimes(definition, in: .utc)
    }

    @Test func timesLieBetweenStartAndEnd() throws {
        let minute: UInt64 = 60_000
        let times = try times("* * * * *") {
            $0.startsAt = 10 * minute
            $0.endsAt = 12 * minute
        }
        #expect(times.next(after: 0) == 10 * minute, "the start itself counts")
        #expect(times.next(after: 11 * minute) == 12 * minute, "and the end")
        #expect(times.next(after: 12 * minute) == nil)
    }

    @Test func aOneTimeScheduleHasOneTime() throws {
        var definition = ScheduleDefinition(kind: "k", timing: .at(5_000))
        #expect(try ScheduleTimes(definition, in: .utc).next(after: 4_999) == 5_000)
        #expect(try ScheduleTimes(definition, in: .utc).next(after: 5_000) == nil)
        definition.startsAt = 5_001
        #expect(try ScheduleTimes(definition, in: .utc).next(after: 0) == nil)
        let local = ScheduleDefinition(kind: "k", timing: .local("1970-01-01T01:00"))
        #expect(try ScheduleTimes(local, in: .utc).next(after: 0) == 3_600_000)
        let wrong = ScheduleDefinition(kind: "k", timing: .local("tomorrow, ten"))
        #expect(throws: Problem.self) { try ScheduleTimes(wrong, in: .utc) }
    }

    @Test func theNewestOfALongTimeAreFoundByLookingBack() throws {
        let year: UInt64 = 366 * 86_400_000
        let every = try times("* * * * *")
        let (newest, isAll) = every.newest(3, from: 60_000, through: 30 * year)
        #expect(!isAll)
        #expect(newest == [30 * year - 120_000, 30 * year - 60_000, 30 * year])
        let few = every.newest(3, from: 60_000, through: 120_000)
        #expect(few.times == [60_000, 120_000] && few.isAll)
        let exactly = every.newest(2, from: 60_000, through: 120_000)
        #expect(exactly.times == [60_000, 120_000] && exactly.isAll)
        let rare = try times("0 0 29 2 *").newest(2, from: 0, through: 30 * year)
        #expect(rare.times.count == 2 && !rare.isAll)
        #expect(try times("0 0 1 1 *").newest(100, from: 1, through: year).times.count == 1)
    }
}

/// The times of one schedule, in Unix milliseconds: its timing in its zone, from its start to its end.
struct ScheduleTimes: Sendable {
    private enum Rule: Sendable {
        case cron(CronExpression)
        case once(UInt64)
    }
    private let rule: Rule
    private let zone: ZoneRules
    private let first: UInt64
    private let last: UInt64

    /// - Throws: 400 for a local time that is none.
    init(_ definition: ScheduleDefinition, in zone: ZoneRules) throws(Problem) {
        switch definition.timing {
        case .cron(let expression): rule = .cron(expression)
        case .at(let time): rule = .once(time)
        case .local(let text):
            guard let local = LocalTime(text) else {
                throw .invalid(
                    "\"\(text.prefix(40))\" is no time on a clock; write one such as \"2026-03-29T02:30\"", pointer: "/at")
            }
            rule = .once(UInt64(clamping: local.instant(in: zone)))
        }
        self.zone = zone
        first = definition.startsAt ?? 0
        last = definition.endsAt ?? .max
    }

    func next(after time: UInt64) -> UInt64? {
        let found: UInt64?
        switch rule {
        case .once(let once): found = once > time && once >= first ? once : nil
        case .cron(let expression):
            let after = max(time, first == 0 ? 0 : first - 1)
            found = expression.next(after: Int64(clamping: after), in: zone).map { UInt64(clamping: $0) }
        }
        guard let found, found <= last else { return nil }
        return found
    }

    /// The newest `count` of the times from `from` through `through`, oldest first; `isAll` when there are no more.
    ///
    /// Looks back over longer and longer spans, so that a year of missed minutes costs no more than the wanted few.
    func newest(_ count: Int, from: UInt64, through: UInt64) -> (times: [UInt64], isAll: Bool) {
        guard from <= through, count > 0 else { return ([], true) }
        var span: UInt64 = 3_600_000
        while true {
            let isWhole = through - from <= span
            var found: [UInt64] = []
            var after = isWhole ? (from == 0 ? 0 : from - 1) : through - span
            // A cron has 60 times an hour at most: a span that is 24 times the last one has at most 24 times as many.
            while let time = next(after: after), time <= through {
                found.append(time)
                after = time
            }
            if found.count > count { return (Array(found.suffix(count)), false) }
            if isWhole { return (found, true) }
            if found.count == count { return (found, next(after: from == 0 ? 0 : from - 1) == found[0]) }
            let (longer, overflows) = span.multipliedReportingOverflow(by: 24)
            span = overflows ? .max : longer
        }
    }
}

import Program

/// Five fields, `minute hour day-of-month month day-of-week`, as cron has them, or one of `@hourly`, `@daily`,
/// `@weekly`, `@monthly`, `@yearly`.
///
/// A field is `*`, a number, a range `a-b`, either with a step `/n`, or several of these with commas; months and
/// weekdays also by their first three letters; 0 and 7 are Sunday. When both day fields are narrowed, a day needs to fit
/// only one of them (as in Vixie's cron); a field that begins with `*` does not count as narrowed.
public struct CronExpression: Sendable, Hashable, CustomStringConvertible {
    public let description: String
    private let minutes: UInt64
    private let hours: UInt64
    private let days: UInt64
    private let months: UInt64
    private let weekdays: UInt64
    private let eitherDay: Bool
    /// Whether it names hours of the clock. Without, it is a rhythm of real time (`*/15 * * * *`).
    public let isAtFixedHours: Bool

    private static let named = [
        "@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0",
        "@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *",
    ]
    private static let monthNames = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
    private static let weekdayNames = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]

    /// - Throws: 400 with the field that is wrong and what would be right.
    public init(_ text: String) throws(Problem) {
        let words = (Self.named[text] ?? text).split { $0 == " " || $0 == "\t" }
        guard words.count == 5, text.utf8.count <= 256 else {
            throw .invalid(
                "\"\(text.prefix(80))\" has \(words.count) fields; write minute, hour, day of month, month and day of week, such as \"30 2 * * mon-fri\", or @hourly, @daily, @weekly, @monthly, @yearly",
                pointer: "/cron")
        }
        minutes = try Self.field(words[0], "minute", 0...59)
        hours = try Self.field(words[1], "hour", 0...23)
        days = try Self.field(words[2], "day of month", 1...31)
        months = try Self.field(words[3], "month", 1...12, names: Self.monthNames, firstName: 1)
        var weekdays = try Self.field(words[4], "day of week", 0...7, names: Self.weekdayNames, firstName: 0)
        if weekdays & 1 << 7 != 0 { weekdays = weekdays & 0x7F | 1 }
        self.weekdays = weekdays
        eitherDay = words[2].first != "*" && words[4].first != "*"
        isAtFixedHours = words[1].first != "*"
        description = text
        guard next(after: 0, in: .utc) != nil else {
            throw .invalid("\"\(text)\" never happens: no year has such a day", pointer: "/cron")
        }
    }

    private static func field(
        _ text: Substring, _ name: String, _ range: ClosedRange<Int>, names: [String] = [], firstName: Int = 0
    ) throws(Problem) -> UInt64 {
        func number(_ word: Substring) throws(Problem) -> Int {
            if let value = Int(word), word.utf8.allSatisfy({ (0x30...0x39).contains($0) }), range.contains(value) {
                return value
            }
            if let index = names.firstIndex(of: word.lowercased()) { return index + firstName }
            throw .invalid(
                "the \(name) \"\(word.prefix(20))\" is none of \(range.lowerBound) to \(range.upperBound)\(names.isEmpty ? "" : ", \(names.joined(separator: ", "))")",
                pointer: "/cron")
        }
        var mask: UInt64 = 0
        for item in text.split(separator: ",", omittingEmptySubsequences: false) {
            let parts = item.split(separator: "/", omittingEmptySubsequences: false)
            var first = range.lowerBound
            var last = range.upperBound
            let base = parts.first ?? ""
            if base != "*" {
                let ends = base.split(separator: "-", omittingEmptySubsequences: false)
                first = try number(ends[0])
                // "5/10" means from 5 on.
                if ends.count == 2 { last = try number(ends[1]) } else if parts.count == 1 { last = first }
                guard ends.count <= 2, first <= last else {
                    throw .invalid("the \(name) \"\(item.prefix(20))\" is no range from low to high", pointer: "/cron")
                }
            }
            var step = 1
            if parts.count > 1 {
                guard parts.count == 2, let value = Int(parts[1]), value >= 1, value <= range.upperBound else {
                    throw .invalid(
                        "the step of the \(name) \"\(item.prefix(20))\" is none of 1 to \(range.upperBound)", pointer: "/cron")
                }
                step = value
            }
            for value in stride(from: first, through: last, by: step) { mask |= 1 << UInt64(value) }
        }
        return mask
    }

    private func includes(day: Int64) -> Bool {
        let date = CivilDate(daysSinceEpoch: day)
        guard months & 1 << UInt64(date.month) != 0 else { return false }
        let fitsDate = days & 1 << UInt64(date.day) != 0
        let fitsWeekday = weekdays & 1 << UInt64(CivilDate.weekday(daysSinceEpoch: day)) != 0
        return eitherDay ? fitsDate || fitsWeekday : fitsDate && fitsWeekday
    }

    /// The first time on the clock that fits, from `start` up to but not including `end` (seconds as the clock shows
    /// them, counted as if it showed UTC).
    func firstLocal(from start: Int64, before end: Int64) -> Int64? {
        var minute = CivilDate.floorDivide(start + 59, by: 60)
        while minute * 60 < end {
            let day = CivilDate.floorDivide(minute, by: 1_440)
            if includes(day: day), let found = firstMinute(from: minute - day * 1_440) {
                let local = (day * 1_440 + found) * 60
                return local < end ? local : nil
            }
            minute = (day + 1) * 1_440
        }
        return nil
    }

    /// The first minute of a day that fits, from `start` (0 to 1,439) on.
    private func firstMinute(from start: Int64) -> Int64? {
        var minute = start % 60
        for hour in start / 60..<24 {
            if hours & 1 << UInt64(hour) != 0 {
                let left = minutes & ~(UInt64(1) << UInt64(minute) - 1)
                if left != 0 { return hour * 60 + Int64(left.trailingZeroBitCount) }
            }
            minute = 0
        }
        return nil
    }
}

extension CronExpression {
    /// A rare day (29 February around 2100) comes again within eight years.
    private static let horizonSeconds: Int64 = 9 * 366 * 86_400

    /// The first time after `milliseconds` (Unix), in Unix milliseconds. `nil`: none within nine years.
    ///
    /// Where clocks change, Vixie's rules hold. At fixed hours: a time that the clock skips comes once, at the first
    /// instant after the gap; a time that the clock shows twice comes the first time only. A rhythm (the hour is `*`)
    /// keeps to real time: nothing in the gap, and on in the doubled hour.
    public func next(after milliseconds: Int64, in zone: ZoneRules) -> Int64? {
        let after = CivilDate.floorDivide(milliseconds, by: 1_000)
        let limit = after + Self.horizonSeconds
        var period = zone.period(at: after)
        while true {
            var from = max(after + 1, period.start) + period.offset
            if isAtFixedHours, period.start > .min {
                let before = zone.period(at: period.start - 1).offset
                if before > period.offset {
                    from = max(from, period.start + before)
                } else if before < period.offset, period.start > after,
                    firstLocal(from: period.start + before, before: period.start + period.offset) != nil {
                    return period.start * 1_000
                }
            }
            if let local = firstLocal(from: from, before: min(period.end, limit) + period.offset) {
                return (local - period.offset) * 1_000
            }
            guard period.end < limit else { return nil }
            period = zone.period(at: period.end)
        }
    }
}

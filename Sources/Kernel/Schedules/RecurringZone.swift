import Program

/// The rule that a TZif file ends with, for all times after its last listed change: a POSIX `TZ` text such as
/// `CET-1CEST,M3.5.0,M10.5.0/3`, with the extensions of RFC 8536 (times from −167 to 167 hours).
struct RecurringZone: Sendable, Equatable {
    /// A day of each year and a time of that day, in the clock that shows before the change.
    private struct Turn: Sendable, Equatable {
        enum Day: Sendable, Equatable {
            /// 1 to 365; 29 February is never counted.
            case julian(Int64)
            /// 0 to 365.
            case ordinal(Int64)
            /// Month, week (5: the last), weekday (0: Sunday).
            case weekday(month: Int64, week: Int64, day: Int64)
        }
        var day: Day
        var seconds: Int64

        /// Seconds since the epoch, as if the clock showed UTC.
        func local(_ year: Int64) -> Int64 {
            let newYear = CivilDate(year: year, month: 1, day: 1).daysSinceEpoch
            let days: Int64
            switch day {
            case .julian(let number): days = newYear + number - 1 + (number > 59 && CivilDate.isLeap(year) ? 1 : 0)
            case .ordinal(let number): days = newYear + number
            case .weekday(let month, let week, let weekday):
                let first = CivilDate(year: year, month: month, day: 1).daysSinceEpoch
                var date = (weekday - CivilDate.weekday(daysSinceEpoch: first) + 7) % 7 + 7 * (week - 1)
                if date >= CivilDate.days(inMonth: month, of: year) { date -= 7 }
                days = first + date
            }
            return days * 86_400 + seconds
        }
    }

    private let standard: Int64
    /// The other offset, when it begins and when it ends.
    private let summer: Summer?
    private struct Summer: Sendable, Equatable {
        var offset: Int64
        var begins: Turn
        var ends: Turn
    }

    func period(at seconds: Int64) -> ZoneRules.Period {
        guard let summer else { return ZoneRules.Period(start: .min, end: .max, offset: standard) }
        // Far away from any clock; keeps the arithmetic below within its bounds.
        let near = min(max(seconds, -1 << 50), 1 << 50)
        let year = CivilDate(daysSinceEpoch: CivilDate.floorDivide(near + standard, by: 86_400)).year
        var turns: [(at: Int64, offset: Int64)] = []
        for year in year - 1...year + 1 {
            turns.append((summer.begins.local(year) - standard, summer.offset))
            turns.append((summer.ends.local(year) - summer.offset, standard))
        }
        // Of two at one instant (summer all the year) the beginning counts: it comes after the end.
        turns.sort { ($0.at, $0.offset == summer.offset ? 1 : 0) < ($1.at, $1.offset == summer.offset ? 1 : 0) }
        let next = turns.firstIndex { $0.at > near } ?? turns.count - 1
        guard next > 0 else { return ZoneRules.Period(start: .min, end: turns[0].at, offset: standard) }
        return ZoneRules.Period(start: turns[next - 1].at, end: turns[next].at, offset: turns[next - 1].offset)
    }

    init(_ text: String) throws(ZoneFault) {
        var reader = Reader(rest: Array(text.utf8)[...])
        try reader.name()
        standard = -(try reader.offset())
        guard !reader.rest.isEmpty else {
            summer = nil
            return
        }
        try reader.name()
        let offset = reader.rest.first == UInt8(ascii: ",") ? standard + 3_600 : -(try reader.offset())
        let begins = try reader.turn()
        let ends = try reader.turn()
        guard reader.rest.isEmpty else { throw Self.fault }
        summer = Summer(offset: offset, begins: begins, ends: ends)
    }

    private static let fault = ZoneFault(reason: "the rule for later years cannot be read")

    private struct Reader {
        var rest: ArraySlice<UInt8>

        mutating func take(_ character: Character) -> Bool {
            guard rest.first == character.asciiValue else { return false }
            rest = rest.dropFirst()
            return true
        }

        /// Letters, or anything between `<` and `>`.
        mutating func name() throws(ZoneFault) {
            if take("<") {
                guard let end = rest.firstIndex(of: UInt8(ascii: ">")) else { throw fault }
                rest = rest[(end + 1)...]
            } else {
                let letters = rest.prefix { (0x41...0x5A).contains($0 & 0xDF) }
                guard letters.count >= 3 else { throw fault }
                rest = rest.dropFirst(letters.count)
            }
        }

        mutating func number(_ range: ClosedRange<Int64>) throws(ZoneFault) -> Int64 {
            let digits = rest.prefix { (0x30...0x39).contains($0) }
            guard (1...3).contains(digits.count) else { throw fault }
            rest = rest.dropFirst(digits.count)
            let value = digits.reduce(Int64(0)) { $0 * 10 + Int64($1 - 0x30) }
            guard range.contains(value) else { throw fault }
            return value
        }

        /// `[+-]hh[:mm[:ss]]` in seconds.
        mutating func offset() throws(ZoneFault) -> Int64 {
            let sign: Int64 = take("-") ? -1 : 1
            if sign == 1 { _ = take("+") }
            var seconds = try number(0...167) * 3_600
            if take(":") {
                seconds += try number(0...59) * 60
                if take(":") { seconds += try number(0...59) }
            }
            return sign * seconds
        }

        /// `,date[/time]`
        mutating func turn() throws(ZoneFault) -> Turn {
            guard take(",") else { throw fault }
            let day: Turn.Day
            if take("M") {
                let month = try number(1...12)
                guard take(".") else { throw fault }
                let week = try number(1...5)
                guard take(".") else { throw fault }
                day = .weekday(month: month, week: week, day: try number(0...6))
            } else if take("J") {
                day = .julian(try number(1...365))
            } else {
                day = .ordinal(try number(0...365))
            }
            return Turn(day: day, seconds: take("/") ? try offset() : 7_200)
        }
    }
}

import Glibc

/// Wall-clock time as everything outside this system sees it: RFC 3339, UTC, milliseconds (`2026-01-31T23:59:59.123Z`).
public struct Timestamp: Sendable, Hashable, Comparable {
    /// Since 1970-01-01T00:00:00Z, without leap seconds.
    public var milliseconds: Int64

    public init(milliseconds: Int64) { self.milliseconds = milliseconds }

    public static func now() -> Timestamp {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Timestamp(milliseconds: Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000)
    }

    public static func < (left: Timestamp, right: Timestamp) -> Bool { left.milliseconds < right.milliseconds }

    /// Accepts RFC 3339 with `Z` or an offset, with or without a fraction; years 1 to 9999. `nil` for anything else.
    public init?(_ text: String) {
        var digits = Array(text.utf8)[...]
        func number(_ count: Int) -> Int64? {
            guard digits.count >= count else { return nil }
            var result: Int64 = 0
            for byte in digits.prefix(count) {
                guard byte >= 0x30, byte <= 0x39 else { return nil }
                result = result * 10 + Int64(byte - 0x30)
            }
            digits = digits.dropFirst(count)
            return result
        }
        func skip(_ allowed: String) -> Bool {
            guard let first = digits.first, allowed.utf8.contains(first) else { return false }
            digits = digits.dropFirst()
            return true
        }
        guard let year = number(4), year > 0, skip("-"), let month = number(2), (1...12).contains(month), skip("-"),
            let day = number(2), day >= 1, day <= Self.days(inMonth: month, of: year), skip("Tt "),
            let hour = number(2), hour < 24, skip(":"), let minute = number(2), minute < 60, skip(":"),
            let second = number(2), second < 60
        else { return nil }
        var fraction: Int64 = 0
        if skip(".") {
            var scale: Int64 = 100
            guard let first = digits.first, (0x30...0x39).contains(first) else { return nil }
            while let digit = number(1) {
                fraction += digit * scale
                scale /= 10
            }
        }
        var offset: Int64 = 0
        if !skip("Zz") {
            guard let sign = digits.first, skip("+-"), let hours = number(2), hours < 24, skip(":"),
                let minutes = number(2), minutes < 60
            else { return nil }
            offset = (hours * 60 + minutes) * 60 * (sign == UInt8(ascii: "-") ? -1 : 1)
        }
        guard digits.isEmpty else { return nil }
        let seconds = ((Self.daysSinceEpoch(year, month, day) * 24 + hour) * 60 + minute) * 60 + second - offset
        milliseconds = seconds * 1000 + fraction
    }

    private static func days(inMonth month: Int64, of year: Int64) -> Int64 {
        switch month {
        case 2: year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) ? 29 : 28
        case 4, 6, 9, 11: 30
        default: 31
        }
    }

    /// Days of the Gregorian calendar counted from March, so that the leap day comes last; an era is 400 years.
    private static func daysSinceEpoch(_ year: Int64, _ month: Int64, _ day: Int64) -> Int64 {
        let marchYear = month <= 2 ? year - 1 : year
        let era = (marchYear >= 0 ? marchYear : marchYear - 399) / 400
        let yearOfEra = marchYear - era * 400
        let dayOfYear = (153 * ((month + 9) % 12) + 2) / 5 + day - 1
        return era * 146_097 + yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear - 719_468
    }
}

extension Timestamp: CustomStringConvertible {
    public var description: String {
        String(decoding: utf8, as: UTF8.self)
    }

    /// The 24 bytes of the text.
    var utf8: [UInt8] {
        let floorDivided = { (value: Int64, by: Int64) in value >= 0 ? value / by : (value - by + 1) / by }
        let seconds = floorDivided(milliseconds, 1000)
        let days = floorDivided(seconds, 86_400)
        let shifted = days + 719_468
        let era = floorDivided(shifted, 146_097)
        let dayOfEra = shifted - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1_460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let monthFromMarch = (5 * dayOfYear + 2) / 153
        let month = monthFromMarch < 10 ? monthFromMarch + 3 : monthFromMarch - 9
        let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
        let secondOfDay = seconds - days * 86_400
        var text: [UInt8] = []
        text.reserveCapacity(24)
        func append(_ value: Int64, digits: Int, then separator: Character) {
            var divisor: Int64 = 1
            for _ in 1..<digits { divisor *= 10 }
            for _ in 0..<digits {
                text.append(UInt8(truncatingIfNeeded: 0x30 + value / divisor % 10))
                divisor /= 10
            }
            text.append(separator.asciiValue ?? 0)
        }
        append(year, digits: 4, then: "-")
        append(month, digits: 2, then: "-")
        append(dayOfYear - (153 * monthFromMarch + 2) / 5 + 1, digits: 2, then: "T")
        append(secondOfDay / 3600, digits: 2, then: ":")
        append(secondOfDay / 60 % 60, digits: 2, then: ":")
        append(secondOfDay % 60, digits: 2, then: ".")
        append(milliseconds - seconds * 1000, digits: 3, then: "Z")
        return text
    }
}

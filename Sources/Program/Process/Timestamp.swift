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
            let day = number(2), day >= 1, day <= CivilDate.days(inMonth: month, of: year), skip("Tt "),
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
        let seconds = ((CivilDate(year: year, month: month, day: day).daysSinceEpoch * 24 + hour) * 60 + minute) * 60 + second - offset
        milliseconds = seconds * 1000 + fraction
    }
}

extension Timestamp: CustomStringConvertible {
    public var description: String {
        String(decoding: utf8, as: UTF8.self)
    }

    /// The 24 bytes of the text.
    var utf8: [UInt8] {
        let seconds = CivilDate.floorDivide(milliseconds, by: 1000)
        let days = CivilDate.floorDivide(seconds, by: 86_400)
        let date = CivilDate(daysSinceEpoch: days)
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
        append(date.year, digits: 4, then: "-")
        append(date.month, digits: 2, then: "-")
        append(date.day, digits: 2, then: "T")
        append(secondOfDay / 3600, digits: 2, then: ":")
        append(secondOfDay / 60 % 60, digits: 2, then: ":")
        append(secondOfDay % 60, digits: 2, then: ".")
        append(milliseconds - seconds * 1000, digits: 3, then: "Z")
        return text
    }
}

import Program

/// A date and a time as a clock on the wall shows them, without a zone: `2026-03-29T02:30` or `2026-03-29T02:30:15`.
public struct LocalTime: Sendable, Hashable {
    /// Counted as if the clock showed UTC.
    let seconds: Int64

    public init?(_ text: String) {
        let count = text.utf8.count
        guard count == 16 || count == 19, text.utf8.last.map({ (0x30...0x39).contains($0) }) ?? false,
            let time = Timestamp(count == 16 ? text + ":00Z" : text + "Z")
        else { return nil }
        seconds = time.milliseconds / 1_000
    }

    /// Unix milliseconds. A time that the clock skips is the first instant after the gap; of a doubled one the first.
    public func instant(in zone: ZoneRules) -> Int64 {
        // No offset is larger than a day and a bit: the right period is one of the few around.
        var period = zone.period(at: seconds - 2 * 86_400)
        while true {
            // In the gap before this period.
            if seconds < period.start + period.offset, period.start > .min { return period.start * 1_000 }
            if period.end == .max || seconds < period.end + period.offset { return (seconds - period.offset) * 1_000 }
            period = zone.period(at: period.end)
        }
    }
}

/// A time as the clock of a zone shows it, for people: `2026-03-29T03:30:00+02:00` (RFC 3339).
public enum ScheduleTime {
    /// - Parameters:
    ///   - milliseconds: Unix.
    ///   - offset: the zone's distance from UTC, in seconds east.
    public static func text(_ milliseconds: UInt64, offset: Int64) -> String {
        let shown = Timestamp(milliseconds: Int64(clamping: milliseconds) + offset * 1_000).description.prefix(19)
        let minutes = abs(offset) / 60
        func two(_ number: Int64) -> String { number < 10 ? "0\(number)" : "\(number)" }
        return shown + (offset < 0 ? "-" : "+") + two(minutes / 60) + ":" + two(minutes % 60)
    }
}

/// Unix time in the forms that stores speak. Civil dates after Howard Hinnant's "chrono-compatible low-level date algorithms".
struct Timestamp: Sendable, Equatable {
    let milliseconds: UInt64

    /// `20261126T021500Z`
    var basic: String {
        let (year, month, day) = Self.date(days: Int(milliseconds / 86_400_000))
        let seconds = Int(milliseconds / 1_000 % 86_400)
        return Self.padded(year, 4) + Self.padded(month, 2) + Self.padded(day, 2) + "T" + Self.padded(seconds / 3_600, 2)
            + Self.padded(seconds / 60 % 60, 2) + Self.padded(seconds % 60, 2) + "Z"
    }

    /// Of `2026-11-26T02:15:00.000Z`; `nil` for anything else.
    static func milliseconds(extended text: String) -> UInt64? {
        let parts = text.split { !("0"..."9").contains($0) }.compactMap { Int($0) }
        guard parts.count >= 6, text.utf8.count >= 20, text.utf8.last == UInt8(ascii: "Z") else { return nil }
        return milliseconds(parts[0], parts[1], parts[2], parts[3], parts[4], parts[5])
    }

    /// Of `Thu, 26 Nov 2026 02:15:00 GMT` (RFC 9110 §5.6.7); `nil` for anything else.
    static func milliseconds(http text: String) -> UInt64? {
        let names = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        let words = text.split { $0 == " " || $0 == ":" }.map(String.init)
        guard words.count >= 7, let month = names.firstIndex(of: words[2]), let day = Int(words[1]), let year = Int(words[3]),
            let hour = Int(words[4]), let minute = Int(words[5]), let second = Int(words[6])
        else { return nil }
        return milliseconds(year, month + 1, day, hour, minute, second)
    }

    private static func milliseconds(_ year: Int, _ month: Int, _ day: Int, _ hour: Int, _ minute: Int, _ second: Int) -> UInt64? {
        guard (1970...9999).contains(year), (1...12).contains(month), (1...31).contains(day), (0...23).contains(hour),
            (0...59).contains(minute), (0...60).contains(second)
        else { return nil }
        let shifted = month <= 2 ? year - 1 : year
        let era = shifted / 400
        let yearOfEra = shifted - era * 400
        let dayOfYear = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1
        let dayOfEra = yearOfEra * 365 + yearOfEra / 4 - yearOfEra / 100 + dayOfYear
        let days = era * 146_097 + dayOfEra - 719_468
        return UInt64(clamping: ((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000
    }

    private static func date(days: Int) -> (year: Int, month: Int, day: Int) {
        let shifted = days + 719_468
        let era = shifted / 146_097
        let dayOfEra = shifted - era * 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1_460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shiftedMonth = (5 * dayOfYear + 2) / 153
        let month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
        return (yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, dayOfYear - (153 * shiftedMonth + 2) / 5 + 1)
    }

    private static func padded(_ number: Int, _ width: Int) -> String {
        let text = String(number)
        return String(repeating: "0", count: max(0, width - text.utf8.count)) + text
    }
}

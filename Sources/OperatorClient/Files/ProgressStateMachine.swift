/// How far something is, how fast it goes and how long it will take: numbers in, one line of text out. Without I/O and
/// without a clock of its own.
struct ProgressStateMachine {
    /// What it is about; cut where the terminal is narrow.
    let name: String
    /// `nil`: not known.
    var total: UInt64?
    private(set) var done: UInt64
    private var lastTime: UInt64
    private var lastDone: UInt64
    /// Bytes per second, smoothed over about five seconds.
    private(set) var rate: Double?

    init(_ name: String, total: UInt64?, done: UInt64 = 0, now milliseconds: UInt64) {
        self.name = name
        self.total = total
        self.done = done
        lastDone = done
        lastTime = milliseconds
    }

    mutating func moved(to done: UInt64, now milliseconds: UInt64) {
        self.done = done
        let passed = milliseconds - min(milliseconds, lastTime)
        guard passed >= 250 else { return }
        let speed = Double(done - min(done, lastDone)) * 1_000 / Double(passed)
        let weight = min(1, Double(passed) / 5_000)
        rate = rate.map { $0 + (speed - $0) * weight } ?? speed
        (lastTime, lastDone) = (milliseconds, done)
    }

    /// `nil`: not to be told yet.
    var secondsLeft: UInt64? {
        guard let total, let rate, rate >= 1, total >= done else { return nil }
        return UInt64(min(Double(total - done) / rate, 8_640_000).rounded(.up))
    }

    /// One line of at most `width` columns: `name  42% [####----] 1.2 GiB 118 MiB/s 0:31`.
    func line(width: Int) -> String {
        var figures = Self.bytes(done)
        if let rate { figures += " " + Self.bytes(UInt64(rate)) + "/s" }
        if let left = secondsLeft { figures += " " + Self.time(left) }
        guard let total, total > 0 else { return String((Self.cut(name, width - figures.count - 2) + "  " + figures).prefix(width)) }
        let share = min(1, Double(done) / Double(total))
        let percent = String(Int(share * 100))
        let head = String(repeating: " ", count: 3 - percent.count) + percent + "% "
        let room = width - figures.count - head.count - 4
        let bar = max(0, min(40, room / 2))
        let filled = Int(share * Double(bar))
        let drawn = bar > 4 ? "[" + String(repeating: "#", count: filled) + String(repeating: "-", count: bar - filled) + "] " : ""
        return String((Self.cut(name, max(room - bar, 8)) + " " + head + drawn + figures).prefix(width))
    }

    private static func cut(_ text: String, _ width: Int) -> String {
        text.count <= width ? text : "…" + String(text.suffix(max(width - 1, 1)))
    }

    static func bytes(_ count: UInt64) -> String {
        var value = Double(count)
        for unit in ["B", "KiB", "MiB", "GiB", "TiB"] {
            if value < 1_000 || unit == "TiB" {
                if unit == "B" { return "\(count) B" }
                let tenths = Int((value * 10).rounded())
                return value < 10 ? "\(tenths / 10).\(tenths % 10) \(unit)" : "\(Int(value.rounded())) \(unit)"
            }
            value /= 1_024
        }
        return "\(count) B"
    }

    static func time(_ seconds: UInt64) -> String {
        func two(_ number: UInt64) -> String { number < 10 ? "0\(number)" : "\(number)" }
        return seconds < 3_600
            ? "\(seconds / 60):\(two(seconds % 60))"
            : "\(seconds / 3_600):\(two(seconds / 60 % 60)):\(two(seconds % 60))"
    }
}

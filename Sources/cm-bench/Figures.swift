import CFloor

/// One measured run: how much was done per second of the server's CPU time.
struct Rate {
    let perCPUSecond: Double
    let perSecond: Double
    let p50: UInt64
    let p99: UInt64

    static func measure(
        _ subject: Subject, _ load: (UInt16, inout cm_load_result) -> Int32
    ) throws(BenchError) -> Rate {
        var result = cm_load_result()
        let before = subject.cpuSeconds()
        guard load(subject.port, &result) == 0, result.count > 0 else {
            throw BenchError(status: 1, "FAIL: the server ended or answered wrongly after \(result.count) answers\n")
        }
        let used = max(subject.cpuSeconds() - before, 0.01)
        return Rate(
            perCPUSecond: Double(result.count) / used,
            perSecond: Double(result.count) * 1e9 / Double(max(result.nanoseconds, 1)), p50: result.p50,
            p99: result.p99)
    }

    static func best(_ rates: [Rate]) -> Rate? { rates.max { $0.perCPUSecond < $1.perCPUSecond } }
}

/// `1234567` as `1.23 million`, smaller numbers as they are.
func shown(_ number: Double) -> String {
    if number >= 1e6 { return "\((number / 1e4).rounded() / 100) million" }
    return "\(Int(number.rounded()))"
}

/// WebSocket echo against the C echo, by turns in the same run.
enum EchoFigure {
    private static let bar = 2.5e6
    private static let ratioBar = 0.75

    static func run(seconds: Int, rounds: Int) throws(BenchError) {
        let ours = try Subject(nil, ["ws-echo"])
        defer { ours.stop() }
        let secure = try Subject(nil, ["ws-echo", "--tls"])
        defer { secure.stop() }
        let floor = try Subject(nil, ["floor", "echo"])
        defer { floor.stop() }
        let milliseconds = UInt64(seconds) * 1_000
        var failed = false
        for depth: Int32 in [16, 1] {
            var our: [Rate] = []
            var tls: [Rate] = []
            var bare: [Rate] = []
            for _ in 0..<rounds {
                bare.append(try .measure(floor) { cm_load_echo($0, 0, 100, depth, 64, milliseconds, &$1) })
                our.append(try .measure(ours) { cm_load_echo($0, 0, 100, depth, 64, milliseconds, &$1) })
                tls.append(try .measure(secure) { cm_load_echo($0, 1, 100, depth, 64, milliseconds, &$1) })
            }
            guard let our = Rate.best(our), let tls = Rate.best(tls), let bare = Rate.best(bare) else { continue }
            let ratio = our.perCPUSecond / bare.perCPUSecond
            let what = "WebSocket echo, 64 bytes, 100 connections, \(depth) in flight"
            let figure =
                "\(shown(our.perCPUSecond)) messages per CPU-second, floor (C) \(shown(bare.perCPUSecond)), "
                + "ratio \((ratio * 100).rounded() / 100); TLS \(shown(tls.perCPUSecond))"
            let isGood = our.perCPUSecond >= bar || ratio >= ratioBar
            // The bar is for the pipelined load; with one in flight everybody pays for system calls only.
            BenchCommand.say("\(depth == 1 ? "    " : isGood ? "PASS" : "FAIL")  \(what): \(figure)")
            if depth != 1, !isGood { failed = true }
        }
        if failed { throw BenchError(status: 1, "") }
    }
}

/// The bare relay alone: what a command's round trip costs when nothing is checked or recorded.
enum RelayFigure {
    static func run(seconds: Int, rounds: Int) throws(BenchError) {
        var rates: [Rate] = []
        for _ in 0..<rounds {
            // A fresh server each time: agents keep their numbers for its life.
            let floor = try Subject(nil, ["floor", "relay"])
            defer { floor.stop() }
            rates.append(try .measure(floor) { cm_load_relay($0, 100, 50, UInt64(seconds) * 1_000, &$1) })
        }
        guard let best = Rate.best(rates) else { return }
        BenchCommand.say(
            "bare C relay, 100 agents, 50 callers: \(shown(best.perCPUSecond)) round trips per CPU-second, "
                + "p50 \(best.p50 / 1_000) us, p99 \(best.p99 / 1_000) us")
    }
}

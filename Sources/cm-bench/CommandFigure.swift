import CFloor
import Glibc
import JSON

/// Command round trips of a core as it ships (FULL, audit, policy, limits, a real disk): one POST, one client, one
/// answer with the result. The bare C relay of the same run is the floor.
struct CommandFigure {
    let agents: Int
    let callers: Int
    let isSecure: Bool
    let seconds: Int
    let rounds: Int
    /// Kept; without one the core works in a directory that goes away with the run.
    let dataDirectory: String?

    private static let bar = 25_000.0
    private static let ratioBar = 0.25
    private static let latencyBar = 5_000_000

    func run() throws(BenchError) {
        guard rounds > 0, seconds > 0 else { throw BenchError(status: 2, "--seconds and --rounds must be above 0\n") }
        let directory = if let dataDirectory { dataDirectory } else { try Self.temporaryDirectory() }
        defer { if dataDirectory == nil { Self.remove(directory) } }
        let core = try Core(directory: directory, isSecure: isSecure)
        var isRunning = true
        defer { if isRunning { core.subject.stop() } }
        let swarm = try core.swarm(agents)
        defer { swarm.stop(SIGTERM) }
        let clients = try core.waitForClients(agents)

        var sent: UInt64 = 0
        var closed: [Rate] = []
        var bare: [Rate] = []
        // What starts up (connections, caches, the first pages of the log) belongs to no round.
        _ = try core.load(clients, callers, isSecure, rate: 0, milliseconds: 500, &sent)
        for _ in 0..<rounds {
            let floor = try Subject(nil, ["floor", "relay"])
            defer { floor.stop() }
            bare.append(
                try .measure(floor) { cm_load_relay($0, Int32(agents), Int32(callers), UInt64(seconds) * 1_000, &$1) })
            closed.append(
                try core.load(clients, callers, isSecure, rate: 0, milliseconds: UInt64(seconds) * 1_000, &sent))
        }
        guard let best = Rate.best(closed), let floor = Rate.best(bare) else { return }
        var open: [Rate] = []
        for _ in 0..<rounds {
            open.append(
                try core.load(
                    clients, callers, isSecure, rate: best.perSecond / 2, milliseconds: UInt64(seconds) * 1_000, &sent))
        }
        let p99 = open.map(\.p99).min() ?? .max
        let p50 = open.map(\.p50).min() ?? .max
        isRunning = false
        let status = core.subject.child.stop(SIGTERM)
        report(best, floor, openRate: best.perSecond / 2, p50: p50, p99: p99, sent: sent)
        guard status == 0 else { throw BenchError(status: 1, "FAIL: the core ended with status \(status ?? -1)\n") }
        let isGood = Self.isGood(best, floor) && p99 <= Self.latencyBar
        if !isGood { throw BenchError(status: 1, "") }
    }

    private static func isGood(_ rate: Rate, _ floor: Rate) -> Bool {
        rate.perCPUSecond >= bar || rate.perCPUSecond >= ratioBar * floor.perCPUSecond
    }

    private func report(_ best: Rate, _ floor: Rate, openRate: Double, p50: UInt64, p99: UInt64, sent: UInt64) {
        let ratio = best.perCPUSecond / floor.perCPUSecond
        let what = "command round trips\(isSecure ? " over TLS" : ""), \(agents) agents, \(callers) callers"
        BenchCommand.say(
            "\(Self.isGood(best, floor) ? "PASS" : "FAIL")  \(what): \(shown(best.perCPUSecond)) per CPU-second, floor (C relay) "
                + "\(shown(floor.perCPUSecond)), ratio \((ratio * 1_000).rounded() / 1_000); \(shown(best.perSecond)) per second")
        BenchCommand.say(
            "\(p99 <= Self.latencyBar ? "PASS" : "FAIL")  \(what), open loop at \(shown(openRate)) per second: "
                + "p50 \(p50 / 1_000) us, p99 \(p99 / 1_000) us")
        // For who counts what the core has kept of it.
        BenchCommand.say(
            "{\"event\":\"commands\",\"sent\":\(sent),\"per_cpu_second\":\(Int(best.perCPUSecond)),"
                + "\"floor_per_cpu_second\":\(Int(floor.perCPUSecond)),\"per_second\":\(Int(best.perSecond)),"
                + "\"open_per_second\":\(Int(openRate)),\"open_p99_us\":\(p99 / 1_000)}")
    }

    /// On a real disk: `/tmp` may be memory.
    private static func temporaryDirectory() throws(BenchError) -> String {
        var path = Array("/var/tmp/cm-bench-XXXXXX".utf8CString)
        guard mkdtemp(&path) != nil else { throw BenchError(status: 4, "no directory in /var/tmp: errno \(errno)\n") }
        return String(decoding: path.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    private static func remove(_ directory: String) {
        _ = try? Child("/bin/rm", ["-rf", "--", directory]).finish()
    }
}

/// A core under measurement, with `cmctl` and `cm-swarm` from the folder of this program.
private struct Core {
    let subject: Subject
    private let directory: String
    private let token: String
    private let fingerprint: String

    init(directory: String, isSecure: Bool) throws(BenchError) {
        self.directory = directory
        subject = try Subject(
            try Self.program("client-manager"),
            ["serve", "--data-dir", directory, "--listen", "127.0.0.1:0", "--tls", isSecure ? "auto" : "off"])
        token = String(readFile(directory + "/admin-token").prefix { $0 != "\n" })
        fingerprint = (try? JSONValue(parsing: Array(subject.ready.utf8)))?.object?["fingerprint"]?.string ?? ""
    }

    func swarm(_ agents: Int) throws(BenchError) -> Child {
        let created = try ask(["enroll-token", "create", "--uses", String(agents), "--output", "json"])
        guard let text = created.object?["token"]?.string else { throw BenchError(status: 1, "no enrollment token\n") }
        return try Child(
            try Self.program("cm-swarm"),
            ["--server", subject.url, "--enroll-token", text, "--pin", fingerprint, "--agents", String(agents), "--storm"])
    }

    /// The ids of the clients, once so many are online.
    func waitForClients(_ count: Int) throws(BenchError) -> [String] {
        for _ in 0..<1_200 {
            let clients = try onlineClients()
            if clients.count >= count { return clients }
            usleep(100_000)
        }
        throw BenchError(status: 1, "FAIL: not all \(count) agents came online within two minutes\n")
    }

    private func onlineClients() throws(BenchError) -> [String] {
        var ids: [String] = []
        var cursor: String?
        repeat {
            let path = "/api/v1/clients?limit=1000&selector=state%3Donline" + (cursor.map { "&cursor=" + $0 } ?? "")
            let page = try ask(["api", "GET", path])
            ids += (page.object?["items"]?.array ?? []).compactMap { $0.object?["id"]?.string }
            cursor = page.object?["next"]?.string
        } while cursor != nil
        return ids
    }

    private func ask(_ arguments: [String]) throws(BenchError) -> JSONValue {
        let answer = try Child(try Self.program("cmctl"), arguments + ["--data-dir", directory]).finish()
        guard answer.status == 0, let value = try? JSONValue(parsing: answer.output) else {
            throw BenchError(status: 1, "FAIL: cmctl \(arguments.joined(separator: " ")) failed\n")
        }
        return value
    }

    /// One run of the callers; adds to `sent` what was answered.
    func load(
        _ clients: [String], _ callers: Int, _ isSecure: Bool, rate: Double, milliseconds: UInt64, _ sent: inout UInt64
    ) throws(BenchError) -> Rate {
        var count: UInt64 = 0
        defer { sent += count }
        return try .measure(subject) { port, result in
            // The pointers live until this closure returns.
            let names = clients.map { strdup($0) }
            let secret = strdup(token)
            defer {
                for name in names { free(name) }
                free(secret)
            }
            let pointers = names.map { UnsafePointer($0) }
            return pointers.withUnsafeBufferPointer { pointers in
                var load = cm_command_load(
                    port: port, tls: isSecure ? 1 : 0, callers: Int32(callers), rate: rate, milliseconds: milliseconds,
                    token: secret, clients: pointers.baseAddress, client_count: Int32(clients.count))
                let status = cm_load_commands(&load, &result)
                count = result.count
                return status
            }
        }
    }

    /// Beside this program.
    private static func program(_ name: String) throws(BenchError) -> String {
        var path = [UInt8](repeating: 0, count: 4_096)
        let count = path.withUnsafeMutableBytes { bytes in
            bytes.assumingMemoryBound(to: CChar.self).baseAddress.map { readlink("/proc/self/exe", $0, bytes.count) } ?? -1
        }
        guard count > 0, let slash = path[..<count].lastIndex(of: 0x2F) else {
            throw BenchError(status: 4, "cannot tell where this program is\n")
        }
        return String(decoding: path[...slash], as: UTF8.self) + name
    }
}

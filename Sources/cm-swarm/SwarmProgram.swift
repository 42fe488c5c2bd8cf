import Agent
import Glibc
import Program
import Reactor

/// Starts the swarm and waits for its end. Lines of JSON on standard output; the last one is the report.
enum SwarmProgram {
    static func run(_ arguments: [String], allowed: [Flag]) -> Int32 {
        let options: SwarmOptions
        let duration: Int?
        do {
            let flags = try Flags(parsing: arguments, allowed: allowed)
            if flags.has("help") {
                print("usage: cm-swarm --server URL --enroll-token T --agents N [flags]\n\n" + Flags.help(allowed))
                return 0
            }
            (options, duration) = try read(flags)
        } catch {
            fail("\(error)")
            return 2
        }
        raiseDescriptorLimit(options.agents)
        Signals.block([SIGINT, SIGTERM])
        do {
            let swarm = try Swarm(options: options, print: printLine)
            let control = try EventLoop.start(name: "control")
            control.post { watch(control, swarm, duration) }
            control.join()
            return 0
        } catch {
            fail("\(error)")
            return 1
        }
    }

    private static func read(_ flags: Flags) throws -> (SwarmOptions, Int?) {
        guard let server = flags.value("server") else { throw FlagError("--server URL is missing") }
        guard let agents = try flags.integer("agents", in: 1...1_000_000) else {
            throw FlagError("--agents N is missing")
        }
        var options = try SwarmOptions(servers: server, agents: agents)
        if let text = flags.value("enroll-token") ?? getenv("CM_ENROLL_TOKEN").map({ String(cString: $0) }) {
            options.token = .init(text)
            guard options.token != nil else {
                throw FlagError("the enrollment token must have the form cmt1.SECRET.FINGERPRINT")
            }
        }
        options.pins = flags.values("pin")
        options.loops = try flags.integer("loops", in: 1...256) ?? 2
        options.storm = flags.has("storm")
        options.slow = flags.has("slow")
        options.viaProxy = flags.has("via-proxy")
        if let path = flags.value("release-key") { options.releaseKey = try ReleaseKeyFile.read(path) }
        if let text = flags.value("drop-rate") {
            guard let rate = Double(text), (0...1).contains(rate) else {
                throw FlagError("--drop-rate \(text): expected a number from 0 to 1")
            }
            options.dropRate = rate
        }
        return (options, try flags.integer("duration", in: 1...10_000_000))
    }

    private static func watch(_ control: EventLoop, _ swarm: Swarm, _ duration: Int?) {
        let finish: @Sendable () -> Void = {
            control.spawn {
                printLine(swarm.report(executions: await swarm.executions()))
                swarm.stop()
                control.stop()
            }
        }
        do {
            try control.add(Signals([SIGINT, SIGTERM]) { _ in finish() })
        } catch {
            fail("\(error)")
        }
        if let duration {
            control.schedule(Timer(finish), afterMilliseconds: UInt64(duration) * 1_000)
        }
        swarm.start()
    }

    /// One descriptor per agent, and a few.
    private static func raiseDescriptorLimit(_ agents: Int) {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return }
        limit.rlim_cur = limit.rlim_max
        _ = setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
        if Int(clamping: limit.rlim_cur) < agents + 64 {
            fail("the open-file limit is \(limit.rlim_cur): not all of \(agents) agents can connect")
        }
    }

    @Sendable static func printLine(_ line: [UInt8]) { write(line, to: STDOUT_FILENO) }

    private static func fail(_ text: String) { write(Array("cm-swarm: \(text)".utf8), to: STDERR_FILENO) }

    private static func write(_ line: [UInt8], to descriptor: Int32) {
        let bytes = line + [0x0A]
        _ = Glibc.write(descriptor, bytes, bytes.count)
    }
}

import Agent
import AgentProtocol
import Glibc
import Reactor
import System
import Testing

@Suite struct HolderExecutorTests {
    @Test func keepsBothStreamsAndTheExitCode() async throws {
        let harness = try await ExecutorHarness()
        let before = unixMilliseconds()
        let (record, output, errors) = try await harness.run(shell("printf out; printf err >&2; exit 3"))
        #expect(record.outcome == .exited(code: 3))
        #expect(record.started == .yes)
        #expect((output, errors) == ("out", "err"))
        #expect((record.standardOutputBytes, record.standardErrorBytes) == (3, 3))
        #expect(try #require(record.startedAt) >= before)
        #expect(record.finishedAt >= before)
        #expect(!record.truncated)
        #expect(try await harness.run(shell("kill -9 $$")).record.outcome == .signaled(signal: SIGKILL))
    }

    @Test func passesInputEnvironmentDirectoryAndScript() async throws {
        let harness = try await ExecutorHarness()
        let input = [UInt8](repeating: UInt8(ascii: "x"), count: 300_000)
        #expect(try await harness.run(order(["wc", "-c"]) { $0.standardInput = input }).output == "300000\n")
        let environment = shell("pwd; echo $GREETING; echo $CM_COMMAND_ID") {
            $0.environment = ["GREETING": "hé $(x)"]
            $0.workingDirectory = "/usr"
        }
        #expect(try await harness.run(environment).output == "/usr\nhé $(x)\n\(environment.command)\n")
        var script = order([])
        script.invocation = .script(
            interpreter: ["/bin/sh", "-e"], body: Array("echo \"$1\" and $#\n".utf8), arguments: ["a b", "c"])
        #expect(try await harness.run(script).output == "a b and 2\n")
        // Nothing in: the program sees the end at once, not the agent's input.
        #expect(try await harness.run(order(["cat"])).output == "")
    }

    @Test(.enabled(if: geteuid() == 0)) func runsAsTheNamedUser() async throws {
        let harness = try await ExecutorHarness()
        let (record, output, _) = try await harness.run(
            Order(
                command: newCommand(),
                invocation: .script(interpreter: ["sh"], body: Array("id -un; echo $HOME".utf8), arguments: []),
                user: "nobody"))
        #expect(record.outcome == .exited(code: 0))
        #expect(output.hasPrefix("nobody\n"))
    }

    @Test func saysWhyAProgramDidNotStart() async throws {
        let harness = try await ExecutorHarness()
        func code(_ order: Order) async throws -> String {
            let record = try await harness.run(order).record
            #expect(record.started == .no)
            #expect(record.startedAt == nil)
            switch record.outcome {
            case .startFailed(let code, _), .refused(let code, _): return code
            default: return "\(record.outcome)"
            }
        }
        #expect(try await code(order(["no-such-program-here"])) == "program-not-found")
        #expect(try await code(order(["/etc/passwd"])) == "program-not-executable")
        #expect(try await code(order([""])) == "program-missing")
        #expect(try await code(order(["true"]) { $0.user = "no-such-user-here" }) == "user-unknown")
        #expect(try await code(order(["true"]) { $0.workingDirectory = "/missing" }) == "working-directory-unusable")
        #expect(try await code(order(["true"]) { $0.environment = ["A=B": "c"] }) == "environment-invalid")
        #expect(try await code(order(["true"]) { $0.startBefore = 1_000 }) == "start-deadline-passed")
        #expect(try await code(order(["echo", "a\0b"])) == "arguments-invalid")
    }

    @Test func timeoutEndsTheWholeGroup() async throws {
        let harness = try await ExecutorHarness()
        let (record, output, _) = try await harness.run(
            shell("sleep 1000 & echo $!; wait") { $0.timeoutMilliseconds = 300 })
        #expect(record.outcome == .timedOut)
        #expect(record.started == .yes)
        let grandchild = try #require(pid_t(output.filter(\.isNumber)))
        #expect(try hasEnded(grandchild))
    }

    @Test func cancelKillsWhatIgnoresTermAfterTheGrace() async throws {
        let harness = try await ExecutorHarness()
        let order = shell("trap '' TERM; echo ready; while :; do sleep 0.05; done") { $0.killGraceMilliseconds = 200 }
        await harness.start(order)
        await harness.wait { $0.executor.reports().contains { $0.standardOutputBytes == 6 } }
        await harness.cancel(order.command)
        await harness.cancel(order.command)
        let record = try await harness.end(of: order.command)
        #expect(record.outcome == .cancelled)
        #expect(record.durationMicroseconds >= 200_000)
        #expect(await harness.output(of: order.command) == "ready\n")
    }

    @Test func cutsAtTheOutputLimitAndSaysSo() async throws {
        let harness = try await ExecutorHarness()
        let (record, output, errors) = try await harness.run(
            shell("head -c 100000 /dev/zero | tr '\\0' a; echo late >&2") { $0.outputLimitBytes = 1_000 })
        #expect(record.outcome == .exited(code: 0))
        #expect(record.truncated)
        #expect(output == String(repeating: "a", count: 1_000))
        #expect(errors == "")
    }

    @Test func keepsLargeOutputWhole() async throws {
        let harness = try await ExecutorHarness()
        let (record, output, _) = try await harness.run(order(["seq", "1", "200000"]))
        #expect(record.standardOutputBytes == 1_288_895)
        #expect(output == (1...200_000).map { "\($0)\n" }.joined())
    }

    @Test func measuresMemoryOfTheProgramAlone() async throws {
        let harness = try await ExecutorHarness()
        // sort keeps its input in memory.
        let large = try await harness.run(shell("head -c 60000000 /dev/zero | tr '\\0' '\\n' | sort -S 200M | tail -c 1"))
        #expect(large.record.maximumResidentBytes > 50_000_000)
        let small = try await harness.run(order(["true"]))
        #expect(small.record.maximumResidentBytes == 0)
    }

    @Test func sameOrderRunsOnce() async throws {
        let harness = try await ExecutorHarness()
        let witness = harness.directory.path + "/witness"
        let order = shell("echo ran >> \(witness)")
        await harness.start(order)
        await harness.start(order)
        _ = try await harness.end(of: order.command)
        await harness.start(order)
        await harness.wait { ($0.finishCount[order.command] ?? 0) >= 2 }
        #expect(try Files.read(witness, limit: 100) == Array("ran\n".utf8))
    }

    @Test func queuesInOrderAndRefusesBeyond() async throws {
        let harness = try await ExecutorHarness {
            $0.running = 1
            $0.queued = 2
        }
        let gate = harness.directory.path + "/gate"
        mkfifo(gate, 0o600)
        let witness = harness.directory.path + "/witness"
        let first = shell("read x < \(gate); echo 1 >> \(witness)")
        await harness.start(first)
        await harness.wait { !$0.started.isEmpty }
        let second = shell("echo 2 >> \(witness)")
        let third = shell("echo 3 >> \(witness)")
        let fourth = shell("echo 4 >> \(witness)")
        for order in [second, third, fourth] { await harness.start(order) }
        guard case .refused(let code, _) = try await harness.end(of: fourth.command).outcome else {
            Issue.record("not refused")
            return
        }
        #expect(code == "agent-queue-full")
        await harness.cancel(third.command)
        let cancelled = try await harness.end(of: third.command)
        #expect(cancelled.outcome == .cancelled)
        #expect(cancelled.started == .no)
        let writer = open(gate, O_WRONLY)
        write(writer, "\n", 1)
        close(writer)
        _ = try await harness.end(of: second.command)
        #expect(try Files.read(witness, limit: 100) == Array("1\n2\n".utf8))
    }

    @Test func forgetRemovesEverything() async throws {
        let harness = try await ExecutorHarness()
        let order = order(["echo", "x"])
        _ = try await harness.run(order)
        let path = harness.directory.path + "/executions"
        #expect(try Files.list(path).count == 1)
        let none = await harness.on { observer in
            observer.executor.forget(order.command)
            return observer.executor.reports().isEmpty
        }
        #expect(none)
        // The next accepted order is written after the removal: one thread does both.
        _ = try await harness.run(shell("true"))
        #expect(try !Files.list(path).contains("\(order.command)"))
    }

    @Test func localPolicyRefuses() async throws {
        let harness = try await ExecutorHarness()
        func outcome(_ policy: String, _ order: Order) async throws -> Outcome {
            try AtomicFile.write(Array(policy.utf8), to: harness.directory.path + "/policy.json")
            return try await harness.run(order).record.outcome
        }
        func isRefused(_ outcome: Outcome) -> Bool {
            if case .refused(code: "agent-policy", _) = outcome { return true }
            return false
        }
        let allow = #"{"allow": [["echo", "*"], ["/bin/true", "**"]], "deny": [["echo", "secret*"], ["rm", "**"]]}"#
        #expect(try await outcome(allow, order(["echo", "x"])) == .exited(code: 0))
        #expect(try await outcome(allow, order(["/bin/true", "a", "b"])) == .exited(code: 0))
        #expect(isRefused(try await outcome(allow, order(["echo", "secrets"]))))
        #expect(isRefused(try await outcome(allow, order(["echo", "x", "y"]))))
        #expect(isRefused(try await outcome(allow, order(["/tmp/echo", "x"]))))
        #expect(isRefused(try await outcome(allow, shell("echo x"))))
        #expect(isRefused(try await outcome(#"{"deny": [["rm", "**"]]}"#, order(["/bin/rm", "-rf", "/nowhere"]))))
        #expect(isRefused(try await outcome(#"{"users": ["nobody"]}"#, order(["true"]))))
        #expect(isRefused(try await outcome(#"{"alow": []}"#, order(["true"]))))
        #expect(isRefused(try await outcome("{", order(["true"]))))
    }
}

import Glibc
import Reactor
import System
import Testing

@Suite struct SpawnTests {
    @Test func runsWithExactArgumentsAndEnvironment() throws {
        let directory = try TemporaryDirectory()
        var spawn = Spawn(program: "sh", arguments: ["sh", "-c", #"printf '%s|' "$@" "$GREETING" "$PWD"; env | wc -l"#, "x", "a b", "$(c)"])
        spawn.environment = ["GREETING": "héllo"]
        spawn.directory = "/usr"
        let (end, output) = try run(spawn, in: directory)
        #expect(end?.how == .exited(0))
        #expect(output.hasPrefix("a b|$(c)|héllo|/usr|"))
    }

    @Test func reportsExitCodeAndSignal() throws {
        let directory = try TemporaryDirectory()
        #expect(try run(Spawn(program: "sh", arguments: ["sh", "-c", "exit 7"]), in: directory).end?.how == .exited(7))
        #expect(
            try run(Spawn(program: "sh", arguments: ["sh", "-c", "kill -9 $$"]), in: directory).end?.how
                == .signaled(SIGKILL))
    }

    @Test func namesTheStepThatFailed() throws {
        let directory = try TemporaryDirectory()
        func failure(_ spawn: Spawn) -> SpawnError? {
            do throws(SpawnError) {
                _ = try spawn.start()
                return nil
            } catch { return error }
        }
        #expect(failure(Spawn(program: "no-such-program", arguments: ["x"])) == SpawnError(step: .execute, code: ENOENT))
        #expect(failure(Spawn(program: "/etc/passwd", arguments: ["x"])) == SpawnError(step: .execute, code: EACCES))
        var spawn = Spawn(program: "true", arguments: ["true"])
        spawn.directory = directory.path + "/missing"
        #expect(failure(spawn) == SpawnError(step: .directory, code: ENOENT))
        #expect(failure(Spawn(program: "true", arguments: ["a\0b"])) == SpawnError(step: .arguments, code: EINVAL))
        var limited = Spawn(program: "true", arguments: ["true"])
        limited.limits = [.openFiles(10, hard: 5)]
        #expect(failure(limited) == SpawnError(step: .limit, code: EINVAL))
    }

    @Test func givesTheChildNothingButWhatIsNamed() throws {
        let directory = try TemporaryDirectory()
        let leaked = open("/etc/passwd", O_RDONLY)  // without close-on-exec, on purpose
        defer { close(leaked) }
        let (_, output) = try run(Spawn(program: "ls", arguments: ["ls", "/proc/self/fd"]), in: directory)
        #expect(output.split(separator: "\n").sorted() == ["0", "1", "2", "3"])  // 3 is ls's own
    }

    @Test func childLeadsItsSessionAndLimitsHold() throws {
        let directory = try TemporaryDirectory()
        var spawn = Spawn(program: "sh", arguments: ["sh", "-c", "ulimit -n; ps -o sid=,pgid=,pid= -p $$"])
        spawn.group = .session
        spawn.limits = [.openFiles(100, hard: 200)]
        let lines = try run(spawn, in: directory).output.split(separator: "\n")
        #expect(lines.first == "100")
        #expect(Set(lines.last?.split(separator: " ") ?? []).count == 1)
    }

    @Test(.enabled(if: geteuid() == 0)) func changesUserAndGroups() throws {
        let directory = try TemporaryDirectory()
        let account = try #require(try UserAccount.find("nobody"))
        #expect(try UserAccount.find("\(account.user)")?.name == "nobody")
        #expect(try UserAccount.find("no-such-user-here") == nil)
        var spawn = Spawn(program: "id", arguments: ["id"])
        spawn.account = account
        let output = try run(spawn, in: directory).output
        #expect(output.hasPrefix("uid=\(account.user)(nobody) gid=\(account.group)("))
        #expect(!output.contains("(root)"))
    }

    @Test func groupSignalEndsGrandchildren() throws {
        var pipes: [Int32] = [0, 0]
        pipe(&pipes)
        var spawn = Spawn(program: "sh", arguments: ["sh", "-c", "sleep 1000 & echo ready; wait"])
        spawn.group = .session
        spawn.descriptors = [-1, pipes[1], -1]
        let child = try spawn.start()
        close(pipes[1])
        var byte: UInt8 = 0
        #expect(read(pipes[0], &byte, 1) == 1)
        child.signalGroup(SIGKILL)
        #expect(try waitForEnd(child)?.how == .signaled(SIGKILL))
        // The pipe ends when the last holder of it has ended: the grandchild too.
        while read(pipes[0], &byte, 1) > 0 {}
        close(pipes[0])
    }

    @Test func terminalHasSizeAndControl() throws {
        let terminal = try PseudoTerminal(rows: 40, columns: 120)
        let program = try terminal.start(Spawn(program: "sh", arguments: ["sh", "-c", "stty size; tty; read x; echo got $x"]))
        var output: [UInt8] = []
        var typed = false
        while true {
            var item = pollfd(fd: program.master.number, events: Int16(POLLIN), revents: 0)
            #expect(poll(&item, 1, 60_000) == 1)
            var buffer = [UInt8](repeating: 0, count: 4_096)
            let count = read(program.master.number, &buffer, buffer.count)
            if count <= 0 { break }  // EIO: the last one has left
            output += buffer[..<count]
            if !typed, output.count(where: { $0 == UInt8(ascii: "\n") }) >= 2 {
                typed = true
                try program.master.write(Array("hello\n".utf8).span.bytes)
            }
        }
        let text = String(decoding: output, as: UTF8.self)
        #expect(text.contains("40 120"))
        #expect(text.contains("/dev/pts/"))
        #expect(text.contains("got hello"))
        #expect(try waitForEnd(program.child)?.how == .exited(0))
    }

    @Test func loopHearsOfTheEnd() async throws {
        let loop = try EventLoop.start(name: "spawn-test")
        defer { loop.stop() }
        let end: ProcessEnd? = await withUnsafeContinuation { continuation in
            loop.post {
                do {
                    let child = try Spawn(program: "sh", arguments: ["sh", "-c", "exit 3"]).start()
                    try loop.add(ProcessWatch(child, on: loop) { continuation.resume(returning: $0) })
                } catch {
                    continuation.resume(returning: nil)
                }
            }
        }
        #expect(end?.how == .exited(3))
    }

    @Test func controlGroupEndsWholeTree() throws {
        guard let parent = ControlGroupParent.find(name: "client-manager-test") else { return }
        let group = try parent.make("t" + String(UInt64.random(in: 0 ... .max), radix: 36))
        var pipes: [Int32] = [0, 0]
        pipe(&pipes)
        // setsid takes the grandchild out of the process group, not out of the control group.
        var spawn = Spawn(program: "sh", arguments: ["sh", "-c", "setsid sleep 1000 & echo ready; wait"])
        spawn.controlGroup = group
        spawn.descriptors = [-1, pipes[1], -1]
        let child = try spawn.start()
        close(pipes[1])
        var byte: UInt8 = 0
        #expect(read(pipes[0], &byte, 1) == 1)
        #expect(group.isPopulated)
        if group.killAll() {
            #expect(try waitForEnd(child)?.how == .signaled(SIGKILL))
            while read(pipes[0], &byte, 1) > 0 {}
            close(pipes[0])
            while group.isPopulated { usleep(1_000) }
            #expect(group.remove())
        } else {
            child.signalGroup(SIGKILL)
        }
        rmdir(parent.path)
    }
}

import Crypto
import Glibc
import System
import Testing

/// The real program: its refusals, its files, what it leaves.
@Suite struct AgentProgramTests {
    private struct Ended {
        var status: Int32
        var output: String
        var errors: String
    }

    private func run(
        _ arguments: [String], _ directory: TemporaryDirectory, environment: [String: String] = [:]
    ) throws -> Ended {
        let tag = String(UInt64.random(in: 0 ... .max), radix: 36)
        let paths = ["\(directory.path)/\(tag).out", "\(directory.path)/\(tag).err"]
        let output = try Descriptor.open(paths[0], O_WRONLY | O_CREAT)
        let errors = try Descriptor.open(paths[1], O_WRONLY | O_CREAT)
        var spawn = Spawn(program: try agentProgram(), arguments: ["cm-agent"] + arguments)
        spawn.descriptors = [-1, output.number, errors.number]
        spawn.environment = environment
        let child = try spawn.start()
        var item = pollfd(fd: child.descriptor.number, events: Int16(POLLIN), revents: 0)
        while poll(&item, 1, 60_000) < 0, errno == EINTR {}
        guard case .exited(let status) = try child.reap()?.how else { throw SystemError("wait", code: ECHILD) }
        let texts = try paths.map { String(decoding: try Files.read($0, limit: 1 << 20), as: UTF8.self) }
        return Ended(status: status, output: texts[0], errors: texts[1])
    }

    @Test func saysWhatIsWrongWithItsFlags() throws {
        let directory = try TemporaryDirectory()
        let data = directory.path + "/a"
        func refusal(_ arguments: [String], _ environment: [String: String] = [:]) throws -> String {
            let ended = try run(arguments, directory, environment: environment)
            #expect(ended.status == 2)
            return ended.errors
        }
        #expect(try refusal([]).contains("usage: cm-agent run"))
        #expect(try refusal(["run", "--data-dir", data]).contains("--server URL is missing"))
        #expect(try refusal(["run", "--server", "https://h", "--data-dir", data, "--sever", "x"]).contains("--sever"))
        #expect(try refusal(["run", "--server", "https://h", "--data-dir", data, "--pin", "ab"]).contains("64 hexadecimal"))
        #expect(
            try refusal(["run", "--server", "https://h", "--data-dir", data, "--enroll-token", "x"])
                .contains("cmt1.SECRET.FINGERPRINT"))
        #expect(try refusal(["version"], ["CM_KILL_AT": "x"]).contains("CM_KILL_POINTS=1"))
        #expect(try refusal(["version"], ["CM_KILL_AT": "x:0", "CM_KILL_POINTS": "1"]).contains("<point>:<n>"))
        #expect(try refusal(["hold"]).contains("started by cm-agent run"))
        #expect(!Files.exists(data))
    }

    @Test func twoAgentsDoNotShareADirectory() throws {
        let directory = try TemporaryDirectory()
        let lock = try DirectoryLock(directory: directory.path)
        let ended = try run(["run", "--server", "http://127.0.0.1:1", "--data-dir", directory.path], directory)
        #expect(ended.status == 1)
        #expect(ended.errors.contains("another agent runs on"))
        #expect(try run(["reset-identity", "--data-dir", directory.path], directory).status == 1)
        withExtendedLifetime(lock) {}
    }

    @Test func installsIntoAnImageWithEverythingEscaped() throws {
        let directory = try TemporaryDirectory()
        let root = directory.path + "/image"
        let arguments = [
            "--root", root, "--server", "https://core.example:8443*2,https://b.example", "--fact", #"note=a "b" $c %d \e"#,
            "--data-dir", "/var/lib/cm agent",
        ]
        let ended = try run(["install"] + arguments, directory)
        #expect(ended.status == 0, "\(ended.errors)")
        let unit = String(
            decoding: try Files.read(root + "/etc/systemd/system/cm-agent.service", limit: 1 << 16), as: UTF8.self)
        #expect(
            unit.contains(
                #"ExecStart="/usr/local/bin/cm-agent" "run" "--server" "https://core.example:8443*2,https://b.example" "#
                    + #""--data-dir" "/var/lib/cm agent" "--fact" "note=a \"b\" $$c %%d \\e""# + "\n"))
        #expect(unit.contains("KillMode=process\n"))
        #expect(unit.contains("Delegate=yes\n"))
        #expect(try Files.status(root + "/usr/local/bin/cm-agent").mode == 0o755)
        #expect(try Files.status(root + "/var/lib/cm agent").mode == 0o700)

        #expect(try run(["install", "--root", root, "--server", "https://h", "--fact", "a=b\nExecStartPre=x"], directory).status == 2)
        #expect(try run(["install", "--root", root, "--server", "https://h", "--data-dir", "relative"], directory).status == 2)

        #expect(try run(["uninstall", "--root", root], directory).status == 0)
        #expect(!Files.exists(root + "/etc/systemd/system/cm-agent.service"))
        #expect(!Files.exists(root + "/usr/local/bin/cm-agent"))
        #expect(Files.exists(root + "/var/lib/cm agent"))
        #expect(
            try run(["uninstall", "--root", root, "--data-dir", "/var/lib/cm agent", "--purge"], directory).status == 0)
        #expect(!Files.exists(root + "/var/lib/cm agent"))
    }

    @Test func installFixesTheReleaseKey() throws {
        let directory = try TemporaryDirectory()
        let root = directory.path + "/image"
        let key = try P256.PrivateKey.generate()
        let pem = "-----BEGIN PUBLIC KEY-----\n\(Base64.encode(key.publicKey.spki))\n-----END PUBLIC KEY-----\n"
        let (publicKey, privateKey) = (directory.path + "/key.pub", directory.path + "/key")
        try AtomicFile.write(Array(pem.utf8), to: publicKey)
        try AtomicFile.write(Array(try key.pem().utf8), to: privateKey)
        let install = ["install", "--root", root, "--server", "https://h"]
        let secret = try run(install + ["--release-key", privateKey], directory)
        #expect(secret.status == 2 && secret.errors.contains("private key"))
        #expect(try run(install + ["--release-key", directory.path + "/missing"], directory).status == 2)
        #expect(!Files.exists(root + "/etc"))
        #expect(try run(install + ["--release-key", publicKey], directory).status == 0)
        let kept = root + "/etc/client-manager-agent/release-key.pem"
        #expect(try Files.read(kept, limit: 4_096) == Array(pem.utf8))
        let unit = root + "/etc/systemd/system/cm-agent.service"
        let text = String(decoding: try Files.read(unit, limit: 1 << 16), as: UTF8.self)
        #expect(text.contains(#""--release-key" "/etc/client-manager-agent/release-key.pem""#))
        #expect(text.contains(#"ExecStart="/usr/local/bin/cm-agent""#))
        // Beside the program lies what an upgrade left.
        for suffix in [".staged", ".previous"] { try AtomicFile.write([1], to: root + "/usr/local/bin/cm-agent" + suffix) }
        #expect(try run(["uninstall", "--root", root], directory).status == 0)
        #expect(try Files.list(root + "/usr/local/bin").isEmpty && !Files.exists(root + "/etc/client-manager-agent"))
        // A confined agent has its program where it may write.
        let user = try UserAccount.current().name
        #expect(try run(install + ["--release-key", publicKey, "--user", user], directory).status == 0)
        let confined = String(decoding: try Files.read(unit, limit: 1 << 16), as: UTF8.self)
        #expect(confined.contains(#"ExecStart="/var/lib/client-manager-agent/bin/cm-agent""#))
        #expect(Files.exists(root + "/var/lib/client-manager-agent/bin/cm-agent"))
        let run = ["run", "--server", "https://h", "--data-dir", directory.path + "/a", "--release-key"]
        #expect(try self.run(run + [privateKey], directory).status == 2)
        #expect(try self.run(["watch-upgrade"], directory).status == 2)
    }

    @Test func resetIdentityLeavesNothingOfTheMachine() throws {
        let directory = try TemporaryDirectory()
        let data = directory.path + "/a"
        try Files.makeDirectories(data + "/identity")
        for name in ["key.pem", "state.json"] { try AtomicFile.write([1], to: data + "/identity/" + name) }
        try Files.makeDirectories(data + "/executions/\(newCommand())")
        #expect(try run(["reset-identity", "--data-dir", data], directory).status == 0)
        #expect(try Files.list(data + "/identity").isEmpty)
        #expect(!Files.exists(data + "/executions"))
    }
}

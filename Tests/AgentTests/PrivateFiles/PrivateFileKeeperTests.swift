import AgentProtocol
import Crypto
import Glibc
import Reactor
import System
import Testing

@testable import Agent

/// In /dev/shm, which is a tmpfs on every machine that these tests run on.
@Suite struct PrivateFileKeeperTests {
    /// An agent's data directory, and a place in memory.
    private final class Machine: Sendable {
        let directory: TemporaryDirectory
        let place: String
        init() throws {
            directory = try TemporaryDirectory()
            place = "/dev/shm/cm-private-test-" + String(UInt64.random(in: 0 ... .max), radix: 36)
        }
        deinit { try? Files.removeTree(place) }

        func keeper(_ defaults: [String]? = nil, later milliseconds: UInt64 = 0) -> PrivateFileKeeper {
            PrivateFileKeeper(directory: directory.path, defaults: defaults ?? [place]) { PrivateFileIndex.now() + milliseconds }
        }
        func policy(_ text: String) throws { try AtomicFile.write(Array(text.utf8), to: directory.path + "/policy.json") }
        func read(_ name: String) -> String? {
            (try? Files.readIfPresent(place + "/" + name, limit: 1 << 20)).flatMap { $0 }.map { String(decoding: $0, as: UTF8.self) }
        }
    }

    private static func order(
        _ name: String = "key", keeper: String = "k", mode: UInt16 = 0o400, lifetime: UInt64? = nil, hook: [String] = []
    ) -> PrivateFileOrder {
        PrivateFileOrder(name: name, keeper: keeper, mode: mode, lifetimeMilliseconds: lifetime, hook: hook)
    }

    private static func put(
        _ keeper: PrivateFileKeeper, _ order: PrivateFileOrder, _ text: String
    ) -> PrivateFileAnswer { keeper.handle(.put(order, content: Array(text.utf8))) }

    private static func put(_ keeper: PrivateFileKeeper, _ text: String) -> PrivateFileAnswer { put(keeper, order(), text) }

    private static func code(_ answer: PrivateFileAnswer) -> String? {
        if case .refused(let code, _) = answer { code } else { nil }
    }

    private static func file(_ answer: PrivateFileAnswer) throws -> (PrivateFileState, isChanged: Bool) {
        guard case .done(let files, let isChanged) = answer else {
            Issue.record("\(answer)")
            throw SystemError("put", "", code: EINVAL)
        }
        return (try #require(files.first), isChanged)
    }

    @Test func aFileIsPlacedReplacedListedAndRemoved() throws {
        let machine = try Machine()
        let keeper = machine.keeper()
        let (first, isNew) = try Self.file(Self.put(keeper, "one"))
        #expect(isNew && first.path == machine.place + "/key" && first.bytes == 3 && first.mode == 0o400)
        #expect(first.sha256 == SHA256.digest(Array("one".utf8)).hex)
        #expect(machine.read("key") == "one")
        let before = try Files.status(machine.place + "/key")
        #expect(before.mode == 0o400 && before.owner == geteuid())

        // The same again is no change, and the file is the same file.
        #expect(try !Self.file(Self.put(keeper, "one")).isChanged)
        #expect(try Files.status(machine.place + "/key").inode == before.inode)
        // Another mode or content is another file in its place.
        #expect(try Self.file(Self.put(keeper, Self.order(mode: 0o440), "one")).isChanged)
        #expect(try Self.file(Self.put(keeper, Self.order(mode: 0o440), "two")).isChanged)
        let after = try Files.status(machine.place + "/key")
        #expect(machine.read("key") == "two" && after.mode == 0o440 && after.inode != before.inode)

        // What somebody changed on the machine is told as it is.
        try Files.changeMode(machine.place + "/key", 0o600)
        try Descriptor.open(machine.place + "/key", O_WRONLY | O_TRUNC).write(Array("x".utf8).span.bytes)
        guard case .done(let listed, _) = keeper.handle(.list(keeper: "k")) else { throw SystemError("list", "", code: EINVAL) }
        #expect(listed.map(\.sha256) == [SHA256.digest([UInt8(ascii: "x")]).hex])
        #expect(try Self.file(Self.put(keeper, Self.order(mode: 0o440), "two")).isChanged)

        #expect(keeper.handle(.list(keeper: "other")) == .done([], isChanged: false))
        #expect(Self.code(Self.put(keeper, Self.order(keeper: "other"), "z")) == "private-file-foreign")
        #expect(Self.code(keeper.handle(.remove(name: "key", keeper: "other"))) == "private-file-foreign")
        #expect(machine.read("key") == "two")
        #expect(keeper.handle(.remove(name: "key", keeper: "k")) == .done([], isChanged: true))
        #expect(keeper.handle(.remove(name: "key", keeper: "k")) == .done([], isChanged: false))
        #expect(machine.read("key") == nil)
    }

    @Test func theDirectoryIsTheAgentsAlone() throws {
        let machine = try Machine()
        let keeper = machine.keeper()
        _ = try Self.file(Self.put(keeper, "one"))
        #expect(try Files.status(machine.place).mode == (geteuid() == 0 ? 0o711 : 0o700))
        // A second agent of the machine is told so, and not sent elsewhere.
        let other = try TemporaryDirectory()
        let second = PrivateFileKeeper(directory: other.path, defaults: [machine.place, "/dev/shm/never-made-by-a-test"])
        #expect(Self.code(Self.put(second, "two")) == "private-file-place-taken")
        #expect(!Files.exists("/dev/shm/never-made-by-a-test"))
        #expect(machine.read("key") == "one")
    }

    @Test func aDiskIsNoPlace() throws {
        let machine = try Machine()
        // /proc is neither memory nor a disk: what counts is that it is no tmpfs.
        #expect(Self.code(Self.put(machine.keeper(["/proc/private"]), "one")) == "private-file-no-place")
        #expect(Self.code(Self.put(machine.keeper([]), "one")) == "private-file-no-place")
        try Files.makeDirectory(machine.place)
        try Descriptor.open(machine.place + "/foreign", O_WRONLY | O_CREAT).write([UInt8]().span.bytes)
        #expect(Self.code(Self.put(machine.keeper(), "one")) == "private-file-no-place")
        #expect(Files.exists(machine.place + "/foreign"))
        try Files.remove(machine.place + "/foreign")
        try Files.changeMode(machine.place, 0o777)
        #expect(Self.code(Self.put(machine.keeper(), "one")) == "private-file-no-place")
    }

    @Test func filesEndWithTheirTimeAlsoOverARestart() throws {
        let machine = try Machine()
        var keeper: PrivateFileKeeper? = machine.keeper()
        _ = Self.put(try #require(keeper), Self.order("long", lifetime: 3_600_000), "two")
        let (state, _) = try Self.file(Self.put(try #require(keeper), Self.order("long", lifetime: 1_800_000), "two"))
        #expect((1_700_000...1_800_000).contains(state.expiresInMilliseconds ?? 0))
        _ = Self.put(try #require(keeper), Self.order("short", lifetime: 600_000), "one")
        // The agent dies, and half a file is left.
        keeper = nil
        try Descriptor.open(machine.place + "/.new-short", O_WRONLY | O_CREAT).write([1].span.bytes)
        keeper = machine.keeper(later: 60_000)
        #expect(keeper?.begin() == nil && machine.read("short") == "one" && machine.read(".new-short") == nil)
        keeper = nil
        let next = machine.keeper(later: 600_001)
        #expect(next.begin() == nil)
        #expect(machine.read("short") == nil && machine.read("long") == "two")
        #expect(next.nextEnd != nil)
        guard case .done(let files, _) = next.handle(.list(keeper: "k")) else { throw SystemError("list", "", code: EINVAL) }
        #expect(files.map(\.name) == ["long"])
    }

    @Test func anAgentWithoutFilesMakesNoDirectory() throws {
        let machine = try Machine()
        let keeper = machine.keeper()
        #expect(keeper.begin() == nil)
        #expect(keeper.handle(.list(keeper: "k")) == .done([], isChanged: false))
        #expect(!Files.exists(machine.place))
    }

    @Test func boundsHold() throws {
        let machine = try Machine()
        let keeper = machine.keeper()
        for number in 0..<PrivateFileLimits.files { _ = try Self.file(Self.put(keeper, Self.order("f\(number)"), "x")) }
        #expect(Self.code(Self.put(keeper, Self.order("more"), "x")) == "private-file-limit")
        #expect(try Self.file(Self.put(keeper, Self.order("f0"), "y")).isChanged)
        let large = String(repeating: "x", count: PrivateFileLimits.contentBytes)
        var refused = 0
        for number in 0..<10 where Self.code(Self.put(keeper, Self.order("f\(number)"), large)) == "private-file-limit" { refused += 1 }
        #expect(refused == 2)
    }

    @Test func thePolicyOfTheMachineDecides() throws {
        let machine = try Machine()
        let keeper = machine.keeper()
        let owner = try UserAccount.current().name
        try machine.policy(#"{"private_files": false}"#)
        #expect(Self.code(Self.put(keeper, "one")) == "agent-policy")
        try machine.policy(#"{"private_files": {"owners": ["nobody-of-this-test"]}}"#)
        #expect(Self.code(Self.put(keeper, "one")) == "agent-policy")
        try machine.policy(#"{"private_files": {"owners": ["\#(owner)"]}}"#)
        #expect(Self.code(Self.put(keeper, "one")) == nil)
        try machine.policy(#"{"private_files": {"direktory": "/x"}}"#)
        #expect(Self.code(Self.put(keeper, "one")) == "agent-policy")

        // Elsewhere: nothing stays behind.
        let elsewhere = machine.place + "-elsewhere"
        defer { try? Files.removeTree(elsewhere) }
        try machine.policy(#"{"private_files": {"directory": "\#(elsewhere)"}}"#)
        let (state, _) = try Self.file(Self.put(keeper, "one"))
        #expect(state.path == elsewhere + "/key" && !Files.exists(machine.place))
        #expect(Self.code(Self.put(keeper, PrivateFileOrder(name: "a", keeper: "k", owner: "no-such-user-here"), "x")) == "private-file-owner")
        #expect(Self.code(Self.put(keeper, PrivateFileOrder(name: "a", keeper: "k", group: "no-such-group-here"), "x")) == "private-file-owner")
    }

    @Test func aHookRunsOnlyByThePolicyAndAfterEachChange() throws {
        let machine = try Machine()
        let keeper = machine.keeper()
        let log = machine.directory.path + "/log"
        let hook = ["run", "/bin/sh", "-c", "echo $CM_PRIVATE_FILE_CHANGE $CM_PRIVATE_FILE >> \(log); test ! -e \(log).fail"]
        #expect(Self.code(Self.put(keeper, Self.order(hook: hook), "one")) == "agent-policy")
        #expect(machine.read("key") == nil)
        try machine.policy(#"{"private_files": {"hooks": [["run", "/bin/sh", "-c", "*"]]}}"#)
        func lines() -> [String] {
            ((try? Files.read(log, limit: 4_096)) ?? []).split(separator: 0x0A).map { String(decoding: $0, as: UTF8.self) }
        }
        #expect(try Self.file(Self.put(keeper, Self.order(hook: hook), "one")).0.hookFault == nil)
        #expect(lines() == ["replaced \(machine.place)/key"])
        #expect(try !Self.file(Self.put(keeper, Self.order(hook: hook), "one")).isChanged)
        #expect(lines().count == 1)
        // It fails: the file stands, the answer says so, and the next put of the same tries again.
        try Descriptor.open(log + ".fail", O_WRONLY | O_CREAT).write([UInt8]().span.bytes)
        let (failed, isChanged) = try Self.file(Self.put(keeper, Self.order(hook: hook), "two"))
        #expect(isChanged && failed.hookFault == "/bin/sh ended with 1" && machine.read("key") == "two")
        try Files.remove(log + ".fail")
        let (mended, isAgain) = try Self.file(Self.put(keeper, Self.order(hook: hook), "two"))
        #expect(!isAgain && mended.hookFault == nil && lines().last == "unchanged \(machine.place)/key")
        _ = keeper.handle(.remove(name: "key", keeper: "k"))
        #expect(lines().last == "removed \(machine.place)/key")
        // The rule went away while the file was there.
        _ = Self.put(keeper, Self.order(hook: hook), "three")
        try machine.policy("{}")
        _ = keeper.handle(.remove(name: "key", keeper: "k"))
        #expect(lines().last == "replaced \(machine.place)/key")
    }

    @Test func aSignalGoesToWhomAFileOfTrustNames() throws {
        let machine = try Machine()
        let keeper = machine.keeper()
        let child = try Spawn(program: "/bin/sleep", arguments: ["sleep", "60"]).start()
        let file = machine.directory.path + "/app.pid"
        try AtomicFile.write(Array("\(child.pid)\n".utf8), to: file)
        try machine.policy(#"{"private_files": {"hooks": [["signal", "*", "\#(file)"]]}}"#)
        let (state, _) = try Self.file(Self.put(keeper, Self.order(hook: ["signal", "TERM", file]), "one"))
        #expect(state.hookFault == nil)
        var item = pollfd(fd: child.descriptor.number, events: Int16(POLLIN), revents: 0)
        #expect(poll(&item, 1, 10_000) == 1)
        let end = try child.reap()
        #expect(end?.how == .signaled(SIGTERM))
        try Files.changeMode(file, 0o666)
        let (refused, _) = try Self.file(Self.put(keeper, Self.order(hook: ["signal", "TERM", file]), "two"))
        #expect(refused.hookFault?.contains("only root or the agent's user may write") == true)
    }

    /// The loop's part: answers come back, and time does its work without a core.
    @Test func timeEndsAFileWithoutACore() async throws {
        let machine = try Machine()
        try machine.policy(#"{"private_files": {"directory": "\#(machine.place)"}}"#)
        let loop = try EventLoop.start(name: "private-test")
        defer { loop.stop() }
        let path = machine.directory.path
        let answer: PrivateFileAnswer = await withCheckedContinuation { continuation in
            loop.post {
                let files = PrivateFiles(directory: path, on: loop)
                files.handle(.put(Self.order(lifetime: 20), content: [1])) { continuation.resume(returning: $0) }
                // Lives as long as the loop.
                _ = Unmanaged.passRetained(files)
            }
        }
        #expect(Self.code(answer) == nil)
        #expect(try waitForChanges(of: machine.place) { machine.read("key") == nil })
    }
}

import AgentProtocol
import Crypto
import Glibc
import JSON
import Program
import Reactor
import System
import Testing

@testable import Kernel

/// Files between a kernel and a real `cm-agent`.
@Suite struct TransfersTests {
    static let administrator = ChannelsFixture.administrator

    static func pattern(_ count: Int, seed: UInt8 = 0) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) ^ seed }
    }

    static func store(_ bytes: [UInt8], _ kernel: Kernel, name: String = "file") async throws -> StoredFile {
        let writer = try await kernel.files.begin(NewFile(name: name, size: UInt64(bytes.count)), by: administrator)
        var start = 0
        while start < bytes.count {
            let end = min(start + 1 << 20, bytes.count)
            try await writer.append(Array(bytes[start..<end]))
            start = end
        }
        return try await writer.seal()
    }

    /// Looks after each event, until it holds.
    @discardableResult
    static func wait(
        _ id: TransferID, _ fixture: ChannelsFixture, seconds: UInt64 = 30, until: (Transfer) -> Bool = { $0.state.isFinal }
    ) async throws -> Transfer {
        let deadline = monotonicNanoseconds() + seconds * 1_000_000_000
        while true {
            let transfer = try await fixture.kernel.transfers.get(id, administrator).transfer
            if until(transfer) { return transfer }
            guard monotonicNanoseconds() < deadline else {
                Issue.record("transfer \(id) is \(transfer.state) with \(transfer.bytes) bytes: \(transfer.machine.code) \(transfer.machine.reason)")
                return transfer
            }
            await fixture.pause()
        }
    }

    static func place(_ fixture: ChannelsFixture) throws -> String {
        let place = fixture.directory.path + "/target"
        if !Files.exists(place) { try Files.makeDirectory(place) }
        return place
    }

    static func push(
        _ file: FileID, to path: String, _ fixture: ChannelsFixture, _ change: (inout TransferRequest) -> Void = { _ in }
    ) async throws -> TransferID {
        var request = TransferRequest(.push, targets: .clients([try await fixture.client()]), path: path)
        request.file = file
        change(&request)
        return try #require(try await fixture.kernel.transfers.create(request, by: administrator).transfers.first).transfer.id
    }

    static func pull(_ path: String, _ fixture: ChannelsFixture, _ change: (inout TransferRequest) -> Void = { _ in }) async throws -> TransferID {
        var request = TransferRequest(.pull, targets: .clients([try await fixture.client()]), path: path)
        change(&request)
        return try #require(try await fixture.kernel.transfers.create(request, by: administrator).transfers.first).transfer.id
    }

    /// From now on, whatever moves is in its middle until `letGo`, however slow the machine is.
    static func hold(_ kernel: Kernel, kib: Int64 = 32) async throws {
        try await kernel.settings.set(Setting.transferRateKiB.name, to: .integer(kib), by: administrator)
    }

    static func letGo(_ kernel: Kernel) async throws { try await hold(kernel, kib: 0) }

    /// Nothing of transfers is left on either side.
    static func isClean(_ fixture: ChannelsFixture) async throws -> Bool {
        let deadline = monotonicNanoseconds() + 10_000_000_000
        while monotonicNanoseconds() < deadline {
            let left = try Files.list(try place(fixture)).filter { $0.hasPrefix(".cm-transfer") }
                + Files.list(fixture.agentDirectory + "/transfers")
            if left.isEmpty { return true }
            await fixture.pause()
        }
        return false
    }

    @Test(.timeLimit(.minutes(2))) func aFileGoesThereAndComesBack() async throws {
        try await ChannelsFixture.run { fixture in
            let bytes = Self.pattern(3_000_000)
            let file = try await Self.store(bytes, fixture.kernel)
            let path = try Self.place(fixture) + "/data"
            let push = try await Self.push(file.id, to: path, fixture) {
                $0.mode = 0o640
                $0.modified = 1_600_000_000_123_456_789
            }
            let pushed = try await Self.wait(push, fixture)
            #expect(pushed.state == .succeeded && pushed.bytes == 3_000_000)
            #expect(try Files.read(path, limit: 1 << 23) == bytes)
            let status = try Files.status(path)
            #expect(status.mode == 0o640 && status.modifiedNanoseconds == 1_600_000_000_123_456_789)

            let pull = try await Self.pull(path, fixture)
            let pulled = try await Self.wait(pull, fixture)
            #expect(pulled.state == .succeeded && pulled.digest == file.digest && pulled.mode == 0o640)
            let reader = try await fixture.kernel.files.open(try #require(pulled.file))
            #expect(reader.size == 3_000_000 && reader.file.name == "data")
            #expect(try await Self.isClean(fixture))
            let trail = try await fixture.kernel.audit.query(AuditFilter(), limit: 500).lines.map(\.entry.action)
            for action in ["transfer.create", "transfer.end"] { #expect(trail.filter { $0 == action }.count == 2, "\(trail)") }
            // A file that nobody needs any more can go.
            try await fixture.kernel.files.remove(file.id, by: Self.administrator)
        }
    }

    @Test(.timeLimit(.minutes(2))) func anEmptyFileIsAFile() async throws {
        try await ChannelsFixture.run { fixture in
            let file = try await Self.store([], fixture.kernel)
            let path = try Self.place(fixture) + "/deep/er/empty"
            let push = try await Self.push(file.id, to: path, fixture) { $0.makesParents = true }
            #expect(try await Self.wait(push, fixture).state == .succeeded)
            #expect(try Files.status(path).size == 0)
            let pulled = try await Self.wait(try await Self.pull(path, fixture), fixture)
            #expect(pulled.state == .succeeded && pulled.size == 0)
        }
    }

    @Test(.timeLimit(.minutes(2))) func refusalsAreClearAndLeaveWhatIsThere() async throws {
        try await ChannelsFixture.run { fixture in
            let file = try await Self.store(Self.pattern(1_000), fixture.kernel)
            let place = try Self.place(fixture)
            try AtomicFile.write([1, 2, 3], to: place + "/old")
            #expect(symlink("/etc/passwd", place + "/link") == 0)
            #expect(mkfifo(place + "/pipe", 0o600) == 0)
            func code(_ path: String, _ change: (inout TransferRequest) -> Void = { _ in }) async throws -> String {
                try await Self.wait(try await Self.push(file.id, to: path, fixture, change), fixture).machine.code
            }
            #expect(try await code(place + "/old") { $0.replaces = false } == "path-exists")
            #expect(try await code(place + "/missing/file") == "path-not-found")
            #expect(try await code(place) == "path-is-directory")
            #expect(try await code(place + "/link") == "path-not-a-file")
            #expect(try await code(place + "/pipe") == "path-not-a-file")
            #expect(try await code("/proc/self/comm") == "path-not-allowed")
            #expect(try await code(fixture.agentDirectory + "/policy.json") == "path-not-allowed")
            #expect(try Files.read(place + "/old", limit: 10) == [1, 2, 3])
            // Not a directory is made where nothing may be touched.
            #expect(symlink(fixture.agentDirectory, place + "/sneak") == 0)
            #expect(try await code(place + "/sneak/new/deep/file") { $0.makesParents = true } == "path-not-allowed")
            #expect(!Files.exists(fixture.agentDirectory + "/new"))
            func pulled(_ path: String) async throws -> String {
                try await Self.wait(try await Self.pull(path, fixture), fixture).machine.code
            }
            #expect(try await pulled(place + "/nothing") == "path-not-found")
            #expect(try await pulled(place) == "path-is-directory")
            #expect(try await pulled(place + "/pipe") == "path-not-a-file")
            #expect(try await pulled("/sys/kernel/profiling") == "path-not-allowed")
            #expect(try await pulled(fixture.agentDirectory + "/identity.json") == "path-not-allowed")
            #expect(try await Self.isClean(fixture))
            for path in ["relative", "/a/../b", "/a/./b"] {
                await #expect(throws: Problem.self) { _ = try await Self.push(file.id, to: path, fixture) }
            }
        }
    }

    @Test(.timeLimit(.minutes(2))) func theLocalPolicyHasTheLastWord() async throws {
        let place = "/tmp/cm-transfers-\(getpid())"
        try Files.makeDirectories(place + "/inside")
        defer { try? Files.removeTree(place) }
        try await ChannelsFixture.run(policy: #"{"file_roots": ["\#(place)/inside"], "file_writes": false}"#) { fixture in
            let file = try await Self.store([1], fixture.kernel)
            let push = try await Self.wait(try await Self.push(file.id, to: place + "/inside/x", fixture), fixture)
            #expect(push.machine.code == "agent-policy")
            try AtomicFile.write([7], to: place + "/inside/x")
            try AtomicFile.write([8], to: place + "/secret")
            #expect(symlink("../secret", place + "/inside/out") == 0)
            #expect(try await Self.wait(try await Self.pull(place + "/inside/x", fixture), fixture).state == .succeeded)
            for path in [place + "/secret", place + "/inside/out", "/etc/hostname"] {
                #expect(try await Self.wait(try await Self.pull(path, fixture), fixture).machine.code == "path-not-allowed")
            }
        }
    }

    @Test(.timeLimit(.minutes(2))) func pauseKeepsAndResumeGoesOn() async throws {
        try await ChannelsFixture.run { fixture in
            let bytes = Self.pattern(2_000_000)
            let file = try await Self.store(bytes, fixture.kernel)
            let path = try Self.place(fixture) + "/paused"
            try AtomicFile.write([9], to: path)
            try await Self.hold(fixture.kernel)
            let id = try await Self.push(file.id, to: path, fixture)
            try await Self.wait(id, fixture) { $0.bytes > 50_000 }
            let paused = try await fixture.kernel.transfers.pause(id, by: Self.administrator).transfer
            #expect(paused.state == .paused && paused.bytes < 2_000_000)
            #expect(try Files.read(path, limit: 10) == [9])
            _ = try await fixture.kernel.transfers.resume(id, by: Self.administrator)
            let goneOn = try await Self.wait(id, fixture) { $0.state == .running && $0.durable > 0 || $0.state.isFinal }
            #expect(goneOn.durable >= 50_000, "what had come is not sent again")
            try await Self.letGo(fixture.kernel)
            #expect(try await Self.wait(id, fixture).state == .succeeded)
            #expect(try Files.read(path, limit: 1 << 23) == bytes)
            #expect(try await Self.isClean(fixture))

            try await Self.hold(fixture.kernel)
            let pull = try await Self.pull(path, fixture)
            try await Self.wait(pull, fixture) { $0.bytes > 50_000 }
            _ = try await fixture.kernel.transfers.pause(pull, by: Self.administrator)
            try await Self.letGo(fixture.kernel)
            _ = try await fixture.kernel.transfers.resume(pull, by: Self.administrator)
            let pulled = try await Self.wait(pull, fixture)
            #expect(pulled.state == .succeeded && pulled.digest == file.digest)
        }
    }

    @Test(.timeLimit(.minutes(2))) func cancelLeavesTheOldFileAndNothingElse() async throws {
        try await ChannelsFixture.run { fixture in
            let file = try await Self.store(Self.pattern(2_000_000), fixture.kernel)
            let path = try Self.place(fixture) + "/kept"
            try AtomicFile.write([9], to: path)
            try await Self.hold(fixture.kernel)
            let id = try await Self.push(file.id, to: path, fixture)
            try await Self.wait(id, fixture) { $0.bytes > 50_000 }
            #expect(try await fixture.kernel.transfers.cancel(id, by: Self.administrator).transfer.state == .cancelled)
            #expect(try Files.read(path, limit: 10) == [9])
            #expect(try await Self.isClean(fixture))

            let paused = try await Self.push(file.id, to: path, fixture)
            try await Self.wait(paused, fixture) { $0.bytes > 50_000 }
            _ = try await fixture.kernel.transfers.pause(paused, by: Self.administrator)
            _ = try await fixture.kernel.transfers.cancel(paused, by: Self.administrator)
            #expect(try await Self.isClean(fixture), "nor does a paused one leave anything while its client stays connected")
            await #expect(throws: Problem.self) { _ = try await fixture.kernel.transfers.resume(id, by: Self.administrator) }

            let source = try Self.place(fixture) + "/source"
            try AtomicFile.write(Self.pattern(2_000_000), to: source)
            let before = fixture.kernel.files.used
            let pull = try await Self.pull(source, fixture)
            try await Self.wait(pull, fixture) { $0.bytes > 50_000 }
            _ = try await fixture.kernel.transfers.cancel(pull, by: Self.administrator)
            #expect(try await Self.isClean(fixture))
            let deadline = monotonicNanoseconds() + 10_000_000_000
            while fixture.kernel.files.used != before, monotonicNanoseconds() < deadline {
                await fixture.pause()
            }
            #expect(fixture.kernel.files.used == before)
        }
    }

    @Test(.timeLimit(.minutes(2))) func restartsOfAgentAndCoreCostOnlyTime() async throws {
        try await ChannelsFixture.run { fixture in
            let bytes = Self.pattern(3_000_000)
            let file = try await Self.store(bytes, fixture.kernel)
            let path = try Self.place(fixture) + "/survivor"
            try await Self.hold(fixture.kernel)
            let id = try await Self.push(file.id, to: path, fixture)
            try await Self.wait(id, fixture) { $0.bytes > 50_000 }
            fixture.killAgent()
            try fixture.startAgent()
            try await Self.wait(id, fixture) { $0.bytes > 150_000 }
            try await fixture.restartCore()
            try await Self.letGo(fixture.kernel)
            let pushed = try await Self.wait(id, fixture)
            #expect(pushed.state == .succeeded, "\(pushed.machine.code) \(pushed.machine.reason)")
            #expect(try Files.read(path, limit: 1 << 23) == bytes)

            try await Self.hold(fixture.kernel)
            let pull = try await Self.pull(path, fixture)
            try await Self.wait(pull, fixture) { $0.bytes > 50_000 }
            fixture.killAgent()
            try fixture.startAgent()
            try await Self.wait(pull, fixture) { $0.bytes > 150_000 }
            try await fixture.restartCore()
            try await Self.letGo(fixture.kernel)
            let pulled = try await Self.wait(pull, fixture)
            #expect(pulled.state == .succeeded && pulled.digest == file.digest, "\(pulled.machine.code) \(pulled.machine.reason)")
            #expect(try await Self.isClean(fixture))
        }
    }

    @Test(.timeLimit(.minutes(2))) func aQueuedTransferWaitsForItsClient() async throws {
        try await ChannelsFixture.run { fixture in
            let file = try await Self.store([1, 2], fixture.kernel)
            let path = try Self.place(fixture) + "/late"
            let client = try await fixture.client()
            fixture.killAgent()
            let deadline = monotonicNanoseconds() + 20_000_000_000
            while fixture.kernel.clients.link(of: client) != nil, monotonicNanoseconds() < deadline {
                await fixture.pause()
            }
            var request = TransferRequest(.push, targets: .clients([client]), path: path)
            request.file = file.id
            request.offline = .fail
            await #expect(throws: Problem.self) { _ = try await fixture.kernel.transfers.create(request, by: Self.administrator) }
            request.offline = .queue
            let id = try #require(try await fixture.kernel.transfers.create(request, by: Self.administrator).transfers.first).transfer.id
            // While it waits, its file stays.
            await #expect(throws: Problem.self) { try await fixture.kernel.files.remove(file.id, by: Self.administrator) }
            try fixture.startAgent()
            #expect(try await Self.wait(id, fixture).state == .succeeded)
            var late = request
            late.withinMilliseconds = 1_000
            fixture.killAgent()
            let lost = try #require(try await fixture.kernel.transfers.create(late, by: Self.administrator).transfers.first).transfer.id
            await fixture.kernel.transfers.tick(now: unixMilliseconds() + 2_000)
            #expect(try await Self.wait(lost, fixture).machine.code == "transfer-late")
        }
    }

    @Test(.timeLimit(.minutes(2))) func aRepeatedRequestMakesNoSecondTransfer() async throws {
        try await ChannelsFixture.run { fixture in
            let transfers = fixture.kernel.transfers
            let file = try await Self.store([1, 2], fixture.kernel)
            let path = try Self.place(fixture) + "/once"
            var request = TransferRequest(.push, targets: .clients([try await fixture.client()]), path: path)
            request.file = file.id
            request.idempotencyKey = IdempotencyKey(key: "k-1", request: Array("this".utf8))
            let order = request
            // All at once, of which one is the first.
            let made = try await withThrowingTaskGroup(of: Transfers.Creation.self) { group in
                for _ in 0..<8 { group.addTask { try await transfers.create(order, by: Self.administrator) } }
                return try await group.reduce(into: []) { $0.append($1) }
            }
            #expect(made.filter(\.isNew).count == 1)
            let ids = Set(made.flatMap { $0.transfers.map(\.transfer.id) })
            let id = try #require(ids.first)
            #expect(ids.count == 1)
            #expect(try await Self.wait(id, fixture).state == .succeeded)
            #expect(try await fixture.kernel.audit.query(AuditFilter(), limit: 500).lines.filter { $0.entry.action == "transfer.create" }.count == 1)

            // Also when its file is gone: it answers how that transfer stands.
            try await fixture.kernel.files.remove(file.id, by: Self.administrator)
            let again = try await transfers.create(order, by: Self.administrator)
            #expect(!again.isNew && again.transfers.map(\.transfer.id) == [id] && again.transfers[0].transfer.state == .succeeded)

            func code(_ request: TransferRequest, _ principal: Principal = Self.administrator) async throws -> String {
                do throws(Problem) {
                    let creation = try await transfers.create(request, by: principal)
                    return creation.isNew ? "new" : "known"
                } catch { return error.code }
            }
            request.idempotencyKey = IdempotencyKey(key: "k-1", request: Array("that".utf8))
            #expect(try await code(request) == "idempotency-key-reused")
            for key in ["", "a b", String(repeating: "k", count: 129), "ü"] {
                request.idempotencyKey = IdempotencyKey(key: key, request: [])
                #expect(try await code(request) == "invalid")
            }
            // Keys of others are others.
            let second = try await Self.store([3], fixture.kernel)
            request.file = second.id
            request.idempotencyKey = IdempotencyKey(key: "k-1", request: Array("theirs".utf8))
            #expect(try await code(request, Principal(kind: .user, id: "someone", roles: ["administrator"])) == "new")
        }
    }

    @Test(.timeLimit(.minutes(2))) func oneWithoutRightsIsRefused() async throws {
        try await ChannelsFixture.run { fixture in
            let viewer = Principal(kind: .user, id: "viewer", roles: ["viewer"])
            let file = try await Self.store([1], fixture.kernel)
            var request = TransferRequest(.push, targets: .clients([try await fixture.client()]), path: "/tmp/x")
            request.file = file.id
            await #expect(throws: Problem.self) { _ = try await fixture.kernel.transfers.create(request, by: viewer) }
            let id = try await Self.push(file.id, to: try Self.place(fixture) + "/x", fixture)
            // May look, may not touch.
            _ = try await fixture.kernel.transfers.get(id, viewer)
            await #expect(throws: Problem.self) { _ = try await fixture.kernel.transfers.cancel(id, by: viewer) }
            let stranger = Principal(kind: .user, id: "stranger")
            await #expect(throws: Problem.self) { _ = try await fixture.kernel.transfers.get(id, stranger) }
        }
    }

    @Test(.timeLimit(.minutes(2))) func filesOfAClientAreLookedAtAndChangedWithoutAShell() async throws {
        try await ChannelsFixture.run { fixture in
            let place = try Self.place(fixture)
            let client = try await fixture.client()
            let transfers = fixture.kernel.transfers
            func code(_ request: FileRequest) async -> String? {
                do throws(Problem) { try await transfers.change(request, on: client, by: Self.administrator) } catch { return error.code }
                return nil
            }
            #expect(await code(.makeDirectory(path: place + "/a/b", parents: false, mode: 0o750)) == "path-not-found")
            #expect(await code(.makeDirectory(path: place + "/a/b", parents: true, mode: 0o750)) == nil)
            #expect(await code(.makeDirectory(path: place + "/a/b", parents: false, mode: 0o750)) == "path-exists")
            for name in ["one", "two", "three"] { try AtomicFile.write([1], to: place + "/a/" + name) }
            #expect(symlink("one", place + "/a/link") == 0)
            let first = try await transfers.look(.list(path: place + "/a", after: "", limit: 3), on: client)
            #expect(first.entries.map(\.name) == ["b", "link", "one"] && first.hasMore)
            #expect(first.entries.map(\.kind) == [.directory, .link, .file] && first.entries[1].target == "one")
            let rest = try await transfers.look(.list(path: place + "/a", after: "one", limit: 3), on: client)
            #expect(rest.entries.map(\.name) == ["three", "two"] && !rest.hasMore)
            let link = try await transfers.look(.status(path: place + "/a/link", follows: false), on: client)
            let file = try await transfers.look(.status(path: place + "/a/link", follows: true), on: client)
            #expect(link.entries.first?.kind == .link && file.entries.first?.kind == .file && file.entries.first?.size == 1)
            #expect(await code(.rename(path: place + "/a/one", target: place + "/a/two", replaces: false)) == "path-exists")
            #expect(await code(.rename(path: place + "/a/one", target: place + "/a/four", replaces: false)) == nil)
            #expect(Files.exists(place + "/a/four") && !Files.exists(place + "/a/one"))
            #expect(await code(.remove(path: place + "/a", recursive: false)) == "directory-not-empty")
            // A link in it leads elsewhere; what is there stays.
            try Files.makeDirectory(place + "/other")
            try AtomicFile.write([2], to: place + "/other/stays")
            #expect(symlink("../other", place + "/a/away") == 0)
            #expect(await code(.remove(path: place + "/a", recursive: true)) == nil)
            #expect(!Files.exists(place + "/a") && Files.exists(place + "/other/stays"))
            #expect(await code(.remove(path: "/proc/1", recursive: true)) == "path-not-allowed")
            let trail = try await fixture.kernel.audit.query(AuditFilter(), limit: 500).lines.map(\.entry)
            #expect(trail.contains { $0.action == "file.delete" && $0.outcome == "failed" })
            #expect(trail.contains { $0.action == "file.rename" && $0.outcome == "allowed" })
        }
    }

    @Test(.timeLimit(.minutes(2))) func aClientTellsTheHashOfAFile() async throws {
        try await ChannelsFixture.run { fixture in
            let place = try Self.place(fixture)
            let client = try await fixture.client()
            let transfers = fixture.kernel.transfers
            // More than one piece, and nothing.
            let content = Self.pattern(700_001)
            try AtomicFile.write(content, to: place + "/one")
            try AtomicFile.write([], to: place + "/empty")
            let answer = try await transfers.look(.hash(path: place + "/one", .sha256), on: client)
            #expect(answer.hash == SHA256.digest(content).hex && answer.entries.first?.size == 700_001)
            let empty = try await transfers.look(.hash(path: place + "/empty", .md5), on: client)
            #expect(empty.hash == "d41d8cd98f00b204e9800998ecf8427e")
            try AtomicFile.write(Array("abc".utf8), to: place + "/abc")
            #expect(try await transfers.look(.hash(path: place + "/abc", .md5), on: client).hash == "900150983cd24fb0d6963f7d28e17f72")
            for (path, code) in [(place, "path-is-directory"), ("/dev/null", "path-not-a-file"), ("/proc/self/status", "path-not-allowed"), (place + "/no", "path-not-found")] {
                do throws(Problem) {
                    _ = try await transfers.look(.hash(path: path, .sha256), on: client)
                    Issue.record("\(path) was hashed")
                } catch { #expect(error.code == code) }
            }
        }
    }

    @Test(.timeLimit(.minutes(1))) func anAgentThatTellsNoHashesIsNotAskedForThem() async throws {
        try await ChannelsFixture.run(isSimulated: true, withheld: [Feature.fileHash]) { fixture in
            let client = try await fixture.client()
            do throws(Problem) {
                _ = try await fixture.kernel.transfers.look(.hash(path: "/a", .sha256), on: client)
                Issue.record("it was asked")
            } catch { #expect(error.code == "hash-unsupported" && error.status == 409) }
        }
    }

    @Test(.timeLimit(.minutes(2))) func settingsBoundWhatRunsAndWhatIsKept() async throws {
        try await ChannelsFixture.run { fixture in
            let kernel = fixture.kernel
            func set(_ setting: Setting, _ value: Int64) async throws {
                try await kernel.settings.set(setting.name, to: .integer(value), by: Self.administrator)
            }
            let file = try await Self.store(Self.pattern(2_000_000), kernel)
            let place = try Self.place(fixture)
            for (setting, running) in [(Setting.transfersPerClient, 1), (.transfersAtOnce, 1)] {
                try await set(.transfersPerClient, 4)
                try await set(setting, 1)
                try await Self.hold(kernel)
                let ids = [
                    try await Self.push(file.id, to: place + "/one", fixture),
                    try await Self.push(file.id, to: place + "/two", fixture),
                ]
                try await Self.wait(ids[0], fixture) { $0.bytes > 50_000 }
                let states = try await [kernel.transfers.get(ids[0], Self.administrator), kernel.transfers.get(ids[1], Self.administrator)]
                #expect(states.filter { $0.transfer.state == .running }.count == running)
                try await Self.letGo(kernel)
                for id in ids { #expect(try await Self.wait(id, fixture).state == .succeeded) }
            }
            try await set(.transferRateKiB, 1_024)
            try await set(.transferClientRateKiB, 512)
            #expect(kernel.transfers.rates.limits == TransferRates.Limits(server: 1_048_576, client: 524_288))
            try await set(.transferRateKiB, 0)
            try await set(.transferClientRateKiB, 0)
            try await set(.transferQuotaMiB, 1)
            let refused = try await Self.wait(try await Self.pull(place + "/one", fixture), fixture)
            #expect(refused.machine.code == "client-quota")
            try await set(.transferRetentionDays, 1)
            await kernel.transfers.tick(now: unixMilliseconds() + 2 * 86_400_000)
            await #expect(throws: Problem.self) { _ = try await kernel.transfers.get(refused.id, Self.administrator) }
        }
    }

    /// Nothing in the core knows that a client is simulated.
    @Test(.timeLimit(.minutes(2))) func aSimulatedAgentTakesAndGives() async throws {
        try await ChannelsFixture.run(isSimulated: true) { fixture in
            let bytes = (0..<300_000 as Range<UInt64>).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }
            let file = try await Self.store(bytes, fixture.kernel)
            let pushed = try await Self.wait(try await Self.push(file.id, to: "/anywhere", fixture), fixture)
            #expect(pushed.state == .succeeded && pushed.bytes == 300_000)
            let pulled = try await Self.wait(try await Self.pull("/bytes/300000", fixture), fixture)
            #expect(pulled.state == .succeeded && pulled.digest == file.digest)
            #expect(try await Self.wait(try await Self.pull("/etc/hostname", fixture), fixture).machine.code == "path-not-found")
            let client = try await fixture.client()
            await #expect(throws: Problem.self) { _ = try await fixture.kernel.transfers.look(.status(path: "/", follows: true), on: client) }
        }
    }

    @Test(.timeLimit(.minutes(2))) func aClientThatIsForgottenEndsItsTransfers() async throws {
        try await ChannelsFixture.run { fixture in
            let file = try await Self.store(Self.pattern(2_000_000), fixture.kernel)
            try await Self.hold(fixture.kernel)
            let id = try await Self.push(file.id, to: try Self.place(fixture) + "/never", fixture)
            try await Self.wait(id, fixture) { $0.bytes > 50_000 }
            await fixture.kernel.transfers.clientGone(try await fixture.client(), code: "client-revoked")
            #expect(try await Self.wait(id, fixture).machine.code == "client-revoked")
            #expect(try await Self.isClean(fixture))
        }
    }
}

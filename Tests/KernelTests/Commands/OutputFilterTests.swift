import AgentProtocol
import Synchronization
import Testing

@testable import Kernel

/// Overwrites each occurrence of a word, and holds back what may be its beginning: as a plugin would.
final class WordFilter: OutputFilter {
    private let word: [UInt8]
    private let seen = Mutex<[OutputFilterPiece]>([])
    let isFailing = Atomic<Bool>(false)
    let during = Mutex<(@Sendable () -> Void)?>(nil)

    init(_ word: String) { self.word = Array(word.utf8) }

    var pieces: [OutputFilterPiece] { seen.withLock { $0 } }

    func filter(_ piece: OutputFilterPiece, _ window: inout MutableSpan<UInt8>) -> Int? {
        seen.withLock { $0.append(piece) }
        during.withLock { $0 }?()
        if isFailing.load(ordering: .relaxed) { return nil }
        var place = 0
        while place < window.count {
            var length = 0
            while length < word.count, place + length < window.count, window[place + length] == word[length] { length += 1 }
            if length == word.count {
                for index in place..<place + length { window[index] = 0x23 }
                place += length
            } else if place + length == window.count, length > 0, !piece.isLast {
                return length
            } else {
                place += 1
            }
        }
        return 0
    }
}

/// Answers what it is told to.
private final class WrongFilter: OutputFilter {
    let answer: Int
    init(_ answer: Int) { self.answer = answer }
    func filter(_: OutputFilterPiece, _: inout MutableSpan<UInt8>) -> Int? { answer }
}

@Suite struct OutputFilterChainTests {
    private static let source = LiveOutput.Source(command: CommandID(high: 1, low: 1), client: ClientID(high: 1, low: 2))

    private static func pass(_ text: String, cuts: [Int], _ filters: OutputFilters, _ owners: [String]) -> (String, UInt64) {
        let bytes = Array(text.utf8)
        var chain = OutputFilterChain(owners)
        var result: [UInt8] = []
        var start = 0
        for cut in cuts + [bytes.count] where cut >= start {
            result += chain.pass(Array(bytes[start..<cut]), isLast: false, of: source, .standardOutput, through: filters)
            #expect(chain.heldBytes <= OutputFilters.heldBytes * owners.count)
            start = cut
        }
        result += chain.pass([], isLast: true, of: source, .standardOutput, through: filters)
        #expect(chain.pass([1], isLast: true, of: source, .standardOutput, through: filters).isEmpty)
        return (String(decoding: result, as: UTF8.self), chain.withheld)
    }

    @Test func aFilterSeesAcrossEveryBorder() {
        let filters = OutputFilters()
        let filter = WordFilter("secret")
        filters.add(filter, of: "a")
        let text = "a secret, a sec, secretsecret sec"
        for first in 0...text.utf8.count {
            let (masked, withheld) = Self.pass(text, cuts: [first, first + 1].filter { $0 <= text.utf8.count }, filters, ["a"])
            #expect(masked == "a ######, a sec, ############ sec" && withheld == 0)
        }
        let (masked, _) = Self.pass(text, cuts: Array(0...text.utf8.count), filters, ["a"])
        #expect(masked == "a ######, a sec, ############ sec")
        #expect(filter.pieces.last?.isLast == true)
    }

    @Test func offsetsAreThoseOfTheProgram() {
        let filters = OutputFilters()
        let filter = WordFilter("secret")
        filters.add(filter, of: "a")
        _ = Self.pass("xxsecyysec", cuts: [5, 7], filters, ["a"])
        // Three bytes were held back at 2, and again at the end.
        #expect(filter.pieces.map(\.offset) == [0, 2, 7, 7])
        #expect(filter.pieces.map(\.isLast) == [false, false, false, true])
    }

    @Test func filtersWorkOneAfterTheOther() {
        let filters = OutputFilters()
        filters.add(WordFilter("secret"), of: "a")
        filters.add(WordFilter("######!"), of: "b")
        #expect(Self.pass("a secret! secret", cuts: [4, 8, 9], filters, ["a", "b"]).0 == "a ####### ######")
        #expect(Self.pass("a secret! secret", cuts: [4, 8, 9], filters, ["b", "a"]).0 == "a ######! ######")
    }

    @Test func withoutItsFilterEverythingIsAsterisks() {
        let filters = OutputFilters()
        filters.add(WordFilter("secret"), of: "a")
        let (masked, withheld) = Self.pass("plain\ntext\n", cuts: [3], filters, ["a", "gone"])
        #expect(masked == "*****\n****\n" && withheld == 11)
        #expect(filters.names == ["a"])
    }

    /// What it held back when it failed may be the first half of something.
    @Test func aFailureIsFinalForTheStream() {
        let filters = OutputFilters()
        let filter = WordFilter("secret")
        filters.add(filter, of: "a")
        var chain = OutputFilterChain(["a"])
        func pass(_ text: String) -> String {
            String(
                decoding: chain.pass(Array(text.utf8), isLast: false, of: Self.source, .standardError, through: filters), as: UTF8.self)
        }
        #expect(pass("fine sec") == "fine ")
        filter.isFailing.store(true, ordering: .relaxed)
        #expect(pass("ret\n") == "******\n")
        filter.isFailing.store(false, ordering: .relaxed)
        let calls = filter.pieces.count
        #expect(pass("more\n") == "****\n" && filter.pieces.count == calls)
        #expect(chain.withheld == 12)
    }

    @Test func wrongAnswersAreFailures() {
        for answer in [-1, 6, .max, .min] {
            let filters = OutputFilters()
            filters.add(WrongFilter(answer), of: "a")
            #expect(Self.pass("plain", cuts: [], filters, ["a"]).0 == "*****")
        }
        let filters = OutputFilters()
        filters.add(WrongFilter(4_097), of: "a")
        let text = String(repeating: "x", count: 5_000)
        #expect(Self.pass(text, cuts: [], filters, ["a"]).0 == String(repeating: "*", count: 5_000))
        // All of it may be held back, up to the bound.
        filters.add(WrongFilter(4_096), of: "b")
        #expect(Self.pass(text, cuts: [], filters, ["b"]).0 == text)
    }

    @Test func theNewestOfAnOwnerWorksAndTheOlderComesBack() {
        let filters = OutputFilters()
        let (old, new) = (WordFilter("old"), WordFilter("new"))
        filters.add(old, of: "a")
        filters.add(new, of: "a")
        #expect(Self.pass("old new", cuts: [], filters, ["a"]).0 == "old ###")
        filters.remove(new, of: "a")
        #expect(Self.pass("old new", cuts: [], filters, ["a"]).0 == "### new")
        filters.remove(new, of: "a")
        filters.remove(old, of: "a")
        #expect(filters.names.isEmpty)
        filters.require(["a", "b"])
        filters.add(new, of: "b")
        #expect(filters.names == ["a", "b"] && filters.missing == ["a"])
    }
}

@Suite struct OutputFilterTests {
    private func output(_ core: CommandsFixture, _ id: CommandID) async throws -> String {
        String(decoding: try await core.target(id).output?.inline?.output ?? [], as: UTF8.self)
    }

    private func aLinkWaits(_ core: CommandsFixture) async throws {
        for _ in 0..<1_000_000 where core.commands.filters.waitingLinks == 0 { await Task.yield() }
        try #require(core.commands.filters.waitingLinks == 1)
    }

    @Test func outputPassesTheFilterBeforeAnybodySeesIt() async throws {
        let core = try await CommandsFixture()
        core.commands.filters.add(WordFilter("secret"), of: "com.example.mask")
        let link = await core.connect(0)
        let id = try await core.submit().id
        #expect(core.say(link, id, Array("a sec".utf8)))
        let early = try await core.commands.readOutput(id, of: core.clients[0], .standardOutput, at: 0, count: 100)
        #expect(early.bytes == Array("a ".utf8) && early.length == 2)
        // What was sent twice counts once.
        #expect(core.say(link, id, Array("secret b sec".utf8), at: 2))
        #expect(await core.commands.finished(over: link, core.record(id, output: 14)))
        #expect(try await output(core, id) == "a ###### b sec")
        #expect(try await core.target(id).output?.withheld == 0)
        let shown = String(decoding: try await core.commands.get(id).shown, as: UTF8.self)
        #expect(shown.contains(#""output_filters":["com.example.mask"]"#))
    }

    @Test func whatWasGivenAsSecretIsMaskedBeforeAFilterSeesIt() async throws {
        let core = try await CommandsFixture()
        core.commands.filters.add(WordFilter("hunter2-hunter2"), of: "a")
        let link = await core.connect(0)
        let id = try await core.submit { $0.secretEnvironment = ["TOKEN": "hunter2-hunter2"] }.id
        await core.finish(link, id, output: Array("is hunter2-hunter2, hunter2".utf8))
        #expect(try await output(core, id) == "is ***************, hunter2")
    }

    @Test func aCommandIsBoundWhenItIsAccepted() async throws {
        let core = try await CommandsFixture()
        let link = await core.connect(0)
        let free = try await core.submit().id
        let filter = WordFilter("secret")
        core.commands.filters.add(filter, of: "a")
        let bound = try await core.submit().id
        await core.finish(link, free, output: Array("secret".utf8))
        core.commands.filters.remove(filter, of: "a")
        await core.finish(link, bound, output: Array("secret\n".utf8), errors: Array("two".utf8))
        let later = try await core.submit().id
        await core.finish(link, later, output: Array("secret".utf8))
        #expect(try await output(core, free) == "secret")
        #expect(try await output(core, bound) == "******\n")
        #expect(try await core.target(bound).output?.withheld == 10)
        #expect(try await output(core, later) == "secret")
    }

    @Test func aRestartBindsItAgainAndBeginsAtTheBeginning() async throws {
        let core = try await CommandsFixture()
        core.commands.filters.add(WordFilter("secret"), of: "a")
        let old = await core.connect(0)
        let id = try await core.submit().id
        core.say(old, id, Array("one secret two sec".utf8))
        let after = try await core.restarted()
        after.commands.filters.close()
        let link = FakeLink(after.clients[0])
        after.commands.accepted(link)
        // Nothing is asked for before the filters are there.
        async let decisions = after.commands.reconcile(
            over: link, [ExecutionReport(command: id, started: .yes, standardOutputBytes: 18, standardErrorBytes: 0, exit: nil)])
        try await aLinkWaits(after)
        #expect(link.orders.isEmpty)
        after.commands.filters.add(WordFilter("secret"), of: "a")
        after.commands.filters.open()
        #expect(await decisions == [.resume(command: id, standardOutputFrom: 0, standardErrorFrom: 0)])
        await after.finish(link, id, output: Array("one secret two secret\n".utf8))
        #expect(try await output(after, id) == "one ###### two ######\n")
        #expect(try await after.target(id).output?.withheld == 0)
        // A core without the plugin shows what was kept, and binds nobody else.
        let last = try await after.restarted()
        #expect(try await output(last, id) == "one ###### two ######\n")
    }

    @Test func withoutItsPluginARestartedCoreKeepsAsterisks() async throws {
        let core = try await CommandsFixture()
        core.commands.filters.add(WordFilter("secret"), of: "a")
        await core.connect(0)
        let id = try await core.submit().id
        let after = try await core.restarted()
        let link = await after.connect(0)
        await after.finish(link, id, output: Array("secret\n".utf8))
        #expect(try await output(after, id) == "******\n")
        let last = try await after.restarted()
        #expect(try await last.target(id).output?.withheld == 7)
    }

    @Test func aLinkThatIsLostWhileFiltersComeIsForgotten() async throws {
        let core = try await CommandsFixture()
        core.commands.filters.require(["a"])
        core.commands.filters.close()
        let link = FakeLink(core.clients[0])
        core.commands.accepted(link)
        async let decisions = core.commands.reconcile(over: link, [])
        try await aLinkWaits(core)
        core.commands.lost(link)
        core.commands.filters.open()
        #expect(await decisions.isEmpty)
        let next = await core.connect(0)
        let id = try await core.submit().id
        #expect(next.orders == [id] && link.orders.isEmpty)
    }

    @Test func whileTheCoreStopsBoundOutputStaysWithTheAgent() async throws {
        let core = try await CommandsFixture()
        core.commands.filters.add(WordFilter("secret"), of: "a")
        let link = await core.connect(0)
        let id = try await core.submit().id
        #expect(core.say(link, id, Array("one".utf8)))
        core.commands.filters.close()
        #expect(!core.say(link, id, Array("two".utf8), at: 3))
        #expect(await !core.commands.finished(over: link, core.record(id, output: 3)))
        #expect(try await core.states(id) == ["running"])
    }

    /// A filter runs without the lock: a second link that speaks meanwhile is turned away, and nothing is lost or doubled.
    @Test func twoLinksAtOnceDoNotMix() async throws {
        let core = try await CommandsFixture()
        let filter = WordFilter("secret")
        core.commands.filters.add(filter, of: "a")
        let link = await core.connect(0)
        let id = try await core.submit().id
        let refused = Mutex<Bool?>(nil)
        let other = FakeLink(core.clients[0])
        filter.during.withLock { during in
            during = { [unowned core] in
                guard refused.withLock({ $0 }) == nil else { return }
                refused.withLock { $0 = true }
                let output = core.commands.state.withLock { $0.book.target(of: core.clients[0], id)?.command.targets[0].output }
                guard let output else { return }
                if case .gap = output.take(.standardOutput, at: 0, Array("a secret".utf8).span.bytes, from: other) {
                    #expect(output.received.output == 0)
                } else {
                    refused.withLock { $0 = false }
                }
            }
        }
        #expect(core.say(link, id, Array("a secret".utf8)))
        #expect(refused.withLock { $0 } == true)
        #expect(await core.commands.finished(over: link, core.record(id, output: 8)))
        #expect(try await output(core, id) == "a ######")
    }

    @Test func largeOutputIsFilteredIntoTheSegments() async throws {
        let core = try await CommandsFixture()
        core.commands.filters.add(WordFilter("secret"), of: "a")
        let link = await core.connect(0)
        let id = try await core.submit().id
        let text = Array(String(repeating: "0123456789 secret\n", count: 4_000).utf8)
        var offset = 0
        while offset < text.count {
            let next = min(offset + 4_099, text.count)
            #expect(core.say(link, id, Array(text[offset..<next]), at: offset))
            offset = next
        }
        #expect(await core.commands.finished(over: link, core.record(id, output: text.count)))
        var kept: [UInt8] = []
        while kept.count < text.count {
            let piece = try await core.commands.readOutput(
                id, of: core.clients[0], .standardOutput, at: UInt64(kept.count), count: 1 << 20)
            try #require(!piece.bytes.isEmpty)
            kept += piece.bytes
        }
        #expect(kept == Array(String(repeating: "0123456789 ######\n", count: 4_000).utf8))
    }

    @Test func theSettingBindsCommandsToAFilterThatIsNotThere() async throws {
        let core = try await CommandsFixture()
        let settings = try await Settings.load(store: core.store, events: Events())
        core.commands.follow(settings)
        let link = await core.connect(0)
        try await settings.set("required_output_filters", to: ["com.example.mask"], by: CommandsFixture.principal)
        let id = try await core.submit().id
        await core.finish(link, id, output: Array("plain\n".utf8))
        #expect(try await output(core, id) == "*****\n")
        try await settings.set("required_output_filters", to: nil, by: CommandsFixture.principal)
        let free = try await core.submit().id
        await core.finish(link, free, output: Array("plain\n".utf8))
        #expect(try await output(core, free) == "plain\n")
    }
}

import Crypto
import Testing

@testable import AgentProtocol

/// Both sides of transfers against each other, and against peers that break the rules.
@Suite struct TransferTests {
    static let id = TransferID(high: 3, low: 4)

    static func order(_ direction: TransferDirection, from: UInt64 = 0) -> TransferOrder {
        TransferOrder(
            transfer: id, direction: direction, path: "/srv/ä \"x\"", size: 200_000, from: from, mode: 0o640,
            modified: -1_500_000_000, replaces: false, makesParents: true, links: .skip)
    }

    /// Gives each frame of what one side wrote to the other.
    static func frames(
        _ write: (inout FrameWriter) throws -> Void, _ receive: (FrameHeader, borrowing RawSpan) throws -> Void
    ) throws {
        var writer = FrameWriter()
        try write(&writer)
        let bytes = writer.bytes
        var position = 0
        while position < bytes.count {
            let header = try FrameHeader.next(in: bytes.span.bytes, at: &position)
            let end = position + Int(header.length)
            try receive(header, bytes.span.bytes.extracting(position..<end))
            position = end
        }
    }

    private static func expect<Event: Equatable>(_ event: Event, _ wanted: Event) { #expect(event == wanted) }

    @Test func formsComeBack() throws {
        let order = Self.order(.push)
        #expect(try TransferOrder(reading: order.payload.span.bytes) == order)
        let ready = TransferReady(size: 7, mode: 0o600, modified: -3)
        #expect(try TransferReady(reading: ready.payload.span.bytes) == ready)
        for result in [
            TransferResult(bytes: 5, entries: 3, skipped: 1), TransferResult(failure: FileFailure("disk-full", "no room")),
        ] {
            #expect(try TransferResult(reading: result.payload.span.bytes) == result)
        }
        for request: FileRequest in [
            .status(path: "/a", follows: false), .list(path: "/", after: "b", limit: 17),
            .makeDirectory(path: "/c", parents: true, mode: 0o700), .rename(path: "/d", target: "/e", replaces: true),
            .remove(path: "/f", recursive: true), .hash(path: "/g", .md5), .hash(path: "/h", .sha256),
        ] {
            #expect(try FileRequest(reading: request.payload.span.bytes) == request)
        }
        let entry = FileEntry(
            name: "x\u{1}", kind: .link, size: 9, mode: 0o777, modified: -4, owner: 1, group: .max, target: "y")
        let answer = FileAnswer(entries: [entry], hasMore: true)
        #expect(try FileAnswer(reading: answer.payload.span.bytes) == answer)
        let hashed = FileAnswer(entries: [entry], hash: "00ff")
        #expect(try FileAnswer(reading: hashed.payload.span.bytes) == hashed)
        for unknown in ["\"sha1\"", "\"\""] {
            let request = Array(#"{"do":"hash","path":"/a","algorithm":\#(unknown)}"#.utf8)
            #expect(throws: WireError.self) { _ = try FileRequest(reading: request.span.bytes) }
        }
        let failed = FileAnswer(failure: FileFailure("path-denied", "no"))
        #expect(try FileAnswer(reading: failed.payload.span.bytes) == failed)
    }

    @Test func betweenFileAndURLOnlyCreditAndProgressCross() throws {
        var order = Self.order(.pull)
        order.url = TransferURL(address: "https://s3.example:9000/b/k?X-Amz-Signature=1", size: 6, digest: SHA256.digest([1]))
        #expect(try TransferOrder(reading: order.payload.span.bytes) == order)
        #expect("\(order.url.map(String.init(describing:)) ?? "")" == "https://s3.example:9000/b/k")
        var core = CoreTransfersStateMachine()
        var agent = AgentTransfersStateMachine()
        var number: UInt32 = 0
        try Self.frames({ number = try core.open(order, to: &$0) }) { try Self.expect(agent.receive($0, $1), .start(order)) }
        try Self.frames({ agent.ready(Self.id, at: 7, TransferReady(size: 20), to: &$0) }) {
            try Self.expect(core.receive($0, $1), .ready(number, at: 7, TransferReady(size: 20)))
        }
        // Beyond the credit nothing is told.
        try Self.frames({ agent.moved(Self.id, to: 8, to: &$0) }) { _, _ in Issue.record("nothing was granted") }
        try Self.frames({ core.grant(number, upTo: 20, to: &$0) }) {
            try Self.expect(agent.receive($0, $1), .granted(Self.id, upTo: 20))
        }
        // An upload that was cut begins again.
        for offset in [12, 0, 20] as [UInt64] {
            try Self.frames({ agent.moved(Self.id, to: offset, to: &$0) }) {
                try Self.expect(core.receive($0, $1), .moved(number, to: offset))
            }
        }
        let result = TransferResult(bytes: 20, entries: 1, digest: SHA256.digest([2]))
        #expect(try TransferResult(reading: result.payload.span.bytes) == result)
        try Self.frames({ agent.finished(Self.id, result, to: &$0) }) {
            try Self.expect(core.receive($0, $1), .finished(number, result))
        }
        try Self.frames({ core.acknowledge(number, to: &$0) }) { try Self.expect(agent.receive($0, $1), .forget(Self.id)) }
    }

    @Test func anAgentThatMovesMoreThanItMayOrNotThisWayIsCutOff() throws {
        for isDirect in [true, false] {
            var order = Self.order(.push)
            if isDirect { order.url = TransferURL(address: "https://a/") }
            var core = CoreTransfersStateMachine()
            var number: UInt32 = 0
            try Self.frames({ number = try core.open(order, to: &$0) }) { _, _ in }
            let ready = TransferReady().payload
            _ = try core.receive(FrameHeader(.transferReady, channel: number, offset: 5), ready.span.bytes)
            let error = #expect(throws: WireError.self) {
                _ = try core.receive(
                    FrameHeader(.transferMoved, channel: number, offset: 6), ready.span.bytes.extracting(0..<0))
            }
            #expect(error?.code == (isDirect ? .creditExceeded : .unexpected))
        }
        var tree = Self.order(.push)
        tree.form = .tree
        tree.url = TransferURL(address: "https://a/")
        #expect(throws: WireError.self) { _ = try TransferOrder(reading: tree.payload.span.bytes) }
    }

    @Test func anAnswerStaysWithinItsBoundAndSaysThatMoreFollows() throws {
        let long = String(repeating: "\u{2}", count: 255)
        let entries = (0..<1_000).map { _ in
            FileEntry(name: long, kind: .file, size: .max >> 1, mode: 0, modified: 0, owner: 0, group: 0)
        }
        let payload = FileAnswer(entries: entries).payload
        #expect(payload.count <= WireLimits.fileAnswerBytes)
        let read = try FileAnswer(reading: payload.span.bytes)
        #expect(read.hasMore && !read.entries.isEmpty && read.entries.count < 1_000)
    }

    @Test func aPushGoesOnWhereTheAgentSays() throws {
        var core = CoreTransfersStateMachine()
        var agent = AgentTransfersStateMachine()
        var number: UInt32 = 0
        try Self.frames({ number = try core.open(Self.order(.push), to: &$0) }) {
            try Self.expect(agent.receive($0, $1), .start(Self.order(.push)))
        }
        #expect(number == WireLimits.transferChannel + 1)
        try Self.frames({ agent.ready(Self.id, at: 1_000, TransferReady(), to: &$0) }) {
            try Self.expect(core.receive($0, $1), .ready(number, at: 1_000, TransferReady()))
        }
        #expect(core.room(number)?.count == 0)
        try Self.frames({ agent.grant(Self.id, upTo: 1_010, to: &$0) }) { try Self.expect(core.receive($0, $1), .room(number)) }
        #expect(core.room(number)?.count == 10 && core.room(number)?.offset == 1_000)
        let bytes: [UInt8] = [1, 2, 3, 4]
        try Self.frames({ core.send(number, bytes.span.bytes, to: &$0) }) {
            try Self.expect(agent.receive($0, $1), .data(Self.id, at: 1_000))
            #expect($1.byteCount == 4)
        }
        try Self.frames({ agent.durable(Self.id, upTo: 1_004, to: &$0) }) {
            try Self.expect(core.receive($0, $1), .durable(number, upTo: 1_004))
        }
        let digest = SHA256.digest(bytes)
        try Self.frames({ core.sentAll(number, digest, to: &$0) }) {
            try Self.expect(agent.receive($0, $1), .end(Self.id, length: 1_004, digest))
        }
        try Self.frames({ agent.finished(Self.id, TransferResult(bytes: 1_004), to: &$0) }) {
            try Self.expect(core.receive($0, $1), .finished(number, TransferResult(bytes: 1_004)))
        }
        try Self.frames({ core.acknowledge(number, to: &$0) }) { try Self.expect(agent.receive($0, $1), .forget(Self.id)) }
        #expect(core.count == 0 && agent.count == 0)
    }

    @Test func aPullGoesOnWhereTheCoreIsOrFromTheBeginning() throws {
        for offset in [0, 5_000] as [UInt64] {
            var core = CoreTransfersStateMachine()
            var agent = AgentTransfersStateMachine()
            var number: UInt32 = 0
            try Self.frames({ number = try core.open(Self.order(.pull, from: 5_000), to: &$0) }) { _ = try agent.receive($0, $1) }
            try Self.frames({ agent.ready(Self.id, at: offset, TransferReady(size: 6_000), to: &$0) }) {
                try Self.expect(core.receive($0, $1), .ready(number, at: offset, TransferReady(size: 6_000)))
            }
            try Self.frames({ core.grant(number, upTo: offset + 3, to: &$0) }) { try Self.expect(agent.receive($0, $1), .room(Self.id)) }
            #expect(agent.room(Self.id)?.count == 3)
            let bytes: [UInt8] = [7, 8, 9]
            try Self.frames({ agent.send(Self.id, bytes.span.bytes, to: &$0) }) {
                try Self.expect(core.receive($0, $1), .data(number, at: offset))
            }
            try Self.frames({ core.durable(number, upTo: offset + 3, to: &$0) }) {
                try Self.expect(agent.receive($0, $1), .durable(Self.id, upTo: offset + 3))
            }
            try Self.frames({ agent.sentAll(Self.id, SHA256.digest(bytes), to: &$0) }) {
                try Self.expect(core.receive($0, $1), .ended(number, length: offset + 3, SHA256.digest(bytes)))
            }
            try Self.frames({ core.acknowledge(number, to: &$0) }) { try Self.expect(agent.receive($0, $1), .forget(Self.id)) }
        }
        var core = CoreTransfersStateMachine()
        var agent = AgentTransfersStateMachine()
        try Self.frames({ _ = try core.open(Self.order(.pull, from: 5_000), to: &$0) }) { _ = try agent.receive($0, $1) }
        try Self.frames({ agent.ready(Self.id, at: 4_000, TransferReady(), to: &$0) }) { header, payload in
            #expect(Self.code { (agent) throws(WireError) in _ = try core.receive(header, payload) } == .wrongOffset)
        }
    }

    private static func code(_ body: (Int) throws(WireError) -> Void) -> WireError.Code? {
        do throws(WireError) { try body(0) } catch { return error.code }
        return nil
    }

    /// An agent that has a push open, at 0 with 10 bytes granted.
    private func opened(_ number: UInt32 = WireLimits.transferChannel + 1) throws -> AgentTransfersStateMachine {
        var agent = AgentTransfersStateMachine()
        let payload = Self.order(.push).payload
        _ = try agent.receive(
            FrameHeader(.open, flags: ChannelKind.transfer.rawValue, channel: number, length: UInt32(payload.count)),
            payload.span.bytes)
        var writer = FrameWriter()
        agent.ready(Self.id, at: 0, TransferReady(), to: &writer)
        agent.grant(Self.id, upTo: 10, to: &writer)
        return agent
    }

    @Test func aPeerThatBreaksTheRulesIsFoundOut() throws {
        let bytes = [UInt8](repeating: 0, count: 11)
        let number = WireLimits.transferChannel + 1
        func refused(_ header: FrameHeader, _ count: Int) throws -> WireError.Code? {
            var agent = try opened()
            return Self.code { (_) throws(WireError) in _ = try agent.receive(header, bytes.span.bytes.extracting(0..<count)) }
        }
        #expect(try refused(FrameHeader(.transferData, channel: number, offset: 1), 4) == .wrongOffset)
        #expect(try refused(FrameHeader(.transferData, channel: number, offset: 0), 11) == .creditExceeded)
        #expect(try refused(FrameHeader(.transferData, channel: number, offset: 0), 0) == .malformed)
        #expect(try refused(FrameHeader(.transferData, channel: number + 1, offset: 0), 4) == .foreignChannel)
        #expect(try refused(FrameHeader(.transferCredit, channel: number, offset: 5), 0) == .unexpected)
        #expect(try refused(FrameHeader(.transferAcknowledged, channel: number), 0) == .unexpected)
        #expect(try refused(FrameHeader(.transferStop, flags: 9, channel: number), 0) == .malformed)
        #expect(try refused(FrameHeader(.transferEnd, channel: number, offset: 4), 11) == .wrongOffset)
        var core = CoreTransfersStateMachine()
        var writer = FrameWriter()
        let push = try core.open(Self.order(.push), to: &writer)
        #expect(
            Self.code { (_) throws(WireError) in
                _ = try core.receive(FrameHeader(.transferDurable, channel: push, offset: 1), bytes.span.bytes.extracting(0..<0))
            } == .unexpected)
        _ = try core.receive(FrameHeader(.transferReady, channel: push, offset: 5), Array("{}".utf8).span.bytes)
        #expect(
            Self.code { (_) throws(WireError) in
                _ = try core.receive(FrameHeader(.transferDurable, channel: push, offset: 6), bytes.span.bytes.extracting(0..<0))
            } == .wrongOffset)
    }

    /// What is under way when one side stops a transfer means nothing any more.
    @Test func whatComesAfterAStopIsDropped() throws {
        var agent = try opened()
        let number = WireLimits.transferChannel + 1
        let none = [UInt8]()
        #expect(try agent.receive(FrameHeader(.transferStop, flags: 1, channel: number), none.span.bytes) == .stop(Self.id, .pause))
        #expect(try agent.receive(FrameHeader(.transferData, channel: number, offset: 0), [1].span.bytes) == .none)
        var core = CoreTransfersStateMachine()
        var writer = FrameWriter()
        let push = try core.open(Self.order(.push), to: &writer)
        core.stop(push, .cancel, to: &writer)
        #expect(try core.receive(FrameHeader(.transferReady, channel: push), Array("{}".utf8).span.bytes) == .none)
        // The number is not used again on this link.
        let second = try core.open(Self.order(.push), to: &writer)
        #expect(second == push + 1)
    }

    @Test func aLinkHasABoundOfTransfers() throws {
        var core = CoreTransfersStateMachine()
        var writer = FrameWriter()
        for index in 0..<UInt64(WireLimits.transfers) {
            var order = Self.order(.push)
            order.transfer = TransferID(high: 9, low: index)
            _ = try core.open(order, to: &writer)
        }
        #expect(throws: CoreTransfersStateMachine.Refusal.tooManyTransfers(limit: WireLimits.transfers)) {
            _ = try core.open(Self.order(.push), to: &writer)
        }
    }
}

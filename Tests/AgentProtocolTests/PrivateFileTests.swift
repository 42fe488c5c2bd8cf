import Testing

@testable import AgentProtocol

@Suite struct PrivateFileTests {
    private static let order = PrivateFileOrder(
        name: "db-password", keeper: "org.example.secrets", owner: "app", group: "web", mode: 0o440,
        lifetimeMilliseconds: 60_000, hook: ["signal", "HUP", "app.service"])
    private static let state = PrivateFileState(
        name: "db-password", path: "/run/client-manager-agent/db-password", bytes: 3, sha256: String(repeating: "a", count: 64),
        owner: "app", mode: 0o440, expiresInMilliseconds: 59_000, hookFault: "systemctl ended with 1")

    /// The frame as the other side reads it.
    private static func read(_ request: PrivateFileRequest) throws -> (number: UInt64, PrivateFileRequest) {
        var writer = FrameWriter()
        request.writeFrame(number: 7, to: &writer)
        var position = 0
        let header = try FrameHeader.next(in: writer.bytes.span.bytes, at: &position)
        #expect(header.kind == .privateFile && header.channel == 0)
        return (header.offset, try PrivateFileRequest(
            action: header.flags, reading: writer.bytes.span.bytes.extracting(position..<writer.bytes.count)))
    }

    @Test func requestsCross() throws {
        let requests: [PrivateFileRequest] = [
            .put(Self.order, content: [0, 1, 255]), .put(PrivateFileOrder(name: "a", keeper: "k"), content: []),
            .put(Self.order, content: [UInt8](repeating: 9, count: PrivateFileLimits.contentBytes)),
            .remove(name: "a", keeper: "k"), .list(keeper: "k"),
        ]
        for request in requests {
            let (number, read) = try Self.read(request)
            #expect(number == 7 && read == request)
        }
    }

    @Test func answersCross() throws {
        for answer: PrivateFileAnswer in [
            .done([Self.state], isChanged: true), .done([], isChanged: false),
            .refused(code: "private-file-no-place", message: "no tmpfs"),
        ] {
            var writer = FrameWriter()
            answer.writeFrame(number: 9, to: &writer)
            var position = 0
            let header = try FrameHeader.next(in: writer.bytes.span.bytes, at: &position)
            #expect(header.kind == .privateFileAnswer && header.offset == 9)
            let read = try PrivateFileAnswer(reading: writer.bytes.span.bytes.extracting(position..<writer.bytes.count))
            #expect(read == answer)
        }
    }

    /// As many files as an agent keeps, with the longest of everything, fit into one answer.
    @Test func theLongestListFits() throws {
        var state = Self.state
        state.name = String(repeating: "n", count: PrivateFileLimits.nameBytes)
        state.path = "/" + String(repeating: "p", count: 255) + "/" + state.name
        state.owner = String(repeating: "o", count: 32)
        state.hookFault = String(repeating: "f", count: PrivateFileLimits.faultBytes)
        var writer = FrameWriter()
        PrivateFileAnswer.done(Array(repeating: state, count: PrivateFileLimits.files), isChanged: true)
            .writeFrame(number: 1, to: &writer)
        #expect(writer.bytes.count - FrameHeader.byteCount <= WireLimits.payloadBytes(.privateFileAnswer))
    }

    private static func isRefused(_ action: UInt8, _ payload: [UInt8]) -> Bool {
        do throws(WireError) {
            _ = try PrivateFileRequest(action: action, reading: payload.span.bytes)
            return false
        } catch { return true }
    }

    @Test func whatIsCutShortOrWrongIsRefused() throws {
        var writer = FrameWriter()
        PrivateFileRequest.put(Self.order, content: []).writeFrame(number: 1, to: &writer)
        let payload = Array(writer.bytes[FrameHeader.byteCount...])
        for count in 0..<payload.count {
            #expect(Self.isRefused(1, Array(payload[..<count])))
        }
        #expect(Self.isRefused(4, payload))
        // A removal has no content.
        #expect(Self.isRefused(2, payload + [1]))
        #expect(Self.isRefused(1, payload + [UInt8](repeating: 0, count: PrivateFileLimits.contentBytes + 1)))
    }

    @Test func ordersAreChecked() {
        #expect(Self.order.fault == nil)
        func fault(_ change: (inout PrivateFileOrder) -> Void) -> String? {
            var order = Self.order
            change(&order)
            return order.fault
        }
        for name in ["", ".", "..", ".hidden", "-f", "a/b", "a b", "ä", String(repeating: "a", count: 65)] {
            #expect(fault { $0.name = name } != nil, "\(name)")
        }
        for mode: UInt16 in [0, 0o200, 0o444, 0o500, 0o777, 0o4400] { #expect(fault { $0.mode = mode } != nil) }
        for mode: UInt16 in [0o400, 0o440, 0o600, 0o640, 0o660] { #expect(fault { $0.mode = mode } == nil) }
        #expect(fault { $0.lifetimeMilliseconds = 0 } != nil)
        #expect(fault { $0.owner = "" } != nil)
        #expect(fault { $0.keeper = "" } != nil)
        #expect(fault { $0.hook = Array(repeating: "run", count: 33) } != nil)
        #expect(fault { $0.hook = ["run", "a\0b"] } != nil)
    }

    @Test func hooksHaveFourForms() {
        #expect(PrivateFileHook(["reload", "app.service"]) == .reload(unit: "app.service"))
        #expect(PrivateFileHook(["restart", "app@1.service"]) == .restart(unit: "app@1.service"))
        #expect(PrivateFileHook(["signal", "HUP", "/run/app.pid"]) == .signal(.hangUp, target: "/run/app.pid"))
        #expect(PrivateFileHook(["run", "/bin/a", "b"]) == .run(["/bin/a", "b"]))
        for words in [
            [], ["reload"], ["reload", "-H"], ["reload", "a/b"], ["signal", "STOP", "a"], ["signal", "1", "a"], ["run"], ["stop", "a"],
        ] { #expect(PrivateFileHook(words) == nil, "\(words)") }
    }
}

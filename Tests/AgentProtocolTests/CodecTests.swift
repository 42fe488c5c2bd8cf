import Testing

@testable import AgentProtocol

/// Samples that use every field.
enum Samples {
    static let command = CommandID(high: 0x0190_1234_5678_9ABC, low: 0xDEF0_1122_3344_5566)

    static let orders: [Order] = [
        Order(command: command, invocation: .argv(["/bin/echo", "größe", ""])),
        Order(
            command: command, invocation: .shell("echo $A | wc"), standardInput: [0, 255, 10],
            environment: ["A": "1", "LEER": ""], workingDirectory: "/tmp", user: "nobody", timeoutMilliseconds: 5_000,
            killGraceMilliseconds: 1, outputLimitBytes: .max, memoryLimitBytes: 1 << 30, processorLimitMillis: 1_500,
            correlation: "request-7", startBefore: 1_700_000_000_123),
        Order(
            command: command,
            invocation: .script(interpreter: ["/bin/sh", "-e"], body: Array("exit 3\n".utf8), arguments: ["a", "b"]),
            standardInput: []),
    ]

    static let outcomes: [Outcome] = [
        .exited(code: -1), .exited(code: 255), .signaled(signal: 9), .timedOut, .cancelled,
        .startFailed(code: "program-not-found", message: "no /nowhere"),
        .refused(code: "policy", message: "argv rule 3"), .interrupted(reason: "the machine restarted"),
    ]

    static func record(_ outcome: Outcome) -> ExitRecord {
        ExitRecord(
            command: command, outcome: outcome, started: .maybe, startedAt: 1, finishedAt: 2,
            durationMicroseconds: 3, userMicroseconds: 4, systemMicroseconds: 5, maximumResidentBytes: 6,
            standardOutputBytes: 7, standardErrorBytes: 8, truncated: true)
    }
}

/// The payload of the only frame in what `body` writes.
func payload(_ body: (inout FrameWriter) -> Void) -> [UInt8] {
    var writer = FrameWriter()
    writer.begin(.open)
    body(&writer)
    writer.end()
    return Array(writer.bytes.dropFirst(FrameHeader.byteCount))
}

@Suite struct CodecTests {
    @Test func identifiersAreReadAsTheyAreWritten() throws {
        let known = CommandID(high: 0x0123_4567_89AB_CDEF, low: 0xFEDC_BA98_7654_3210)
        // Crockford base 32 of those 128 bits, most significant first (https://www.crockford.com/base32.html).
        #expect(known.description == "014D2PF2DBSQQZXQ5TK1V58CGG")
        var bits: UInt64 = 1
        for _ in 0..<200 {
            bits = bits &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            let id = ClientID(high: bits, low: bits.byteSwapped ^ 0x5555)
            let text = id.description
            #expect(ClientID(text) == id && ClientID(text.lowercased()) == id && ClientID(characters: text.utf8Span.span) == id)
            #expect(ClientID(high: id.high, low: id.low).hashValue == id.hashValue)
            #expect(Set([id, ClientID(high: id.high, low: id.low), ClientID(high: id.low, low: id.high)]).count == 2)
        }
        for wrong in ["", "8" + String(repeating: "0", count: 25), String(repeating: "0", count: 25), "0000000000000000000000000U"] {
            #expect(ClientID(wrong) == nil, "\(wrong)")
        }
    }

    @Test(arguments: Samples.orders) func orderComesBackWhole(order: Order) throws {
        let bytes = payload { order.write(to: &$0) }
        #expect(bytes.count == order.encodedBytes)
        #expect(try Order(reading: bytes.span.bytes) == order)
    }

    @Test(arguments: Samples.outcomes) func exitAndReportComeBackWhole(outcome: Outcome) throws {
        let record = Samples.record(outcome)
        let bytes = payload { record.write(to: &$0) }
        #expect(try ExitRecord(reading: bytes.span.bytes) == record)
        for exit in [nil, record] {
            let report = ExecutionReport(
                command: Samples.command, started: .yes, standardOutputBytes: 7, standardErrorBytes: .max, exit: exit)
            let bytes = payload { report.write(to: &$0) }
            #expect(try ExecutionReport(reading: bytes.span.bytes) == report)
        }
    }

    @Test func everyCutAndEveryExtraByteIsAnError() {
        var forms = Samples.orders.map { order in payload { order.write(to: &$0) } }
        for bytes in forms {
            for count in 0..<bytes.count {
                #expect(!isOrder(Array(bytes[0..<count])))
            }
            #expect(!isOrder(bytes + [0]))
        }
        forms = Samples.outcomes.map { outcome in payload { Samples.record(outcome).write(to: &$0) } }
        for bytes in forms {
            for count in 0..<bytes.count {
                #expect(!isExit(Array(bytes[0..<count])))
            }
            #expect(!isExit(bytes + [0]))
        }
    }

    private func isOrder(_ bytes: [UInt8]) -> Bool { (try? Order(reading: bytes.span.bytes)) != nil }
    private func isExit(_ bytes: [UInt8]) -> Bool { (try? ExitRecord(reading: bytes.span.bytes)) != nil }

    @Test func changedBytesNeverTrap() {
        var generator = SystemRandomNumberGenerator()
        for order in Samples.orders {
            let bytes = payload { order.write(to: &$0) }
            for _ in 0..<2_000 {
                var changed = bytes
                for _ in 0..<Int.random(in: 1...4, using: &generator) {
                    changed[Int.random(in: 0..<changed.count, using: &generator)] = .random(in: 0...255)
                }
                _ = try? Order(reading: changed.span.bytes)
                _ = try? ExitRecord(reading: changed.span.bytes)
                _ = try? ExecutionReport(reading: changed.span.bytes)
                _ = try? Hello(reading: changed.span.bytes)
                var position = 0
                _ = try? FrameHeader.next(in: changed.span.bytes, at: &position)
            }
        }
    }

    @Test func longTextsAreCutAtACharacter() throws {
        let record = Samples.record(.refused(code: "x", message: String(repeating: "ä", count: 3_000)))
        let bytes = payload { record.write(to: &$0) }
        let read = try ExitRecord(reading: bytes.span.bytes)
        #expect(read.outcome == .refused(code: "x", message: String(repeating: "ä", count: 2_048)))
    }

    @Test func headersAreCheckedBeforePayloads() throws {
        func code(_ bytes: [UInt8]) -> WireError.Code? {
            var position = 0
            do throws(WireError) {
                _ = try FrameHeader.next(in: bytes.span.bytes, at: &position)
                return nil
            } catch { return error.code }
        }
        func header(kind: UInt8, reserved: UInt8 = 0, length: UInt32) -> [UInt8] {
            [kind, 0, reserved, 0] + [UInt8](repeating: 0, count: 12)
                + (0..<4).map { UInt8(truncatingIfNeeded: length >> (8 * UInt32($0))) }
        }
        #expect(code([]) == .malformed)
        #expect(code([UInt8](repeating: 0x10, count: 19)) == .malformed)
        #expect(code(header(kind: 0x99, length: 0)) == .unknownKind)
        #expect(code(header(kind: 0x10, reserved: 1, length: 0)) == .malformed)
        #expect(code(header(kind: 0x10, length: 1) + [0]) == .oversize)
        #expect(code(header(kind: 0x32, length: UInt32(WireLimits.dataBytes) + 1)) == .oversize)
        #expect(code(header(kind: 0x32, length: .max)) == .oversize)
        #expect(code(header(kind: 0x32, length: 3) + [1, 2]) == .malformed)
        #expect(code(header(kind: 0x32, length: 2) + [1, 2]) == nil)
    }

    @Test func dataFramesHoldOnlyWhatWasRead() throws {
        var writer = FrameWriter()
        let count = writer.data(stream: .standardError, channel: 9, offset: 77, maximum: 1_000) { span in
            for byte in 1...5 as ClosedRange<UInt8> { span.append(byte) }
            return 5
        }
        #expect(count == 5)
        var position = 0
        let header = try FrameHeader.next(in: writer.bytes.span.bytes, at: &position)
        #expect(header == FrameHeader(.data, flags: 2, channel: 9, offset: 77, length: 5))
        #expect(Array(writer.bytes[position...]) == [1, 2, 3, 4, 5])
        let whole = writer.bytes
        #expect(writer.data(stream: .standardOutput, channel: 9, offset: 0, maximum: 10) { _ in 0 } == 0)
        #expect(writer.bytes == whole)
    }
}

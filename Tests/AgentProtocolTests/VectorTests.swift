import Crypto
import Program
import Testing

@testable import AgentProtocol

/// The vectors of Docs/agent-protocol.md against the code.
@Suite struct VectorTests {
    /// `### name` and the code block under it, white space taken out.
    private static func vectors() throws -> [String: String] {
        let root = #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
        let text = String(
            decoding: try readSmallFile("/" + root + "/Docs/agent-protocol.md", limit: 1 << 20), as: UTF8.self)
        var vectors: [String: String] = [:]
        var name: String?
        var isInside = false
        for line in text.split(separator: "\n", omittingEmptySubsequences: false) {
            if line.hasPrefix("### ") {
                name = String(line.dropFirst(4))
            } else if line == "```" {
                isInside.toggle()
            } else if isInside, let name {
                vectors[name, default: ""] += line.filter { $0 != " " }
            }
        }
        return vectors
    }

    static func number(_ first: UInt8, _ count: Int) -> [UInt8] {
        (0..<count).map { first &+ UInt8(truncatingIfNeeded: $0) }
    }

    static var transcript: HandshakeTranscript {
        let challenge = Challenge(
            features: ["execution"], nonce: number(0, 32), coreKey: number(0x10, 91), binding: .tlsExporter)
        let hello = Hello(
            features: ["execution"], nonce: number(0x40, 32), agentKey: number(0x60, 91), client: Samples.command.sameBits(),
            bootID: "boot", epoch: 7, agentVersion: "1", hostname: "host")
        return HandshakeTranscript(
            challenge: challenge, hello: hello, challengeHash: SHA256.hash(challenge.payload),
            helloHash: SHA256.hash(hello.payload), binding: number(0x80, 32))
    }

    static func encoded() -> [String: [UInt8]] {
        func frame(_ body: (inout FrameWriter) -> Void) -> [UInt8] {
            var writer = FrameWriter()
            body(&writer)
            return writer.bytes
        }
        return [
            "open": frame {
                $0.begin(.open, flags: 1, channel: 1)
                Order(
                    command: Samples.command, invocation: .argv(["/bin/echo", "hello"]), timeoutMilliseconds: 5_000,
                    correlation: "r-1"
                ).write(to: &$0)
                $0.end()
            },
            "started": frame { $0.frame(.started, channel: 1, offset: 1_700_000_000_123) },
            "data": frame { writer in
                _ = writer.data(stream: .standardOutput, channel: 1, offset: 0, maximum: 16) { span in
                    for byte in Array("hello\n".utf8) { span.append(byte) }
                    return 6
                }
            },
            "exit": frame {
                $0.begin(.exit, channel: 1)
                ExitRecord(
                    command: Samples.command, outcome: .exited(code: 0), started: .yes, startedAt: 1_700_000_000_123,
                    finishedAt: 1_700_000_000_125, durationMicroseconds: 1_900, userMicroseconds: 700,
                    systemMicroseconds: 300, maximumResidentBytes: 1 << 20, standardOutputBytes: 6
                ).write(to: &$0)
                $0.end()
            },
            "exit-acknowledged": frame { $0.frame(.exitAcknowledged, channel: 1) },
            "report": frame {
                $0.begin(.report)
                ExecutionReport(
                    command: Samples.command, started: .yes, standardOutputBytes: 6, standardErrorBytes: 0, exit: nil
                ).write(to: &$0)
                $0.end()
            },
            "decision": frame {
                ResumeDecision.resume(command: Samples.command, standardOutputFrom: 6, standardErrorFrom: 0)
                    .writeFrame(channel: 2, to: &$0)
            },
            "credit": frame { $0.frame(.credit, flags: 2, channel: 2, offset: 131_072) },
            "beat-answer": frame {
                $0.begin(.beatAnswer, offset: 99)
                BeatAnswer(
                    loadHundredths: 150, memoryAvailableKiB: 2_048, memoryTotalKiB: 4_096, runningExecutions: 1
                ).write(to: &$0)
                $0.end()
            },
            "terminal open": frame {
                $0.begin(.open, flags: 2, channel: 0x8000_0001)
                TerminalOrder(
                    order: Order(
                        command: Samples.command, invocation: .argv(["top"]), killGraceMilliseconds: 2_000,
                        outputLimitBytes: 0),
                    size: TerminalSize(rows: 40, columns: 120), terminalType: "xterm", idleMilliseconds: 3_600_000
                ).write(to: &$0)
                $0.end()
            },
            "terminal input": frame {
                $0.data(.input, number: 0x8000_0001, offset: 5, Array("ls\r".utf8).span.bytes)
            },
            "terminal input credit": frame { $0.frame(.credit, flags: 3, channel: 0x8000_0001, offset: 81_920) },
            "attach": frame { $0.frame(.attach, channel: 0x8000_0001, offset: 4_096) },
            "attached": frame { $0.frame(.attached, channel: 0x8000_0001, offset: 8_192) },
            "resize": frame {
                $0.frame(.resize, channel: 0x8000_0001, offset: TerminalSize(rows: 50, columns: 132).packed)
            },
            "signal": frame {
                $0.frame(.signal, flags: TerminalSignal.interrupt.rawValue, channel: 0x8000_0001)
            },
            "terminal-report": frame {
                $0.begin(.terminalReport)
                TerminalReport(
                    channel: Samples.command.sameBits(), started: .yes, keptFrom: 100, outputEnd: 2_000,
                    inputReceived: 7, inputTaken: 5, exit: nil
                ).write(to: &$0)
                $0.end()
            },
            "terminal-decision": frame {
                TerminalDecision.attach(channel: Samples.command.sameBits(), from: 1_500)
                    .writeFrame(number: 0x8000_0002, to: &$0)
            },
            "transfer-report": frame { writer in
                AgentTransfersStateMachine().report([Samples.command.sameBits()], to: &writer)
            },
            "transfer-data": frame {
                $0.transferData(number: 0x4000_0001, offset: 4_096, Array("hello".utf8).span.bytes)
            },
            "transfer-durable": frame { $0.frame(.transferDurable, channel: 0x4000_0001, offset: 16 << 20) },
            "transfer-moved": frame { $0.frame(.transferMoved, channel: 0x4000_0001, offset: 3 << 20) },
            "open of a transfer with a URL": frame { writer in
                var core = CoreTransfersStateMachine()
                var order = TransferOrder(
                    transfer: Samples.command.sameBits(), direction: .push, path: "/a", size: 9)
                order.url = TransferURL(address: "https://s3.example/b/k?s", size: 5, digest: SHA256.digest([]))
                _ = try? core.open(order, to: &writer)
            },
            "transfer-stop": frame { $0.frame(.transferStop, flags: TransferStop.cancel.rawValue, channel: 0x4000_0001) },
            "transcript of the core, SHA-256": SHA256.hash(transcript.signed(by: .core)),
            "transcript of the agent with a token, SHA-256": SHA256.hash(
                transcript.signed(
                    by: .agent,
                    token: "cmt1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA." + String(repeating: "0", count: 64))),
            "liveness": LivenessCheck.signed(nonce: number(0, 32), client: Samples.command.sameBits(), epoch: 7),
        ]
    }

    @Test func pageAndCodeSayTheSame() throws {
        let vectors = try Self.vectors()
        let encoded = Self.encoded()
        #expect(Set(vectors.keys) == Set(encoded.keys))
        for (name, bytes) in encoded { #expect(vectors[name] == Hex.encode(bytes), "\(name)") }
    }
}

extension Identifier {
    /// The same 128 bits as an identifier of something else.
    func sameBits<Other>() -> Identifier<Other> { Identifier<Other>(high: high, low: low) }
}

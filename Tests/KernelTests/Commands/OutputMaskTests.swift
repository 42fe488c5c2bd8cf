import AgentProtocol
import Crypto
import Testing

@testable import Kernel

@Suite struct OutputMaskTests {
    private static func mask(_ text: [UInt8], _ secrets: [String], cuts: [Int] = []) -> [UInt8] {
        var mask = OutputMaskStateMachine(SecretPatterns(values: secrets.map { Array($0.utf8) }))
        var result: [UInt8] = []
        var start = 0
        for cut in cuts + [text.count] where cut >= start {
            result += mask.take(text[start..<cut].span.bytes)
            start = cut
        }
        return result + mask.finish()
    }

    private static func mask(_ text: String, _ secrets: [String], cuts: [Int] = []) -> String {
        String(decoding: mask(Array(text.utf8), secrets, cuts: cuts), as: UTF8.self)
    }

    private static func stars(_ count: Int) -> String { String(repeating: "*", count: count) }

    @Test func aSecretIsMaskedWhereverItIsCut() {
        let text = "before hunter2-hunter2 between hunter2-hunter2hunter2-hunter2 after"
        let wanted = "before \(Self.stars(15)) between \(Self.stars(30)) after"
        for first in 0...text.utf8.count {
            #expect(Self.mask(text, ["hunter2-hunter2"], cuts: [first]) == wanted)
        }
        #expect(Self.mask(text, ["hunter2-hunter2"], cuts: Array(0...text.utf8.count)) == wanted)
    }

    @Test func whatOnlyBeginsLikeOneComesThrough() {
        #expect(Self.mask("hunter2-hunter", ["hunter2-hunter2"]) == "hunter2-hunter")
        // Twice, one over the end of the other.
        #expect(Self.mask("hunter2-hunter2-hunter2", ["hunter2-hunter2"]) == Self.stars(23))
        #expect(Self.mask("hunter2-hunter2-hunter", ["hunter2-hunter2"]) == Self.stars(15) + "-hunter")
        // Shorter than 8 bytes: too many innocent bytes would go.
        #expect(Self.mask("seven77", ["seven77"]) == "seven77")
        #expect(Self.mask("eight888", ["eight888"]) == Self.stars(8))
    }

    @Test func overlappingSecretsAreMaskedWhole() {
        #expect(Self.mask("xabcdefghijklx", ["abcdefgh", "efghijkl"]) == "x" + Self.stars(12) + "x")
        #expect(Self.mask("abcdefghi", ["abcdefgh", "abcdefghi"]) == Self.stars(9))
        #expect(Self.mask("aaaaaaaaaaaaa", ["aaaaaaaa"]) == Self.stars(13))
    }

    @Test func linesOfALongSecretAreMaskedAlone() {
        let secret = "first line of it\nsecond line of it\nshort\n"
        #expect(Self.mask("> second line of it <", [secret]) == "> \(Self.stars(17)) <")
        #expect(Self.mask("short", [secret]) == "short")
    }

    /// Whatever stands before and after it: only characters that its neighbours decide too may be left.
    @Test func base64IsMaskedInEachAlignment() {
        let secret = "s3cr3t?>>value~~of-a-test"
        for before in 0..<6 {
            for after in 0..<4 {
                let around = [UInt8](repeating: 0x41, count: before) + Array(secret.utf8) + [UInt8](repeating: 0x42, count: after)
                for encoded in [Base64.encode(around), Base64.encodeURL(around)] {
                    let masked = Self.mask(encoded, [secret], cuts: [3, 7, 11])
                    #expect(masked.utf8.count == encoded.utf8.count)
                    let shown = masked.utf8.filter { $0 != UInt8(ascii: "*") }.count
                    // The neighbours' own characters, and one mixed one on each side at most.
                    #expect(shown <= (before * 8 + 5) / 6 + (after * 8 + 5) / 6 + 3, "\(masked)")
                }
            }
        }
    }

    @Test func whatIsHeldBackIsBounded() {
        let secret = String(repeating: "ab", count: 50)
        var mask = OutputMaskStateMachine(SecretPatterns(values: [Array(secret.utf8)]))
        for _ in 0..<1_000 {
            _ = mask.take(Array("abababab".utf8).span.bytes)
            #expect(mask.heldBytes <= 140)
        }
    }

    /// Against the plain way of doing it, with a small alphabet so that much overlaps.
    @Test func itAgreesWithASlowOne() {
        var random = SystemRandomNumberGenerator()
        for _ in 0..<300 {
            let secrets = (0..<Int.random(in: 1...4, using: &random)).map { _ in
                (0..<Int.random(in: 8...12, using: &random)).map { _ in UInt8.random(in: 0x61...0x62, using: &random) }
            }
            let text = (0..<200).map { _ in UInt8.random(in: 0x61...0x62, using: &random) }
            var wanted = text
            for secret in secrets {
                for start in 0...(text.count - secret.count) where Array(text[start..<start + secret.count]) == secret {
                    for place in start..<start + secret.count { wanted[place] = UInt8(ascii: "*") }
                }
            }
            let cuts = (0..<5).map { _ in Int.random(in: 0...200, using: &random) }.sorted()
            #expect(Self.mask(text, secrets.map { String(decoding: $0, as: UTF8.self) }, cuts: cuts) == wanted)
        }
    }

    @Test func withoutTheSecretsEverythingIsMasked() {
        var mask = OutputMaskStateMachine(nil)
        #expect(mask.take(Array("a secret\nb".utf8).span.bytes) == Array("********\n*".utf8))
        #expect(mask.finish().isEmpty)
    }

    /// The whole way of one target's output: offsets stay the program's, and the rest comes at the end.
    @Test func liveOutputKeepsTheMaskedBytes() {
        let secrets = SecretPatterns(values: [Array("a-long-secret".utf8)])
        let output = LiveOutput(
            command: CommandID(high: 1, low: 1), client: ClientID(high: 1, low: 2), limit: 1 << 20,
            mask: OutputMaskStateMachine(secrets))
        let link = Nobody()
        for (offset, text) in [(UInt64(0), "x a-long"), (8, "-secret y a-lo")] {
            _ = output.take(.standardOutput, at: offset, Array(text.utf8).span.bytes, from: link)
        }
        #expect(output.received.output == 22)
        #expect(output.summary.inline?.output == Array("x ************* y ".utf8))
        _ = output.finish()
        _ = output.finish()
        #expect(output.summary.inline?.output == Array("x ************* y a-lo".utf8) && output.summary.output == 22)
    }

    private final class Nobody: ExecutionLink {
        let client = ClientID(high: 1, low: 2)
        func send(_ command: LiveCommand) {}
        func cancel(_ command: CommandID) {}
        func grant(_ command: CommandID, _ stream: OutputStream, upTo offset: UInt64) {}
        func acknowledge(_ command: CommandID) {}
    }

    @Test func requestsWithSecretsAreChecked() {
        func code(_ change: (inout CommandRequest) -> Void) -> String? {
            var request = CommandRequest(.selector("*"), .invocation(.argv(["/bin/true"])))
            request.secretEnvironment = ["TOKEN": "a value"]
            change(&request)
            do throws(Problem) {
                try request.validate(CommandLimits())
                return nil
            } catch { return error.code }
        }
        #expect(code { _ in } == nil)
        #expect(code { $0.offline = .skip } == nil)
        #expect(code { $0.offline = .queue } == "invalid")
        #expect(code { $0.environment = ["TOKEN": "x"] } == "invalid")
        #expect(code { $0.secretEnvironment = ["1X": "x"] } == "invalid")
        #expect(code { $0.secretEnvironment = ["CM_COMMAND_ID": "x"] } == "invalid")
        #expect(code { $0.secretEnvironment = ["A": "x\0y"] } == "invalid")
        #expect(code { $0.secretEnvironment = ["A": String(repeating: "x", count: 16_384)] } == "invalid")
        #expect(code { request in for number in 0..<65 { request.secretEnvironment["A\(number)"] = "x" } } == "invalid")
    }

    @Test func memoryForSecretsIsBounded() throws {
        let memory = CommandSecretsMemory()
        var kept: [CommandSecrets] = []
        let value = String(repeating: "x", count: 15_000)
        var refused: String?
        for number in 0..<200 where refused == nil {
            do throws(Problem) { kept.append(try CommandSecrets(["A": value + "\(number)"], memory)) } catch { refused = error.code }
        }
        #expect(refused == "too-many-secrets" && kept.count > 4)
        kept = []
        _ = try CommandSecrets(["A": value], memory)
    }
}

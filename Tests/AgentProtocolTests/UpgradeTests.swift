import Crypto
import JSON
import Program
import Testing

@testable import AgentProtocol

@Suite struct UpgradeTests {
    private let id = UpgradeID(high: 1, low: 2)
    private let release = SignedRelease(manifest: "{}", signature: "c2ln", key: "k")

    @Test func ordersAndReportsComeBackAsTheyWere() throws {
        let order = UpgradeOrder(upgrade: id, release: release, onlineWithinSeconds: 90, settleSeconds: 0)
        #expect(try UpgradeOrder(reading: order.payload.span.bytes) == order)
        for progress in UpgradeProgress.allCases {
            let report = UpgradeReport(upgrade: id, progress: progress, code: "a-code", message: "why")
            #expect(try UpgradeReport(reading: report.payload.span.bytes) == report)
        }
        let long = UpgradeReport(upgrade: id, progress: .failed, code: "c", message: String(repeating: "x", count: 5_000))
        #expect(long.message.utf8.count == UpgradeReport.messageBytes)
    }

    @Test(arguments: [
        #"{"upgrade":"x"}"#, #"{"state":"online"}"#, "[]", "{",
        #"{"upgrade":"00000000000000000000000001","state":"running"}"#,
        #"{"upgrade":"00000000000000000000000001","release":{"manifest":"m","signature":"s"},"online_within_s":4,"settle_s":3}"#,
        #"{"upgrade":"00000000000000000000000001","release":{"manifest":"m"},"online_within_s":60,"settle_s":3}"#,
    ])
    func othersAreRefused(text: String) {
        let bytes = Array(text.utf8)
        #expect(throws: WireError.self) { try UpgradeOrder(reading: bytes.span.bytes) }
        #expect(throws: WireError.self) { try UpgradeReport(reading: bytes.span.bytes) }
    }

    @Test func framesCarryTheirPlace() throws {
        var writer = FrameWriter()
        writer.upgradeForgotten(id)
        writer.releaseRequest(id, from: 7, count: 9)
        writer.releaseData(id, from: 100, [UInt8](repeating: 5, count: WireLimits.dataBytes + 3))
        let bytes = writer.bytes
        var position = 0
        var seen: [(FrameKind, UInt64, Int)] = []
        while position < bytes.count {
            let header = try FrameHeader.next(in: bytes.span.bytes, at: &position)
            let payload = bytes.span.bytes.extracting(position..<position + Int(header.length))
            position += Int(header.length)
            switch header.kind {
            case .upgradeForgotten: #expect(try UpgradeFrames.id(reading: payload) == id)
            case .releaseRequest: #expect(try UpgradeFrames.request(reading: payload).count == 9)
            default:
                let (upgrade, range) = try UpgradeFrames.data(reading: payload)
                #expect(upgrade == id)
                seen.append((header.kind, header.offset, range.count))
            }
        }
        #expect(seen.map(\.1) == [100, 100 + UInt64(WireLimits.dataBytes)])
        #expect(seen.map(\.2) == [WireLimits.dataBytes, 3])
        var much = FrameWriter()
        much.releaseRequest(id, from: 0, count: ReleaseFetchStateMachine.pieceBytes + 1)
        let payload = Array(much.bytes[FrameHeader.byteCount...])
        #expect(throws: WireError.self) { try UpgradeFrames.request(reading: payload.span.bytes) }
    }

    @Test func fetchAsksAheadOfWhatIsWrittenAndNoFurther() {
        let size: UInt64 = 1_000_000
        var fetch = ReleaseFetchStateMachine(size: size)
        var asked: [(UInt64, UInt64)] = []
        func askAll() { while let (from, count) = fetch.nextRequest() { asked.append((from, count)) } }
        askAll()
        #expect(fetch.requested == WireLimits.releaseWindowBytes)
        #expect(fetch.arrived(16, at: 16) == .wrong)
        #expect(fetch.arrived(16, at: 0) == .continues)
        #expect(fetch.arrived(16, at: 0) == .known)
        #expect(fetch.arrived(32, at: 0) == .wrong)
        #expect(fetch.arrived(0, at: 16) == .wrong)
        #expect(fetch.nextRequest() == nil)
        // Beyond what was asked for.
        #expect(fetch.arrived(Int(WireLimits.releaseWindowBytes), at: 16) == .wrong)
        fetch.askAgain()
        #expect(fetch.requested == 16)
        while !fetch.isComplete {
            askAll()
            #expect(fetch.requested - fetch.written <= WireLimits.releaseWindowBytes + ReleaseFetchStateMachine.pieceBytes)
            let count = min(16_384, fetch.requested - fetch.received)
            #expect(fetch.arrived(Int(count), at: fetch.received) == .continues)
            fetch.wrote(upTo: fetch.received)
        }
        #expect(fetch.nextRequest() == nil && fetch.received == size)
        #expect(asked.allSatisfy { $0.1 <= ReleaseFetchStateMachine.pieceBytes })
    }

    @Test func onlyTheKeyOfTheInstallationMakesARelease() throws {
        let key = try P256.PrivateKey.generate()
        let version = try #require(ReleaseVersion("0.2.0"))
        let manifest = ReleaseManifest(
            version: version, platform: ReleasePlatform.own, sha256: String(repeating: "0", count: 64), size: 1, created: 1)
        func signed(_ text: String, by key: P256.PrivateKey) throws -> SignedRelease {
            SignedRelease(manifest: text, signature: Base64.encodeURL(try key.sign(ReleaseManifest.signed(text))), key: "")
        }
        func refusal(_ release: SignedRelease, platform: String = ReleasePlatform.own) -> String? {
            do throws(ReleaseRefusal) {
                _ = try release.checked(with: key.publicKey, platform: platform)
                return nil
            } catch { return error.code }
        }
        let good = try signed(manifest.text, by: key)
        #expect(try good.checked(with: key.publicKey) == manifest)
        #expect(refusal(good, platform: "linux-other") == "release-platform")
        #expect(refusal(try signed(manifest.text, by: try .generate())) == "release-signature")
        #expect(refusal(SignedRelease(manifest: manifest.text + " ", signature: good.signature, key: "")) == "release-signature")
        #expect(refusal(SignedRelease(manifest: manifest.text, signature: "?", key: "")) == "release-signature")
        // The text alone, without the line that says what is signed.
        let bare = SignedRelease(
            manifest: manifest.text, signature: Base64.encodeURL(try key.sign(Array(manifest.text.utf8))), key: "")
        #expect(refusal(bare) == "release-signature")
        #expect(refusal(try signed("{}", by: key)) == "release-malformed")
    }
}

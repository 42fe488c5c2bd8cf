import JSON
import Testing

@testable import Program

@Suite struct ReleaseTests {
    @Test func versionsAreOrderedAsPeopleMeanThem() throws {
        let ordered = [
            "0.1.0", "0.2.0-alpha", "0.2.0-alpha.1", "0.2.0-alpha.2", "0.2.0-alpha.10", "0.2.0-alpha.beta", "0.2.0-beta",
            "0.2.0", "0.10.0", "1.0.0", "10.0.0",
        ]
        let versions = try ordered.map { try #require(ReleaseVersion($0)) }
        #expect(versions.map(\.description) == ordered)
        for index in versions.indices {
            for other in versions.indices {
                #expect((versions[index] < versions[other]) == (index < other), "\(ordered[index]) < \(ordered[other])")
            }
        }
    }

    @Test(arguments: ["", "1", "1.2", "1.2.3.4", "01.2.3", "1.2.x", "1.2.3-", "1.2.3-a..b", "1.2.3 ", "v1.2.3", "1.2.3-ä"])
    func otherTextsAreNoVersions(text: String) { #expect(ReleaseVersion(text) == nil) }

    private func manifest(_ change: (inout JSONObject) -> Void = { _ in }) throws -> String {
        var object: JSONObject = [
            "format": 1, "version": "0.2.0", "platform": "linux-x86_64", "sha256": .string(String(repeating: "a", count: 64)),
            "size": 10, "created": 5,
        ]
        change(&object)
        return JSONValue.object(object).description
    }

    @Test func manifestsAreReadStrictly() throws {
        let read = try ReleaseManifest(parsing: try manifest { $0["later"] = true })
        #expect(try ReleaseManifest(parsing: read.text) == read)
        let changes: [(String, JSONValue)] = [
            ("format", 2), ("version", "2"), ("platform", ""), ("platform", "a b"), ("sha256", "AA"), ("size", 0),
            ("size", .integer(Int64(ReleaseManifest.maximumSize) + 1)), ("created", -1), ("created", .null),
        ]
        for (name, value) in changes {
            #expect(throws: ReleaseError.self, "\(name)") { try ReleaseManifest(parsing: try manifest { $0[name] = value }) }
        }
        #expect(throws: ReleaseError.self) { try ReleaseManifest(parsing: String(repeating: " ", count: 3_000)) }
        // Nothing but a release's manifest has these bytes under a signature.
        #expect(ReleaseManifest.signed("x") == Array("client-manager.v1 agent release\nx".utf8))
    }

    @Test func stampsAreTheLastLine() throws {
        for text in ["0.2.0", "123456.123456.123456-" + String(repeating: "a", count: 19)] {
            let version = try #require(ReleaseVersion(text))
            let stamp = ReleaseStamp.bytes(version)
            #expect(stamp.count == ReleaseStamp.byteCount)
            #expect(ReleaseStamp.version(in: stamp) == version)
            for index in [0, 5, 20, 63] {
                var damaged = stamp
                damaged[index] ^= 1
                #expect(ReleaseStamp.version(in: damaged) != version)
            }
        }
        #expect(ReleaseStamp.version(in: [UInt8](repeating: 0, count: 64)) == nil)
        #expect(ReleaseStamp.version(in: []) == nil)
    }

    @Test func filesTellTheirPlatform() throws {
        var head = [UInt8](repeating: 0, count: 20)
        head.replaceSubrange(0..<6, with: [0x7F, 0x45, 0x4C, 0x46, 2, 1])
        head[18] = 62
        #expect(ReleasePlatform.ofELF(head) == "linux-x86_64")
        head[18] = 183
        #expect(ReleasePlatform.ofELF(head) == "linux-aarch64")
        #expect(ReleasePlatform.ofELF(Array("#!/bin/sh".utf8)) == nil)
    }
}

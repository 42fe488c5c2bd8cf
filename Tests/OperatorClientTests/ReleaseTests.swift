import Glibc
import JSON
import Testing

@testable import OperatorClient

/// Releases are made and checked without a core.
@Suite struct ReleaseMakingTests {
    private final class Place {
        let path = "/tmp/cm-release-test-" + String(UInt64.random(in: 0 ... .max), radix: 36)
        init() { mkdir(path, 0o700) }
        deinit {
            guard let stream = opendir(path) else { return }
            while let entry = readdir(stream) {
                let name = withUnsafePointer(to: &entry.pointee.d_name) {
                    $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
                }
                unlink(path + "/" + name)
            }
            closedir(stream)
            rmdir(path)
        }
    }

    private func write(_ text: String, to path: String) {
        let file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        _ = text.utf8CString.withUnsafeBytes { Glibc.write(file, $0.baseAddress, $0.count - 1) }
        close(file)
    }

    private func read(_ path: String) -> [UInt8] {
        let file = open(path, O_RDONLY)
        defer { close(file) }
        var bytes = [UInt8](repeating: 0, count: 1 << 20)
        let count = bytes.withUnsafeMutableBytes { Glibc.read(file, $0.baseAddress, $0.count) }
        return Array(bytes.prefix(max(count, 0)))
    }

    @Test func aReleaseIsSignedCheckedAndSignedAgain() async throws {
        let place = Place()
        let bench = Bench { _ throws(OperatorError) in throw OperatorError(.unreachable, "there is no core") }
        let (key, program) = (place.path + "/key", place.path + "/agent")
        #expect(await bench.run("upgrades", "key", key) == .success)
        var status = stat()
        #expect(stat(key, &status) == 0 && status.st_mode & 0o777 == 0o600)
        #expect(await bench.run("upgrades", "key", key) == .usage)
        write("#!/bin/sh\nexit 0\n", to: program)
        #expect(await bench.run("upgrades", "sign", program, "--key", key, "--version", "1.2") == .usage)
        #expect(await bench.run("upgrades", "sign", program, "--key", key, "--version", "1.2.3") == .usage)
        #expect(bench.console.errors.contains("--platform"))
        #expect(
            await bench.run("upgrades", "sign", program, "--key", key, "--version", "1.2.3", "--platform", "linux-x86_64")
                == .success)
        let release = program + "-1.2.3"
        #expect(read(release).count == read(program).count + 64)
        #expect(await bench.run("upgrades", "verify", release, "--key", key + ".pub") == .success)
        // A release under another version has one stamp.
        let again = place.path + "/again"
        #expect(
            await bench.run(
                "upgrades", "sign", release, "--key", key, "--version", "2.0.0", "--out", again, "--platform", "linux-x86_64")
                == .success)
        #expect(read(again).count == read(release).count)
        #expect(await bench.run("upgrades", "verify", again, "--key", key + ".pub") == .success)
        let other = place.path + "/other"
        #expect(await bench.run("upgrades", "key", other) == .success)
        #expect(await bench.run("upgrades", "verify", again, "--key", other + ".pub") == .remoteFailure)
        write("something else", to: again)
        #expect(await bench.run("upgrades", "verify", again, "--key", key + ".pub") == .remoteFailure)
        #expect(bench.core.requests.isEmpty)
    }

    @Test func aReleaseIsUploadedInPieces() async throws {
        let place = Place()
        let (key, program) = (place.path + "/key", place.path + "/agent")
        write("#!/bin/sh\nexit 0\n", to: program)
        let bench = Bench { request in
            request.target == "/api/v1/files" ? ScriptedCore.json(["id": "F1"], status: 201) : ScriptedCore.json(["id": "R1"])
        }
        _ = await bench.run("upgrades", "key", key)
        _ = await bench.run("upgrades", "sign", program, "--key", key, "--version", "1.2.3", "--platform", "linux-x86_64")
        #expect(await bench.run("upgrades", "upload", program + "-1.2.3") == .success)
        let requests = bench.core.requests
        #expect(requests.map(\.method) == ["POST", "PATCH", "POST"])
        #expect(requests.map(\.target) == ["/api/v1/files", "/api/v1/files/F1", "/api/v1/upgrades/releases"])
        #expect(requests[1].body == read(program + "-1.2.3"))
        #expect(requests[1].headers.contains { $0.name == "upload-offset" && $0.value == "0" })
        let body = try JSONValue(parsing: requests[2].body ?? [])
        #expect(body["file"] == "F1" && body["manifest"]?.string?.contains("1.2.3") == true)
    }
}

import Crypto
import JSON
import Program
import Reactor
import System

/// What is done with releases where the release key is, away from every core.
extension Invocation {
    static let manifestSuffix = ".release.json"

    func makeReleaseKey() throws(OperatorError) -> Outcome {
        let path = operand("FILE") ?? ""
        for taken in [path, path + ".pub"] where Files.exists(taken) {
            throw .usage("\(taken) is there already", advice: "A release key is never replaced: agents trust it for good.")
        }
        do {
            let key = try P256.PrivateKey.generate()
            try AtomicFile.write(Array(try key.pem().utf8), to: path, mode: 0o600)
            try AtomicFile.write(Array(Self.pem(key.publicKey).utf8), to: path + ".pub", mode: 0o644)
            session.showRecord([
                "private": .string(path), "public": .string(path + ".pub"), "fingerprint": .string(key.publicKey.fingerprint),
            ])
            return .success
        } catch { throw .usage("the key cannot be made: \(error)") }
    }

    private static func pem(_ key: P256.PublicKey) -> String {
        var text = "-----BEGIN PUBLIC KEY-----\n"
        var rest = Base64.encode(key.spki)[...]
        while !rest.isEmpty {
            text += rest.prefix(64) + "\n"
            rest = rest.dropFirst(64)
        }
        return text + "-----END PUBLIC KEY-----\n"
    }

    func signRelease() throws(OperatorError) -> Outcome {
        let path = operand("PROGRAM") ?? ""
        guard let keyPath = flags.value("key") else { throw .usage("--key FILE is missing") }
        guard let version = flags.value("version").flatMap({ ReleaseVersion($0) }) else {
            throw .usage("--version is missing, or not MAJOR.MINOR.PATCH[-PRE] with at most 40 bytes")
        }
        do {
            let key = try P256.PrivateKey(pem: String(decoding: try Files.read(keyPath, limit: 16_384), as: UTF8.self))
            var bytes = try Files.read(path, limit: Int(ReleaseManifest.maximumSize) - ReleaseStamp.byteCount)
            // A release that is released again under another version has one stamp, not two.
            if ReleaseStamp.version(in: bytes.suffix(ReleaseStamp.byteCount)) != nil { bytes.removeLast(ReleaseStamp.byteCount) }
            guard let platform = flags.value("platform") ?? ReleasePlatform.ofELF(bytes.prefix(20)) else {
                throw OperatorError.usage("\(path) is no ELF file of a known platform", advice: "Name it with --platform.")
            }
            bytes += ReleaseStamp.bytes(version)
            let manifest = ReleaseManifest(
                version: version, platform: platform, sha256: SHA256.digest(bytes).hex, size: UInt64(bytes.count),
                created: unixMilliseconds() / 1_000)
            // Read back as an agent reads it, so that nothing is signed that nobody takes.
            let text = manifest.text
            guard try ReleaseManifest(parsing: text) == manifest else {
                throw OperatorError.usage("--platform \(platform): not a name of a platform")
            }
            let signed = SignedRelease(
                manifest: text, signature: Base64.encodeURL(try key.sign(ReleaseManifest.signed(text))),
                key: key.publicKey.fingerprint)
            let out = flags.value("out") ?? "\(path)-\(version)"
            try AtomicFile.write(bytes, to: out, mode: 0o755)
            try AtomicFile.write(signed.json.serialized() + [0x0A], to: out + Self.manifestSuffix, mode: 0o644)
            session.showRecord([
                "file": .string(out), "manifest": .string(out + Self.manifestSuffix), "version": .string("\(version)"),
                "platform": .string(platform), "sha256": .string(manifest.sha256), "key": .string(signed.key),
            ])
            return .success
        } catch let error as OperatorError {
            throw error
        } catch { throw .usage("the release cannot be made: \(error)") }
    }

    func verifyRelease() throws(OperatorError) -> Outcome {
        let path = operand("FILE") ?? ""
        guard let keyPath = flags.value("key") else { throw .usage("--key FILE is missing") }
        let (signed, manifest) = try readRelease(path)
        do {
            let key = try P256.PublicKey(pem: String(decoding: try Files.read(keyPath, limit: 16_384), as: UTF8.self))
            guard let signature = Base64.decodeURL(signed.signature),
                key.isValid(signature: signature, for: ReleaseManifest.signed(signed.manifest))
            else { throw OperatorError(.remoteFailure, "the key \(key.fingerprint) did not sign this release") }
            let bytes = try Files.read(path, limit: Int(ReleaseManifest.maximumSize))
            guard SHA256.digest(bytes).hex == manifest.sha256, UInt64(bytes.count) == manifest.size,
                ReleaseStamp.version(in: bytes.suffix(ReleaseStamp.byteCount)) == manifest.version
            else { throw OperatorError(.remoteFailure, "\(path) is not the file that was signed") }
            session.showRecord([
                "version": .string("\(manifest.version)"), "platform": .string(manifest.platform),
                "sha256": .string(manifest.sha256), "signed_by": .string(key.fingerprint),
            ])
            return .success
        } catch let error as OperatorError {
            throw error
        } catch { throw .usage("the release cannot be checked: \(error)") }
    }

    private func readRelease(_ path: String) throws(OperatorError) -> (SignedRelease, ReleaseManifest) {
        do {
            let text = try Files.read(path + Self.manifestSuffix, limit: SignedRelease.maximumBytes)
            let signed = try SignedRelease(try JSONValue(parsing: text))
            return (signed, try ReleaseManifest(parsing: signed.manifest))
        } catch { throw .usage("\(path)\(Self.manifestSuffix) cannot be used: \(error)") }
    }

    // MARK: To a core

    /// In pieces, so that a connection that breaks costs one of them and memory stays flat.
    func uploadRelease() async throws(OperatorError) -> Outcome {
        let path = operand("FILE") ?? ""
        let (signed, manifest) = try readRelease(path)
        let core = try core
        let name = "cm-agent-\(manifest.version)-\(manifest.platform)"
        let begun = try await core.post(
            "/api/v1/files", ["name": .string(name), "size": .integer(Int64(manifest.size)), "keep_s": 86_400])
        guard let id = begun["id"]?.string else {
            throw OperatorError(.remoteFailure, "the core did not say under which id it keeps the file")
        }
        var offset: UInt64 = 0
        while offset < manifest.size {
            let piece = try piece(of: path, at: offset)
            var request = APIRequest("PATCH", "/api/v1/files/" + APIRequest.encoded(id), body: piece)
            request.headers = [
                (name: "upload-offset", value: "\(offset)"), (name: "content-type", value: "application/octet-stream"),
            ]
            _ = try await core.call(request)
            offset += UInt64(piece.count)
        }
        var body = signed.json.object ?? [:]
        body["file"] = .string(id)
        session.showRecord(try await core.post("/api/v1/upgrades/releases", .object(body)))
        return .success
    }

    private func piece(of path: String, at offset: UInt64) throws(OperatorError) -> [UInt8] {
        do throws(SystemError) {
            let file = try Descriptor.open(path, 0)
            var failure: SystemError?
            let bytes = [UInt8](unsafeUninitializedCapacity: 4 << 20) { buffer, count in
                var span = OutputRawSpan(buffer: UnsafeMutableRawBufferPointer(buffer), initializedCount: 0)
                do throws(SystemError) { try file.read(at: offset, into: &span, subject: path) } catch { failure = error }
                count = span.finalize(for: UnsafeMutableRawBufferPointer(buffer))
            }
            if let failure { throw failure }
            guard !bytes.isEmpty else { throw SystemError("read", path, code: 5) }
            return bytes
        } catch { throw .usage("\(error)") }
    }
}

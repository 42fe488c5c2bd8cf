import CLibSSH2

/// Which host keys are believed. Exactly one of these; never any key without being told so.
enum HostKeyPolicy: Sendable, Equatable {
    /// Lines of a known_hosts file.
    case knownHosts(String)
    /// "SHA256:…", as `ssh-keygen -l` prints it; one of these.
    case fingerprints([String])
    /// The key that the host shows now, kept for the next time: a changed one is refused then.
    case firstUse(kept: String?)
}

/// The key that a host has shown.
struct HostKey: Sendable, Equatable {
    /// "SHA256:…"
    var fingerprint: String
    /// "ssh-ed25519 AAAA…", as in known_hosts.
    var text: String
}

extension SSHSession {
    /// Kinds of host keys, each a list for the key exchange: where a fingerprint is given, nobody knows of which kind it is.
    static let hostKeyFamilies = [
        "ssh-ed25519", "ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521", SSHLibrary.signsRSAWithSHA2 ? "rsa-sha2-512,rsa-sha2-256,ssh-rsa" : "ssh-rsa",
    ]

    /// The key of the host at the other end.
    func hostKey() throws(Failure) -> HostKey {
        var size = 0
        var kind: Int32 = 0
        guard let bytes = libssh2_session_hostkey(session, &size, &kind), size > 4 else {
            throw failure("ssh-handshake", "\(name) has shown no host key")
        }
        let blob = UnsafeRawBufferPointer(start: bytes, count: size)
        guard let hash = libssh2_hostkey_hash(session, LIBSSH2_HOSTKEY_HASH_SHA256) else {
            throw failure("ssh-handshake", "the host key of \(name) has no SHA-256 hash")
        }
        var reader = WireReader(Array(blob))
        let type = String(decoding: try reader.string(), as: UTF8.self)
        let digest = Array(UnsafeRawBufferPointer(start: hash, count: 32))
        return HostKey(
            fingerprint: "SHA256:" + Base64.encode(digest).prefix { $0 != "=" }, text: type + " " + Base64.encode(Array(blob)))
    }

    /// Whether the host is the one that is meant. Before anything secret is sent.
    func check(_ key: HostKey, _ policy: HostKeyPolicy, host: String, port: Int) throws(Failure) {
        switch policy {
        case .fingerprints(let wanted):
            guard wanted.contains(key.fingerprint) else {
                throw Failure(
                    "host-key-mismatch", "\(host) port \(port) has the host key \(key.fingerprint), and \(wanted.joined(separator: " or ")) is wanted: refused")
            }
        case .firstUse(let kept):
            guard kept == nil || kept == key.text else {
                throw Failure(
                    "host-key-changed",
                    "\(host) port \(port) has the host key \(key.fingerprint), which is another one than at first use: refused")
            }
        case .knownHosts(let lines):
            guard !KnownHosts.revokes(key, in: lines) else {
                throw Failure(
                    "host-key-revoked", "\(host) port \(port) has the host key \(key.fingerprint), which known_hosts revokes: refused")
            }
            switch try KnownHosts(lines, self).find(host, port, key: key) {
            case .same: break
            case .different:
                throw Failure(
                    "host-key-changed",
                    "\(host) port \(port) has the host key \(key.fingerprint), and known_hosts has another one for it: refused")
            case .unknown:
                throw Failure(
                    "host-key-unknown",
                    "\(host) port \(port) has the host key \(key.fingerprint), and known_hosts has no line for it: refused")
            }
        }
    }
}

/// Lines of known_hosts, read by the library: names, [name]:port, and hashed names.
final class KnownHosts {
    enum Answer { case same, different, unknown }

    private let hosts: OpaquePointer

    init(_ text: String, _ session: SSHSession) throws(Failure) {
        guard let hosts = libssh2_knownhost_init(session.session) else {
            throw session.failure("ssh-library", "known_hosts cannot be read")
        }
        self.hosts = hosts
        for line in text.split(whereSeparator: \.isNewline) {
            let line = line.drop { $0 == " " || $0 == "\t" }
            guard !line.isEmpty, line.first != "#" else { continue }
            // What a marker says the library does not understand: such a line is never believed (`revokes` reads it).
            guard line.first != "@" else { continue }
            var copy = String(line)
            let status = copy.withUTF8 { bytes in
                bytes.withMemoryRebound(to: CChar.self) {
                    libssh2_knownhost_readline(hosts, $0.baseAddress, $0.count, LIBSSH2_KNOWNHOST_FILE_OPENSSH)
                }
            }
            guard status == 0 else {
                throw Failure("host-key-invalid", "this is no line of known_hosts: \(line.prefix(60))")
            }
        }
    }

    deinit { libssh2_knownhost_free(hosts) }

    /// A line `@revoked NAMES TYPE KEY` with this key: for whatever names, because a key that is known to others is no key.
    static func revokes(_ key: HostKey, in text: String) -> Bool {
        text.split(whereSeparator: \.isNewline).contains { line in
            let words = line.split(whereSeparator: { $0 == " " || $0 == "\t" })
            return words.count >= 4 && words[0] == "@revoked" && "\(words[2]) \(words[3])" == key.text
        }
    }

    func find(_ host: String, _ port: Int, key: HostKey) throws(Failure) -> Answer {
        guard let blob = key.text.split(separator: " ").last.flatMap({ Base64.decode(String($0)) }) else { return .different }
        return look(host, port, blob)
    }

    /// Whether there is a line for the host at all.
    func knows(_ host: String, _ port: Int) -> Bool { look(host, port, [0, 0, 0, 0]) != .unknown }

    private func look(_ host: String, _ port: Int, _ blob: [UInt8]) -> Answer {
        let answer = blob.withUnsafeBufferPointer { bytes in
            bytes.withMemoryRebound(to: CChar.self) {
                libssh2_knownhost_checkp(
                    hosts, host, Int32(port), $0.baseAddress, $0.count,
                    LIBSSH2_KNOWNHOST_TYPE_PLAIN | LIBSSH2_KNOWNHOST_KEYENC_RAW, nil)
            }
        }
        switch answer {
        case LIBSSH2_KNOWNHOST_CHECK_MATCH: return .same
        case LIBSSH2_KNOWNHOST_CHECK_MISMATCH: return .different
        default: return .unknown
        }
    }
}

import Crypto
import Glibc
import System

/// A plugin file that was looked at without running any of its code: content in a private copy, note, hash, signer.
public struct PluginFile: Sendable {
    public let path: String
    public let note: PluginNote
    /// Lower-case hexadecimal.
    public let sha256: String
    /// Hex of the Ed25519 public key whose signature `NAME.so.sig` holds; `nil`: unsigned.
    public let signer: String?
    public let needed: [String]
    public let bytes: [UInt8]

    public static let maximumBytes = 256 << 20

    /// Owner, mode and kind of the file and of its directory; then its content, in memory from here on: what happens to the
    /// file afterwards does not matter.
    /// - Parameter trustedKeys: Ed25519 public keys (32 bytes) of `plugins.trusted_keys`.
    /// - Returns: `nil` for a file without an identity note: somebody else's library, which is none of our business.
    public static func read(_ path: String, trustedKeys: [[UInt8]]) throws(PluginRefusal) -> PluginFile? {
        try checkDirectory(Files.parent(of: path) ?? "/")
        let bytes = try content(path)
        let image = try ELFImage(bytes)
        guard let section = image.note else { return nil }
        let note = try PluginNote(section)
        let signer = try signer(of: bytes, path, trustedKeys)
        return PluginFile(
            path: path, note: note, sha256: Hex.encode(SHA256.hash(bytes)), signer: signer, needed: image.needed, bytes: bytes)
    }

    /// The directory's owner must be root or this process's user, and nobody else may write to it.
    public static func checkDirectory(_ path: String) throws(PluginRefusal) {
        let status: FileStatus
        do throws(SystemError) {
            status = try Files.status(path)
        } catch {
            throw PluginRefusal(
                "plugin-unreadable", "the plugin directory cannot be looked at: \(error)",
                remedy: "make it readable for the core's user")
        }
        guard status.owner == 0 || status.owner == geteuid(), status.mode & 0o022 == 0 else {
            throw PluginRefusal(
                "plugin-directory-mode", "others can put files into \(path) (mode \(octal(status.mode)), user \(status.owner))",
                remedy: "chmod go-w \(path), and let it belong to root or to the core's user")
        }
    }

    private static func content(_ path: String) throws(PluginRefusal) -> [UInt8] {
        let file = try opened(path)
        let status: FileStatus
        do throws(SystemError) { status = try file.status(subject: path) } catch { throw .unreadable(error) }
        guard status.kind == .file else {
            throw PluginRefusal("plugin-not-a-file", "\(path) is no regular file", remedy: "put the file itself into the directory")
        }
        guard status.owner == 0 || status.owner == geteuid() else {
            throw PluginRefusal(
                "plugin-owner", "\(path) belongs to user \(status.owner)", remedy: "chown it to root or to the core's user")
        }
        guard status.mode & 0o022 == 0 else {
            throw PluginRefusal(
                "plugin-mode", "\(path) can be written by others (mode \(octal(status.mode)))", remedy: "chmod go-w \(path)")
        }
        guard status.size <= UInt64(maximumBytes) else {
            throw PluginRefusal(
                "plugin-too-large", "\(path) has \(status.size) bytes", remedy: "at most \(maximumBytes) are loaded")
        }
        do throws(SystemError) {
            return try read(file, size: Int(status.size), path)
        } catch {
            throw .unreadable(error)
        }
    }

    /// Not following a link: what is opened is what stands in the directory.
    private static func opened(_ path: String) throws(PluginRefusal) -> Descriptor {
        do throws(SystemError) {
            return try Descriptor.open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
        } catch {
            guard error.code == ELOOP else { throw .unreadable(error) }
            throw PluginRefusal("plugin-not-a-file", "\(path) is a symbolic link", remedy: "put the file itself into the directory")
        }
    }

    private static func read(_ file: borrowing Descriptor, size: Int, _ path: String) throws(SystemError) -> [UInt8] {
        var failure: SystemError?
        let bytes = [UInt8](unsafeUninitializedCapacity: size) { buffer, count in
            count = 0
            while count < size, let start = buffer.baseAddress {
                let read = pread(file.number, start + count, size - count, off_t(count))
                if read > 0 {
                    count += read
                } else if read == 0 {
                    return
                } else if errno != EINTR {
                    failure = .last("pread", path)
                    return
                }
            }
        }
        if let failure { throw failure }
        return bytes
    }

    private static func octal(_ mode: mode_t) -> String { String(mode, radix: 8) }

    /// `NAME.so.sig` beside the file: 64 raw bytes, Ed25519 (RFC 8032) over the file. A signature that no trusted key made is a
    /// refusal, not the same as none.
    private static func signer(of bytes: [UInt8], _ path: String, _ keys: [[UInt8]]) throws(PluginRefusal) -> String? {
        let signature: [UInt8]?
        do throws(SystemError) {
            signature = try Files.readIfPresent(path + ".sig", limit: 4_096)
        } catch {
            throw PluginRefusal("plugin-signature", "its signature cannot be read: \(error)", remedy: "correct or remove \(path).sig")
        }
        guard let signature else { return nil }
        for key in keys {
            if let publicKey = try? Ed25519.PublicKey(raw: key), publicKey.isValid(signature: signature, for: bytes) {
                return Hex.encode(key)
            }
        }
        throw PluginRefusal(
            "plugin-signature", "its signature was made by no key of plugins.trusted_keys, or the file was changed after it was signed",
            remedy: "sign it again, add the key, or remove \(path).sig to load it unsigned")
    }
}

extension PluginRefusal {
    fileprivate static func unreadable(_ error: SystemError) -> PluginRefusal {
        PluginRefusal("plugin-unreadable", "it cannot be read: \(error)", remedy: "make it readable for the core's user")
    }
}

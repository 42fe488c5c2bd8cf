import Crypto
import Program
import System

/// The public half of a release key, as an agent is given it.
public enum ReleaseKeyFile {
    public static func read(_ path: String) throws(FlagError) -> P256.PublicKey {
        let text: String
        do throws(SystemError) { text = String(decoding: try Files.read(path, limit: 16_384), as: UTF8.self) } catch {
            throw FlagError("--release-key: \(error)")
        }
        guard !text.split(separator: "\n").contains(where: { $0.hasSuffix("PRIVATE KEY-----") }) else {
            throw FlagError("--release-key \(path): a private key belongs to who signs releases, not to an agent")
        }
        do throws(CryptoError) { return try P256.PublicKey(pem: text) } catch {
            throw FlagError("--release-key \(path): \(error)")
        }
    }
}

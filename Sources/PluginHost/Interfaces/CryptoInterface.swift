import CPluginABI
import Crypto
import Kernel

let cryptoTable = HostTable(
    cm_crypto(
        head: head(of: cm_crypto.self), random: cryptoRandom, sha256: cryptoSHA256, hmac_sha256: cryptoHMAC, seal: cryptoSeal,
        unseal: cryptoUnseal, encrypt: cryptoEncrypt, decrypt: cryptoDecrypt))

private let randomBytes: UInt64 = 1 << 20
private let hashedBytes = 64 << 20
private let secretBytes = 64 << 10
private let labelBytes = 256
private let keyBytes = 32
private let associatedBytes = 4 << 10
/// Nonce and tag.
private let encryptedExtra = AEAD.nonceBytes + AEAD.tagBytes
/// Version of the sealed form, nonce, tag.
private let sealedExtra = 1 + AEAD.nonceBytes + AEAD.tagBytes

private func cryptoRandom(_ host: OpaquePointer, _ data: UnsafeMutablePointer<UInt8>, _ bytes: UInt64) -> cm_status {
    hostCall(host, .any, "crypto.random") { _ in
        guard bytes <= randomBytes else { return CM_E_TOO_LARGE }
        _ = UnsafeMutableBufferPointer(start: data, count: Int(bytes)).initialize(fromContentsOf: Random.bytes(Int(bytes)))
        return CM_OK
    }
}

/// The bytes in place; `nil` when there are too many.
private func withPlace(_ bytes: cm_bytes, _ body: (RawSpan) -> cm_status) -> cm_status {
    guard bytes.size <= UInt64(hashedBytes) else { return CM_E_TOO_LARGE }
    guard bytes.size == 0 || bytes.data != nil else { return CM_E_INVALID }
    return body(UnsafeRawBufferPointer(start: bytes.data, count: Int(bytes.size)).bytes)
}

private func put(_ digest: [UInt8], _ place: UnsafeMutablePointer<UInt8>) -> cm_status {
    _ = UnsafeMutableBufferPointer(start: place, count: digest.count).initialize(fromContentsOf: digest)
    return CM_OK
}

private func cryptoSHA256(_ host: OpaquePointer, _ data: cm_bytes, _ digest: UnsafeMutablePointer<UInt8>) -> cm_status {
    hostCall(host, .any, "crypto.sha256") { _ in withPlace(data) { put(SHA256.hash($0), digest) } }
}

private func cryptoHMAC(
    _ host: OpaquePointer, _ key: cm_bytes, _ data: cm_bytes, _ code: UnsafeMutablePointer<UInt8>
) -> cm_status {
    hostCall(host, .any, "crypto.hmac_sha256") { _ in
        guard let key = key.array(limit: 65_536) else { return CM_E_TOO_LARGE }
        return withPlace(data) { data in
            var state = HMACSHA256(key: key)
            state.update(data)
            return put(state.tag, code)
        }
    }
}

/// What a sealed secret is bound to. An id has no NUL.
private func binding(_ instance: PluginInstance, _ label: cm_text) throws(Problem) -> [UInt8] {
    guard instance.grants.contains(.secrets) else {
        throw Problem(403, "plugin-not-granted", "sealing needs the capability \"\(Capability.secrets.rawValue)\"")
    }
    guard let label = label.string(limit: labelBytes), !label.isEmpty else {
        throw Problem(400, "plugin-argument", "`label` must be UTF-8 without NUL, of 1 to \(labelBytes) bytes")
    }
    return Array(instance.id.utf8) + [0] + Array(label.utf8)
}

private func cryptoSeal(
    _ host: OpaquePointer, _ label: cm_text, _ secret: cm_bytes, _ sealed: UnsafeMutablePointer<cm_buffer>,
    _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    hostCall(host, .any, "crypto.seal", error: error) { instance in
        answering(error) { () throws(Problem) in
            let binding = try binding(instance, label)
            guard let secret = secret.array(limit: secretBytes) else {
                throw Problem(413, "plugin-argument", "`secret` has more than \(secretBytes) bytes")
            }
            let nonce = Random.bytes(AEAD.nonceBytes)
            do throws(CryptoError) {
                return error.fill(
                    sealed, [1] + nonce + (try instance.environment.sealing.seal(secret, nonce: nonce, associatedData: binding)))
            } catch let fault {
                throw Problem(500, "seal-failed", "the secret could not be sealed: \(fault)")
            }
        }
    }
}

private func cryptoUnseal(
    _ host: OpaquePointer, _ label: cm_text, _ sealed: cm_bytes, _ secret: UnsafeMutablePointer<cm_buffer>,
    _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    hostCall(host, .any, "crypto.unseal", error: error) { instance in
        answering(error) { () throws(Problem) in
            let binding = try binding(instance, label)
            guard let sealed = sealed.array(limit: secretBytes + sealedExtra), sealed.count >= sealedExtra, sealed[0] == 1 else {
                throw Problem(400, "plugin-argument", "`sealed` is not in the form that `seal` gives")
            }
            do throws(CryptoError) {
                return error.fill(
                    secret,
                    try instance.environment.sealing.open(
                        Array(sealed[(1 + AEAD.nonceBytes)...]), nonce: Array(sealed[1..<1 + AEAD.nonceBytes]), associatedData: binding))
            } catch {
                throw Problem(
                    403, "seal-broken",
                    "this was not sealed by \(instance.id) under this label and by this core, or it was changed since")
            }
        }
    }
}

/// The cipher of a key that a plugin brings, and what it binds in.
private func cipher(_ key: cm_bytes, _ associated: cm_bytes) throws(Problem) -> (AEAD, [UInt8]) {
    guard let key = key.array(limit: keyBytes), key.count == keyBytes else {
        throw Problem(400, "plugin-argument", "`key` must have \(keyBytes) bytes")
    }
    guard let associated = associated.array(limit: associatedBytes) else {
        throw Problem(413, "plugin-argument", "`associated` has more than \(associatedBytes) bytes")
    }
    do throws(CryptoError) {
        return (try AEAD(.aes256GCM, key: key), associated)
    } catch {
        throw Problem(500, "seal-failed", "the cipher is not there: \(error)")
    }
}

private func cryptoEncrypt(
    _ host: OpaquePointer, _ key: cm_bytes, _ associated: cm_bytes, _ plain: cm_bytes, _ encrypted: UnsafeMutablePointer<cm_buffer>,
    _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    hostCall(host, .any, "crypto.encrypt", error: error) { _ in
        answering(error) { () throws(Problem) in
            let (cipher, associated) = try cipher(key, associated)
            guard let plain = plain.array(limit: hashedBytes) else {
                throw Problem(413, "plugin-argument", "`plain` has more than \(hashedBytes) bytes")
            }
            let nonce = Random.bytes(AEAD.nonceBytes)
            do throws(CryptoError) {
                return error.fill(encrypted, nonce + (try cipher.seal(plain, nonce: nonce, associatedData: associated)))
            } catch let fault {
                throw Problem(500, "seal-failed", "the data could not be encrypted: \(fault)")
            }
        }
    }
}

private func cryptoDecrypt(
    _ host: OpaquePointer, _ key: cm_bytes, _ associated: cm_bytes, _ encrypted: cm_bytes, _ plain: UnsafeMutablePointer<cm_buffer>,
    _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    hostCall(host, .any, "crypto.decrypt", error: error) { _ in
        answering(error) { () throws(Problem) in
            let (cipher, associated) = try cipher(key, associated)
            guard let encrypted = encrypted.array(limit: hashedBytes + encryptedExtra), encrypted.count >= encryptedExtra else {
                throw Problem(400, "plugin-argument", "`encrypted` is not in the form that `encrypt` gives")
            }
            do throws(CryptoError) {
                return error.fill(
                    plain,
                    try cipher.open(
                        Array(encrypted[AEAD.nonceBytes...]), nonce: Array(encrypted[..<AEAD.nonceBytes]), associatedData: associated))
            } catch {
                throw Problem(403, "seal-broken", "this was not encrypted under this key with these associated bytes, or it was changed since")
            }
        }
    }
}

import CPluginABI
import Crypto
import Kernel

let cryptoTable = HostTable(
    cm_crypto(
        head: head(of: cm_crypto.self), random: cryptoRandom, sha256: cryptoSHA256, hmac_sha256: cryptoHMAC, seal: cryptoSeal,
        unseal: cryptoUnseal))

private let randomBytes: UInt64 = 1 << 20
private let hashedBytes = 64 << 20
private let secretBytes = 64 << 10
private let labelBytes = 256
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

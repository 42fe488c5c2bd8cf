import CPluginABI

/// `cm.crypto/1`. Sealing needs the capability "secrets".
public struct Crypto: Sendable {
    let table: HostTable<cm_crypto>

    /// From the system's generator.
    public func random(_ count: Int) throws(PluginError) -> [UInt8] {
        guard let random = table.functions.random else { throw .missing("cm.crypto/1 random") }
        var status = CM_E_INTERNAL
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { memory, filled in
            guard let base = memory.baseAddress, count > 0 else {
                status = CM_OK
                return
            }
            status = random(table.context, base, UInt64(count))
            filled = status == CM_OK ? count : 0
        }
        try check(status, "cm.crypto/1 random")
        return bytes
    }

    public func sha256(_ data: [UInt8]) throws(PluginError) -> [UInt8] {
        guard let sha256 = table.functions.sha256 else { throw .missing("cm.crypto/1 sha256") }
        var digest = [UInt8](repeating: 0, count: 32)
        try check(data.withBytes { sha256(table.context, $0, &digest) }, "cm.crypto/1 sha256")
        return digest
    }

    public func hmacSHA256(key: [UInt8], _ data: [UInt8]) throws(PluginError) -> [UInt8] {
        guard let hmac = table.functions.hmac_sha256 else { throw .missing("cm.crypto/1 hmac_sha256") }
        var code = [UInt8](repeating: 0, count: 32)
        let status = key.withBytes { key in data.withBytes { hmac(table.context, key, $0, &code) } }
        try check(status, "cm.crypto/1 hmac_sha256")
        return code
    }

    /// Seals a secret (64 KiB) under the core's master key; only the same plugin with the same label opens it.
    public func seal(_ secret: [UInt8], label: String) throws(PluginError) -> [UInt8] {
        guard let seal = table.functions.seal else { throw .missing("cm.crypto/1 seal") }
        return try readResult("cm.crypto/1 seal", expecting: secret.count + 128) { buffer, error in
            label.withText { label in secret.withBytes { seal(table.context, label, $0, buffer, error) } }
        }
    }

    public func unseal(_ sealed: [UInt8], label: String) throws(PluginError) -> [UInt8] {
        guard let unseal = table.functions.unseal else { throw .missing("cm.crypto/1 unseal") }
        return try readResult("cm.crypto/1 unseal", expecting: sealed.count) { buffer, error in
            label.withText { label in sealed.withBytes { unseal(table.context, label, $0, buffer, error) } }
        }
    }

    /// AES-256-GCM under a key of the plugin's own (32 bytes); `associated` (4 KiB) is bound in. At most 64 MiB. Keep the key
    /// sealed: who forgets it makes the data unreadable.
    public func encrypt(_ plain: [UInt8], key: [UInt8], associated: [UInt8] = []) throws(PluginError) -> [UInt8] {
        guard let encrypt = table.functions.encrypt else { throw .missing("cm.crypto/1 encrypt") }
        return try readResult("cm.crypto/1 encrypt", expecting: plain.count + 28) { buffer, error in
            key.withBytes { key in
                associated.withBytes { associated in
                    plain.withBytes { encrypt(table.context, key, associated, $0, buffer, error) }
                }
            }
        }
    }

    public func decrypt(_ encrypted: [UInt8], key: [UInt8], associated: [UInt8] = []) throws(PluginError) -> [UInt8] {
        guard let decrypt = table.functions.decrypt else { throw .missing("cm.crypto/1 decrypt") }
        return try readResult("cm.crypto/1 decrypt", expecting: encrypted.count) { buffer, error in
            key.withBytes { key in
                associated.withBytes { associated in
                    encrypted.withBytes { decrypt(table.context, key, associated, $0, buffer, error) }
                }
            }
        }
    }
}

extension Host {
    public func crypto() throws(PluginError) -> Crypto { Crypto(table: try interface(CM_INTERFACE_CRYPTO, cm_crypto())) }
}

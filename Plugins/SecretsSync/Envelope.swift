import PluginKit

/// One version, sealed: the value under a data key of its own, the data key under the core's key, which the master key seals.
///
/// Name and version are bound in both, so that nobody who can write to the database puts one secret in another's place. Without
/// the record, or the key in it, nothing opens the value again.
struct Envelope: Sendable {
    let sealedKey: [UInt8]
    let sealedValue: [UInt8]

    private static let form: UInt8 = 1

    var bytes: [UInt8] {
        [Self.form, UInt8(sealedKey.count >> 8), UInt8(sealedKey.count & 255)] + sealedKey + sealedValue
    }

    init?(_ bytes: [UInt8]) {
        guard bytes.count > 3, bytes[0] == Self.form else { return nil }
        let end = 3 + Int(bytes[1]) << 8 + Int(bytes[2])
        guard bytes.count > end else { return nil }
        sealedKey = Array(bytes[3..<end])
        sealedValue = Array(bytes[end...])
    }

    init(sealing value: [UInt8], of name: String, _ version: Int, _ crypto: Crypto) throws(PluginError) {
        let key = try crypto.random(32)
        let label = Self.label(name, version)
        sealedKey = try crypto.seal(key, label: label)
        sealedValue = try crypto.encrypt(value, key: key, associated: Array(label.utf8))
    }

    func open(_ name: String, _ version: Int, _ crypto: Crypto) throws(PluginError) -> [UInt8] {
        let label = Self.label(name, version)
        return try crypto.decrypt(sealedValue, key: try crypto.unseal(sealedKey, label: label), associated: Array(label.utf8))
    }

    private static func label(_ name: String, _ version: Int) -> String { "secret/\(name)/\(version)" }
}

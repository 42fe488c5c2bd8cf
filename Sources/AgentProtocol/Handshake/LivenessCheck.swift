import Crypto

/// A fresh challenge over an accepted link: is the machine that holds the key still on this connection? The answer tells
/// a clone from an old connection that nobody has closed.
public enum LivenessCheck {
    public static let nonceBytes = 32
    /// The longest ECDSA signature in DER that is accepted.
    public static let signatureBytes = 80

    /// What the agent signs.
    public static func signed(nonce: [UInt8], client: ClientID, epoch: UInt64) -> [UInt8] {
        var text = SignedText("client-manager.v1 liveness")
        text.fixed(nonce)
        text.fixed(client.bytes)
        text.number(epoch)
        return text.bytes
    }

    /// - Parameter key: SubjectPublicKeyInfo that the agent proved in the link's handshake.
    public static func isValid(
        signature: [UInt8], nonce: [UInt8], client: ClientID, epoch: UInt64, key: [UInt8]
    ) -> Bool {
        guard let key = try? P256.PublicKey(spki: key) else { return false }
        return key.isValid(signature: signature, for: signed(nonce: nonce, client: client, epoch: epoch))
    }
}

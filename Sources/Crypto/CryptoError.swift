import COpenSSL

/// Why a cryptographic operation was refused.
public enum CryptoError: Error, Sendable, Equatable, CustomStringConvertible {
    /// The input does not have the form that was asked for; the text says which form, never the input.
    case malformed(String)
    /// The bytes were not made with this key, nonce and associated data.
    case notAuthentic
    /// OpenSSL refused; the text names the operation and OpenSSL's reason.
    case library(String)

    public var description: String {
        switch self {
        case .malformed(let what): "malformed: \(what)"
        case .notAuthentic: "not authentic"
        case .library(let what): what
        }
    }

    /// Takes OpenSSL's reason and empties this thread's error queue: what stays there would be read by the next TLS
    /// call on the same thread as its own failure.
    static func fromLibrary(_ operation: String) -> CryptoError {
        let code = ERR_peek_last_error()
        ERR_clear_error()
        guard code != 0, let reason = ERR_reason_error_string(code) else { return .library("\(operation) failed") }
        return .library("\(operation) failed: \(String(cString: reason))")
    }
}

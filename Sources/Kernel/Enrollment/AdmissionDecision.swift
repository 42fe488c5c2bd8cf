import AgentProtocol
import Crypto

/// What a proved hello amounts to, from what the registry knows. A function of values: no I/O, no clock of its own.
enum AdmissionDecision: Equatable {
    /// The client's own key.
    case reconnect(ClientID, olderLink: Bool)
    /// A new key for a known client: a statement of the old key, or an operator's token, must back it.
    case rekey(ClientID)
    /// A machine that the registry does not know.
    case enroll
    /// The key is right but has been used somewhere else, too.
    case clone(ClientID)
    case refused(ClientID, Refusal)

    struct Refusal: Equatable {
        var code: String
        var message: String
    }

    /// An older hello that was delayed on the way is no sign of a clone if its successor was accepted this shortly ago.
    /// Longer than any handshake may take.
    static let overtakingMilliseconds: UInt64 = 20_000

    static func of(
        key: SHA256.Digest, claimed: ClientID?, epoch: UInt64, bootID: String, now: UInt64, in table: borrowing FleetTable
    ) -> AdmissionDecision {
        if let slot = table.slot(of: key), let row = table.row(slot) {
            if let claimed, claimed != row.id {
                return .refused(
                    claimed,
                    Refusal(code: "key-mismatch", message: "the key belongs to another client than the id \(claimed)"))
            }
            return of(row, epoch: epoch, bootID: bootID, now: now)
        }
        if let claimed, table.slot(of: claimed) != nil { return .rekey(claimed) }
        return .enroll
    }

    private static func of(
        _ row: FleetTable.Row, epoch: UInt64, bootID: String, now: UInt64
    ) -> AdmissionDecision {
        if row.state == .revoked {
            return .refused(row.id, Refusal(code: "revoked", message: "the client is revoked"))
        }
        if row.isHeldBack {
            return .refused(
                row.id, Refusal(code: Clients.heldBack.code, message: Clients.heldBack.detail))
        }
        if row.excludedBoots.contains(bootID) {
            return .refused(
                row.id,
                Refusal(
                    code: "superseded",
                    message: "an operator gave this identity to another machine: run 'cm-agent reset-identity' and enroll again"
                ))
        }
        if epoch <= row.epoch {
            if epoch < row.epoch, now < row.admittedAt + overtakingMilliseconds {
                return .refused(row.id, Refusal(code: "fenced", message: "a newer link of this client was accepted"))
            }
            return .clone(row.id)
        }
        return .reconnect(row.id, olderLink: row.link != nil)
    }
}

import AgentProtocol
import JSON

/// One act, as the audit trail keeps it: who, from where, what, on which clients, allowed or refused and why.
public struct AuditRecord: Sendable, Equatable {
    public enum Outcome: String, Sendable, CaseIterable {
        case allowed, refused, failed
    }
    public var principal: Principal
    /// `area.verb`, like the right that the act needs: `command.submit`, `client.revoke`, …
    public var action: String
    /// The clients that the act is about; all of them, however many.
    public var clients: [ClientID]
    /// What else it is about: a command's id, a user's name, a setting's key.
    public var target: String?
    public var outcome: Outcome
    /// Why it was refused or failed.
    public var reason: String
    /// Anything more that a reader will want, as JSON text; never a secret. Empty for none. At most
    /// `AuditLimits.detailBytes` are kept.
    public var detail: [UInt8]

    public init(
        principal: Principal, action: String, clients: [ClientID] = [], target: String? = nil,
        outcome: Outcome = .allowed, reason: String = "", detail: JSONValue = .null
    ) {
        self.init(
            principal: principal, action: action, clients: clients, target: target, outcome: outcome, reason: reason,
            detailText: detail.isNull ? [] : detail.serialized())
    }

    /// - Parameter detailText: what the caller knows to be one JSON value.
    init(
        principal: Principal, action: String, clients: [ClientID] = [], target: String? = nil,
        outcome: Outcome = .allowed, reason: String = "", detailText: [UInt8]
    ) {
        self.principal = principal
        self.action = action
        self.clients = clients
        self.target = target
        self.outcome = outcome
        self.reason = reason
        detail = detailText
    }
}

/// What one record may hold. Longer text is cut and says so; an act never fails because its record is long.
enum AuditLimits {
    static let textBytes = 1_024
    static let detailBytes = 16_384

    static func cut(_ text: String) -> String {
        guard text.utf8.count > textBytes else { return text }
        return String(decoding: text.utf8.prefix(textBytes), as: UTF8.self) + "…"
    }
}

/// A record as it stands in the trail: texts as they were stored, position, time and hash.
public struct AuditEntry: Sendable, Equatable {
    /// Counts from 1 without gaps.
    public var sequence: UInt64
    /// Unix milliseconds; never less than the record before.
    public var milliseconds: UInt64
    public var actorKind: String
    public var actor: String
    public var address: String?
    public var correlation: String
    public var action: String
    public var target: String?
    /// Sixteen bytes per client.
    public var clients: [UInt8]
    public var outcome: String
    public var reason: String
    /// JSON text; empty for none.
    public var detail: String

    public var clientIDs: [ClientID] {
        stride(from: 0, to: clients.count - clients.count % 16, by: 16).compactMap {
            ClientID(bytes: Array(clients[$0..<$0 + 16]))
        }
    }
}

extension AuditEntry {
    init(_ record: borrowing AuditRecord, sequence: UInt64, milliseconds: UInt64) {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(16 * record.clients.count)
        for client in record.clients {
            withUnsafeBytes(of: (client.high.bigEndian, client.low.bigEndian)) { bytes.append(contentsOf: $0) }
        }
        let detail = record.detail.count <= AuditLimits.detailBytes
            ? String(decoding: record.detail, as: UTF8.self) : "{\"left_out_bytes\":\(record.detail.count)}"
        self.init(
            sequence: sequence, milliseconds: milliseconds, actorKind: record.principal.kind.rawValue,
            actor: AuditLimits.cut(record.principal.id), address: record.principal.address,
            correlation: AuditLimits.cut(record.principal.correlation), action: AuditLimits.cut(record.action),
            target: record.target.map(AuditLimits.cut), clients: bytes, outcome: record.outcome.rawValue,
            reason: AuditLimits.cut(record.reason), detail: detail)
    }
}

import Kernel
import Web

/// The pipeline's questions, answered by the kernel's security and audit.
public struct SecurityGate: Gate {
    private let security: Security
    private let store: Store

    public init(security: Security, store: Store) {
        self.security = security
        self.store = store
    }

    public func admitStranger(_ address: String) throws(Problem) { try security.admitStranger(address) }

    public func authenticate(
        authorization: String?, address: String, correlation: String
    ) async throws(Problem) -> Principal {
        try await security.authenticate(authorization: authorization, address: address, correlation: correlation)
    }

    public func spend(_ principal: Principal) throws(Problem) -> RateLimitState? {
        let limit = try security.spend(principal)
        return RateLimitState(limit: limit.limit, remaining: limit.remaining, resetSeconds: limit.resetSeconds)
    }

    public func grants(_ principal: Principal, _ right: Right) -> Bool { security.grants(principal, right) }

    public func isLive(_ principal: Principal) -> Bool { security.isLive(principal) }

    public func watch(_ principal: Principal, _ ended: @escaping @Sendable () -> Void) -> AnyObject? {
        security.watch(principal, ended)
    }

    public func recordRefusal(_ principal: Principal, _ right: Right, path: String, reason: String) async {
        // The answer is 403 either way; a store that cannot take the record says so in its own metrics and log.
        try? await write(
            AuditRecord(principal: principal, action: right.rawValue, target: path, outcome: .refused, reason: reason))
    }

    public func recordRead(_ principal: Principal, action: String, path: String) async throws(Problem) {
        try await write(AuditRecord(principal: principal, action: action, target: path))
    }

    private func write(_ record: AuditRecord) async throws(Problem) {
        try await store.write { (transaction) throws(StoreError) in _ = try transaction.audit(record) }
    }
}

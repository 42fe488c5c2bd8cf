import JSON
import Reactor

/// One bucket or lock as an operator sees it.
public struct LimitStatus: Sendable, Equatable {
    /// `address:…`, `user:…`, `token:…`, `issuer:…`, `client:…`, or `log-in:ADDRESS` with the account.
    public var key: String
    public var kind: String
    public var account: String?
    /// Requests per second; `nil` for locks.
    public var limit: Int?
    public var remaining: Int?
    public var resetMilliseconds: UInt64
}

extension Security {
    /// What is being used now, busiest first, then the locks. At most 1,000.
    public func limits() -> [LimitStatus] {
        let now = monotonicNanoseconds()
        let rates = state.withLock { state in
            Dictionary(state.byID.values.map { ($0.bucket, $0.rate) }, uniquingKeysWith: { first, _ in first })
        }
        var list = limiter.active(now: now, atMost: 800).map { entry in
            let kind = entry.key.prefix { $0 != ":" }
            let limit = rates[entry.key]
                ?? (kind == "address" ? options.strangerRate : kind == "client" ? options.clientRate : options.userRate)
            let left = limiter.peek(entry.key, limit: limit, now: now)
            return LimitStatus(
                key: entry.key, kind: String(kind), account: nil, limit: limit, remaining: left.remaining,
                resetMilliseconds: entry.aheadNanoseconds / 1_000_000)
        }
        for (key, milliseconds) in state.withLock({ $0.lockOut.locks(now: clock()) }).prefix(200) {
            list.append(
                LimitStatus(
                    key: "log-in:" + key.address, kind: "lock-out", account: key.account, limit: nil, remaining: nil,
                    resetMilliseconds: milliseconds))
        }
        return list
    }

    /// Fills a bucket or lifts the locks of an address (`log-in:…`); `nil` resets everything.
    public func resetLimit(_ key: String?, by principal: Principal) async throws(Problem) {
        try await store.write { (transaction) throws(StoreError) in
            _ = try transaction.audit(AuditRecord(principal: principal, action: "limit.reset", target: key ?? "*"))
        }
        guard let key else {
            limiter.resetAll()
            return state.withLock { $0.lockOut.resetAll() }
        }
        if key.hasPrefix("log-in:") {
            state.withLock { $0.lockOut.reset(address: String(key.dropFirst(7))) }
        } else {
            limiter.reset(key)
        }
    }
}

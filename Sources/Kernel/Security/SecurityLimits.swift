import AgentProtocol
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
        var list = knownBuckets(now)
        for entry in limiter.active(now: now, atMost: 400) {
            let kind = String(entry.key.prefix { $0 != ":" })
            let limit = kind == "address" ? options.strangerRate : options.userRate
            list.append(status(entry.key, kind, limit, entry.aheadNanoseconds))
        }
        for entry in clientLimiter.active(now: now, atMost: 400) {
            list.append(status("client:\(entry.key)", "client", options.clientRate, entry.aheadNanoseconds))
        }
        for (key, milliseconds) in state.withLock({ $0.lockOut.locks(now: clock()) }).prefix(200) {
            list.append(
                LimitStatus(
                    key: "log-in:" + key.address, kind: "lock-out", account: key.account, limit: nil, remaining: nil,
                    resetMilliseconds: milliseconds))
        }
        return list
    }

    /// Buckets of users, tokens and outsiders, once each, busiest first.
    private func knownBuckets(_ now: UInt64) -> [LimitStatus] {
        let credentials = state.withLock { Array($0.byID.values) }
        var seen: Set<String> = []
        return credentials.map { (credential: $0, ahead: $0.bucket.aheadNanoseconds(now: now)) }
            .filter { $0.ahead > 0 }.sorted { $0.ahead > $1.ahead }
            .filter { seen.insert($0.credential.bucket.key).inserted }.prefix(400)
            .map { status($0.credential.bucket.key, $0.credential.kind.rawValue, $0.credential.rate, $0.ahead) }
    }

    private func status(_ key: String, _ kind: String, _ limit: Int, _ ahead: UInt64) -> LimitStatus {
        LimitStatus(
            key: key, kind: kind, account: nil, limit: limit, remaining: RateLimit.Rate(limit).describe(ahead: ahead).remaining,
            resetMilliseconds: ahead / 1_000_000)
    }

    /// Fills a bucket or lifts the locks of an address (`log-in:…`); `nil` resets everything.
    public func resetLimit(_ key: String?, by principal: Principal) async throws(Problem) {
        try await store.write { (transaction) throws(StoreError) in
            _ = try transaction.audit(AuditRecord(principal: principal, action: "limit.reset", target: key ?? "*"))
        }
        let buckets = state.withLock { $0.byID.values.map(\.bucket) }
        for bucket in buckets where key == nil || bucket.key == key { bucket.reset() }
        guard let key else {
            limiter.resetAll()
            clientLimiter.resetAll()
            return state.withLock { $0.lockOut.resetAll() }
        }
        if key.hasPrefix("log-in:") {
            state.withLock { $0.lockOut.reset(address: String(key.dropFirst(7))) }
        } else if key.hasPrefix("client:"), let client = ClientID(key.dropFirst(7)) {
            clientLimiter.reset(client)
        } else {
            limiter.reset(key)
        }
    }
}

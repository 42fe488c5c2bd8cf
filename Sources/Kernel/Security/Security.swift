import AgentProtocol
import Crypto
import Reactor
import Synchronization
import System

/// Who may do what: credentials, roles, limits, lock-out and the command policy.
///
/// A request costs one SHA-256 and one look-up (`authenticate`), one bucket (`spend`) and a walk over few rules
/// (`grants`); none of them waits or reads the database. Changes are committed with their audit record first and taken
/// over into memory then. May be used from any thread; nothing waits with the lock held.
public final class Security: Sendable {
    public struct Options: Sendable {
        /// Requests per second: of one address without credentials, of one user, of one client.
        public var strangerRate = 1_000
        public var userRate = 1_000
        public var clientRate = 1_000
        /// What a new API token gets unless its maker says less or more.
        public var tokenRate = 100
        public var firstTokenRate = 100_000
        public var accessMilliseconds: UInt64 = 15 * 60_000
        /// A session that is not refreshed for this long ends.
        public var sessionMilliseconds: UInt64 = 24 * 3_600_000
        /// And at the latest after this long.
        public var longestSessionMilliseconds: UInt64 = 30 * 24 * 3_600_000
        public var maximumUsers = 10_000
        public var maximumTokens = 50_000
        public var maximumSessionsPerUser = 32
        public var issuers: [TokenIssuer] = []
        public init() {}
    }

    public let options: Options
    let store: Store
    let safe: KeySafe
    /// Password hashing and key files: one thread is enough, and keeps a flood of log-ins off the other cores.
    let pool: BlockingPool
    let clock: @Sendable () -> UInt64
    let state = Mutex(SecurityState())
    let limiter = RateLimiter(everyoneElse: "everyone-else")
    let clientLimiter = RateLimiter(everyoneElse: ClientID(high: 0, low: 0))
    let revocations = Revocations()

    public static let migrations = SecuritySchema.migrations

    /// Reads everything from the store; makes the first administrator's token if there never was one.
    /// - Parameters:
    ///   - directory: the data directory, for `admin-token`.
    ///   - clock: Unix milliseconds.
    /// - Throws: 400 or 500 for an issuer whose key file is unusable.
    public static func load(
        store: Store, directory: String, safe: KeySafe = KeySafe(), options: Options = Options(),
        clock: @escaping @Sendable () -> UInt64 = { unixMilliseconds() }
    ) async throws(Problem) -> Security {
        let security = Security(store, safe, options, clock)
        try await security.readAll()
        try await security.reloadIssuers()
        try await security.makeFirstToken(directory: directory)
        return security
    }

    private init(_ store: Store, _ safe: KeySafe, _ options: Options, _ clock: @escaping @Sendable () -> UInt64) {
        self.store = store
        self.safe = safe
        self.options = options
        self.clock = clock
        pool = BlockingPool(name: "security", threads: 1, queue: 64)
    }

    // MARK: Each request

    /// Who the bearer of an `Authorization` header is.
    /// - Parameter address: peer address without port, after trusted proxies were taken off.
    /// - Throws: 401 `authentication-required`, `token-invalid`, `token-expired`; 403 `address-not-allowed`; 429.
    public func authenticate(
        authorization: String?, address: String, correlation: String
    ) async throws(Problem) -> Principal {
        let now = clock()
        guard let authorization else { throw try refuse(.missing, address) }
        guard let digest = Self.bearer(authorization) else { throw try refuse(.form, address) }
        let known = state.withLock { $0.credentials[digest] ?? $0.verified[digest] }
        let credential: Credential
        if let known {
            credential = known
        } else {
            credential = try verify(authorization, digest, address, now)
        }
        guard credential.expires > now else { throw try refuse(.expired, address) }
        if !credential.networks.isEmpty, !credential.networks.contains(where: { $0.contains(address) }) {
            throw try refuse(.network(credential.id), address)
        }
        credential.lastUsed.store(now, ordering: .relaxed)
        return Principal(
            kind: credential.kind, id: credential.principal, roles: credential.roles, scopes: credential.scopes,
            address: address, correlation: correlation, credential: credential.id)
    }

    /// Takes one request out of the principal's bucket.
    /// - Throws: 429 `rate-limited`.
    @discardableResult
    public func spend(_ principal: Principal) throws(Problem) -> RateLimit {
        guard let credential = credential(of: principal) else {
            return try limiter.spend("principal:" + principal.id, limit: options.userRate, now: monotonicNanoseconds())
        }
        return try credential.bucket.spend(limit: credential.rate, now: monotonicNanoseconds())
    }

    /// Takes one request out of the bucket of somebody who has proved nothing.
    public func admitStranger(_ address: String) throws(Problem) {
        try limiter.spend(StrangerKey.of(address), limit: options.strangerRate, now: monotonicNanoseconds())
    }

    /// Takes one command out of a client's bucket.
    public func spend(client: ClientID) throws(Problem) {
        try clientLimiter.spend(client, limit: options.clientRate, now: monotonicNanoseconds())
    }

    /// Whether any role gives the right at all; for a right over clients, on any client.
    public func grants(_ principal: Principal, _ right: Right) -> Bool {
        state.withLock { $0.roles }.grants(principal, right)
    }

    /// The clients on which the principal has the right.
    public func scope(of principal: Principal, for right: Right) -> AccessScope {
        state.withLock { $0.roles }.scope(principal, right)
    }

    public func allows(_ principal: Principal, _ right: Right, on client: some SelectorView) -> Bool {
        state.withLock { $0.roles }.allows(principal, right, on: client)
    }

    /// Where the principal may run this now: role, policy and the switch together.
    /// - Parameters:
    ///   - right: of the act itself.
    ///   - shellRight: that a shell or script needs besides; `nil` where the act is such by its nature.
    /// - Throws: 503 `commands-stopped`; 403 when there is no client at all on which it would be allowed.
    public func commandScope(
        _ principal: Principal, _ subject: PolicySubject, right: Right = "command.run", shellRight: Right? = "command.shell"
    ) throws(Problem) -> AccessScope {
        let (roles, policy, stopped) = state.withLock { ($0.roles, $0.policy, $0.commandsStoppedExcept) }
        if let stopped, !stopped.contains(where: { principal.roles.contains($0) }) {
            throw Problem(503, "commands-stopped", "new commands are stopped for everybody but a few roles (settings, commands_stopped)", retryAfter: 60)
        }
        var scope = roles.scope(principal, right)
        if subject == .shell, let shellRight {
            let shell = roles.scope(principal, shellRight)
            guard !shell.isNothing else {
                throw .forbidden("a shell or script needs the right \"\(shellRight)\", which no role or scope of \(principal.id) grants; send \"argv\" instead")
            }
            scope = try scope.intersected(with: shell)
        }
        guard !scope.isNothing else {
            throw .forbidden("this needs the right \"\(right)\", which no role or scope of \(principal.id) grants")
        }
        let allowed = policy.scope(principal, subject)
        guard !allowed.isNothing else {
            throw Problem(403, "policy-refused", "no rule of the command policy allows this command to \(principal.id) (see /api/v1/policies)")
        }
        return try scope.intersected(with: allowed)
    }

    // MARK: Open streams

    /// Calls `closed` once when the credential behind the principal ends: revoked, expired, or its roles changed. Keep
    /// the watch for as long as the stream is open. `nil` when it has ended already: close at once.
    public func watch(_ principal: Principal, _ closed: @escaping @Sendable () -> Void) -> RevocationWatch? {
        guard let id = principal.credential else { return revocations.watch("", closed) }
        let watch = revocations.watch(id, closed)
        return isLive(principal) ? watch : nil
    }

    /// Whether the credential behind the principal still holds.
    public func isLive(_ principal: Principal) -> Bool {
        guard principal.credential != nil else { return true }
        guard let credential = credential(of: principal) else { return false }
        return credential.expires > clock() || credential.kind == .user && sessionIsLive(credential.id)
    }

    /// An access token is short, the session behind it is not: a stream lives as long as the session.
    private func sessionIsLive(_ id: String) -> Bool {
        let now = clock()
        return state.withLock { $0.sessions[id].map { $0.expires > now } } ?? false
    }

    func credential(of principal: Principal) -> Credential? {
        guard let id = principal.credential else { return nil }
        return state.withLock { $0.byID[id] }
    }

    /// The switch that stops new commands for all but these roles; `nil` lets them run. Durable in the settings.
    public func stopCommands(exceptRoles: [String]?) { state.withLock { $0.commandsStoppedExcept = exceptRoles } }

    // MARK: Regular work

    /// Call it about once a minute: ends what has lapsed, writes when tokens were last used.
    public func tick() async {
        let now = clock()
        let lapsed = revocations.watched.filter { id in
            let credential = state.withLock { $0.byID[id] }
            guard let credential else { return !id.isEmpty }
            return credential.expires <= now && !(credential.kind == .user && sessionIsLive(id))
        }
        revocations.tell(lapsed)
        let used: [(String, UInt64)] = state.withLock { state in
            let stale = state.verified.filter { $0.value.expires <= now }
            for (digest, credential) in stale {
                state.verified[digest] = nil
                state.byID[credential.id] = nil
            }
            for (id, session) in state.sessions where session.expires <= now { state.remove(session: id) }
            state.revoked = state.revoked.filter { $0.value > now }
            var used: [(String, UInt64)] = []
            for (id, token) in state.tokens {
                guard let last = state.byID[id]?.lastUsed.load(ordering: .relaxed), last > token.lastUsed + 60_000 else { continue }
                used.append((id, last))
                state.tokens[id]?.lastUsed = last
            }
            return used
        }
        let batch = Array(used.prefix(2_048))
        _ = try? await store.write(bytes: 64 * (batch.count + 1)) { (transaction) throws(StoreError) in
            for (id, last) in batch { try transaction.run("UPDATE security_tokens SET used_ms = ? WHERE id = ?", last, id) }
            try transaction.run("DELETE FROM security_sessions WHERE expires_ms <= ?", now)
            try transaction.run("DELETE FROM security_revocations WHERE until_ms <= ?", now)
        }
    }

    // MARK: Refusals

    enum Refusal {
        case missing, form, unknown, expired
        case network(String)
    }

    /// Takes one out of the address's bucket (429 if that is empty) and gives the 401 to throw.
    func refuse(_ refusal: Refusal, _ address: String) throws(Problem) -> Problem {
        try admitStranger(address)
        return switch refusal {
        case .missing: Problem(401, "authentication-required", "send \"Authorization: Bearer TOKEN\"")
        case .form: Problem(401, "token-invalid", "the Authorization header must be \"Bearer\", a space and a token")
        case .unknown: Problem(401, "token-invalid", "the token is not known: it was revoked or never issued here")
        case .expired: Problem(401, "token-expired", "the token has expired: log in or refresh")
        case .network(let id): Problem(403, "address-not-allowed", "the token \(id) may not be used from \(address)")
        }
    }

    /// The hash of the bearer token; `nil` if the header has another form. Allocates nothing.
    private static func bearer(_ authorization: String) -> SHA256.Digest? {
        let span = authorization.utf8.span
        guard span.count > 7, span.count <= 7 + JSONWebToken.maximumBytes else { return nil }
        let scheme: StaticString = "bearer "
        for index in 0..<7 {
            // Schemes are compared without regard to case (RFC 9110 §11.1).
            let byte = span[index] | 0x20
            guard byte == scheme.utf8Start[index] else { return nil }
        }
        return SHA256.digest(span.bytes.extracting(7..<span.count))
    }
}

/// Which kinds there are. The core's are there before `Jobs.start`; those of plugins come and go.
extension Jobs {
    /// Adds a kind, or replaces it by a newer one of the same owner: attempts that run go on with the old one.
    /// - Throws: 400 for a name of another form; 409 `job-kind-taken`, `job-kinds-full`.
    public func register(_ kind: JobKind) throws(Problem) {
        try change { (state) throws(Problem) in try Self.add(kind, to: &state.kinds, limits) }
    }

    /// Gives an owner these kinds and no others, in one step: each attempt begins with the old version or with the new one
    /// of all of them. Attempts that run go on with the version that began them, until it ends them or `endAttempts`.
    /// Jobs of kinds that are not among the new ones wait until somebody brings them back.
    /// - Throws: as `register`; nothing has changed then.
    public func replaceKinds(of owner: String, by kinds: [JobKind]) throws(Problem) {
        try change { (state) throws(Problem) in
            var changed = state.kinds.filter { $0.value.owner != owner }
            for kind in kinds {
                guard kind.owner == owner, changed[kind.name]?.owner != owner else {
                    throw .invalid("the kind \(kind.name) is of \(kind.owner) and not of \(owner), or stands twice")
                }
                try Self.add(kind, to: &changed, limits)
            }
            state.kinds = changed
        }
    }

    /// Takes a kind away. Its waiting jobs wait for it to come back; attempts that run are taken as interrupted.
    public func unregister(_ name: String, owner: String, reason: String) async {
        let interrupted: [JobLease] = state.withLock { state in
            guard state.kinds[name]?.owner == owner else { return [] }
            state.kinds[name] = nil
            return state.running.values.filter { $0.lease.kind == name }.map(\.lease)
        }
        for lease in interrupted { await settle(lease, .interrupted(reason: reason)) }
    }

    /// Takes all kinds of an owner away, and interrupts all its attempts.
    public func removeKinds(of owner: String, reason: String) async {
        let interrupted: [JobLease] = state.withLock { state in
            state.kinds = state.kinds.filter { $0.value.owner != owner }
            return state.running.values.filter { $0.kind.owner == owner }.map(\.lease)
        }
        for lease in interrupted { await settle(lease, .interrupted(reason: reason)) }
    }

    /// One version of an owner is gone for good: what it began and has not ended is interrupted.
    public func endAttempts(of owner: String, instance: UInt64, reason: String) async {
        let interrupted = state.withLock { state in
            state.running.values.filter { $0.kind.owner == owner && $0.kind.instance == instance }.map(\.lease)
        }
        for lease in interrupted { await settle(lease, .interrupted(reason: reason)) }
    }

    /// How many attempts of this version run: an upgrade waits for none.
    public func attempts(of owner: String, instance: UInt64) -> Int {
        state.withLock { state in
            state.running.values.reduce(0) { $0 + ($1.kind.owner == owner && $1.kind.instance == instance ? 1 : 0) }
        }
    }

    public var kinds: [JobKind] { kindsByName.values.sorted { $0.name < $1.name } }

    var kindsByName: [String: JobKind] { state.withLock { $0.kinds } }

    func knows(_ kind: String) -> Bool { state.withLock { $0.kinds[kind] != nil } }

    /// - Throws: 422 `job-kind-unknown`.
    func kind(_ name: String) throws(Problem) -> JobKind {
        let kinds = kindsByName
        guard let kind = kinds[name] else {
            throw Problem(
                422, "job-kind-unknown",
                "there is no job kind \"\(name.prefix(64))\"; there are \(kinds.keys.sorted().joined(separator: ", "))",
                pointer: "/kind")
        }
        return kind
    }

    private func change(_ body: (inout State) throws(Problem) -> Void) throws(Problem) {
        let outcome: Result<(@Sendable () -> Void)?, Problem> = state.withLock { state in
            do throws(Problem) {
                try body(&state)
            } catch {
                return .failure(error)
            }
            state.hasNews = true
            return .success(state.scheduleNews)
        }
        try outcome.get()?()
        wakeup.signal()
    }

    private static func add(_ kind: JobKind, to kinds: inout [String: JobKind], _ limits: JobLimits) throws(Problem) {
        guard JobKind.isName(kind.name) else {
            throw .invalid("\"\(kind.name.prefix(80))\" is no name of a job kind: 1 to 64 of a-z, 0-9, -, . and _")
        }
        if let known = kinds[kind.name], known.owner != kind.owner {
            throw .conflict("job-kind-taken", "the job kind \(kind.name) belongs to \(known.owner)")
        }
        guard kinds[kind.name] != nil || kinds.count < limits.kinds else {
            throw .conflict("job-kinds-full", "there are \(limits.kinds) job kinds already")
        }
        kinds[kind.name] = kind
    }

    /// Calls `told` when a run of a schedule has ended, and when a kind has come; from any thread, it must not wait.
    func onScheduleNews(_ told: @escaping @Sendable () -> Void) {
        state.withLock { $0.scheduleNews = told }
    }
}

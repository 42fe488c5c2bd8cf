import AgentProtocol
import Crypto
import Glibc
import Synchronization
import System

/// The private files of an agent: what is placed, replaced, removed and listed, and what ends by itself.
///
/// Everything blocks and runs on one thread (`PrivateFiles`), one call at a time.
final class PrivateFileKeeper: Sendable {
    private struct State {
        var place: PrivateFilePlace?
        var index = PrivateFileIndex()
    }

    /// Remembers where the files are, so that the next agent finds them: a path, no secret.
    static let pointerName = "private-directory"
    private let pointerPath: String
    private let policyPath: String
    private let defaults: [String]
    private let now: @Sendable () -> UInt64
    private let state = Mutex(State())

    /// - Parameters:
    ///   - directory: the agent's data directory `A`.
    ///   - now: milliseconds of the clock that files end by.
    init(
        directory: String, defaults: [String] = PrivateFilePlace.defaults(),
        now: @escaping @Sendable () -> UInt64 = PrivateFileIndex.now
    ) {
        pointerPath = directory + "/" + Self.pointerName
        policyPath = directory + "/policy.json"
        self.defaults = defaults
        self.now = now
    }

    /// An earlier agent had one.
    var hasPlace: Bool { Files.exists(pointerPath) }
    /// When the next file ends, by `PrivateFileIndex.now`.
    var nextEnd: UInt64? { state.withLock { $0.index.nextEnd } }

    // MARK: Requests

    func handle(_ request: PrivateFileRequest) -> PrivateFileAnswer {
        state.withLock { state in
            do throws(PrivateFileRefusal) {
                switch request {
                case .put(let order, let content): return try put(order, content, &state)
                case .remove(let name, let keeper): return try remove(name, keeper, &state)
                case .list(let keeper):
                    try resume(&state)
                    try expire(&state)
                    return .done(list(keeper, state), isChanged: false)
                }
            } catch { return .refused(code: error.code, message: error.message) }
        }
    }

    /// Takes up what an earlier agent left, and removes what has ended meanwhile.
    func begin() -> PrivateFileRefusal? { tidy { state throws(PrivateFileRefusal) in try resume(&state) } }

    /// Removes what has ended.
    func expire() -> PrivateFileRefusal? { tidy { _ throws(PrivateFileRefusal) in } }

    private func tidy(_ body: (inout State) throws(PrivateFileRefusal) -> Void) -> PrivateFileRefusal? {
        state.withLock { state in
            do throws(PrivateFileRefusal) {
                try body(&state)
                try expire(&state)
                return nil
            } catch { return error }
        }
    }

    private func put(
        _ order: PrivateFileOrder, _ content: [UInt8], _ state: inout State
    ) throws(PrivateFileRefusal) -> PrivateFileAnswer {
        let policy = LocalPolicy.load(policyPath)
        if let refusal = policy.refusal(of: order) { throw PrivateFileRefusal("agent-policy", refusal) }
        let place = try openPlace(policy, &state)
        try expire(&state)
        let known = state.index.entries[order.name]
        if let known, known.keeper != order.keeper {
            throw PrivateFileRefusal("private-file-foreign", "\(order.name) was placed by \(known.keeper)")
        }
        let count = state.index.entries.count + (known == nil ? 1 : 0)
        let total = state.index.totalBytes - (known?.bytes ?? 0) + UInt64(content.count)
        guard count <= PrivateFileLimits.files, total <= UInt64(PrivateFileLimits.totalBytes) else {
            throw PrivateFileRefusal(
                "private-file-limit",
                "a client keeps at most \(PrivateFileLimits.files) private files and \(PrivateFileLimits.totalBytes) bytes of them")
        }
        let (name, user, group) = try account(order)
        let present = place.look(order.name)
        let isSame = known != nil
            && present.map {
                $0.sha256 == SHA256.digest(content).hex && $0.owner == user && $0.group == group && $0.mode == mode_t(order.mode)
            } ?? false

        let end = order.lifetimeMilliseconds.map { now() &+ $0 }
        var entry = PrivateFileIndex.Entry(
            keeper: order.keeper, owner: name, endsAt: end, bytes: UInt64(content.count), hook: order.hook,
            hookFault: isSame ? known?.hookFault : nil)
        if !isSame {
            // First the name, then the file: what stands there is always known, and what dies between leaves a file that
            // lives no longer than either order says.
            var before = entry
            before.endsAt = [end, known?.endsAt].compactMap { $0 }.min()
            before.hookFault = order.hook.isEmpty ? nil : "not done"
            try save(before, order.name, place, &state)
            try place.write(content, to: order.name, owner: user, group: group, mode: mode_t(order.mode))
        }
        // What failed last time is tried again, even for a file that is the same.
        if !order.hook.isEmpty, !isSame || entry.hookFault != nil {
            entry.hookFault = run(order.hook, place.path(of: order.name), isSame ? "unchanged" : "replaced")
        }
        try save(entry, order.name, place, &state)
        guard let file = describe(order.name, entry, place) else {
            throw PrivateFileRefusal("private-file-failed", "\(order.name) is not there after it was placed")
        }
        return .done([file], isChanged: !isSame)
    }

    private func remove(_ name: String, _ keeper: String, _ state: inout State) throws(PrivateFileRefusal) -> PrivateFileAnswer {
        try resume(&state)
        try expire(&state)
        guard let place = state.place, let entry = state.index.entries[name] else { return .done([], isChanged: false) }
        guard entry.keeper == keeper else {
            throw PrivateFileRefusal("private-file-foreign", "\(name) was placed by \(entry.keeper)")
        }
        try take(name, place, &state)
        runAfterEnd(name, entry, place, "removed")
        return .done([], isChanged: true)
    }

    private func list(_ keeper: String, _ state: State) -> [PrivateFileState] {
        guard let place = state.place else { return [] }
        return state.index.entries.filter { $0.value.keeper == keeper }.sorted { $0.key < $1.key }
            .compactMap { describe($0.key, $0.value, place) }
    }

    private func describe(_ name: String, _ entry: PrivateFileIndex.Entry, _ place: PrivateFilePlace) -> PrivateFileState? {
        guard let found = place.look(name) else { return nil }
        let now = now()
        return PrivateFileState(
            name: name, path: place.path(of: name), bytes: found.bytes, sha256: found.sha256, owner: entry.owner,
            mode: UInt16(found.mode), expiresInMilliseconds: entry.endsAt.map { $0 > now ? $0 - now : 0 },
            hookFault: entry.hookFault)
    }

    private func account(_ order: PrivateFileOrder) throws(PrivateFileRefusal) -> (name: String, user: uid_t, group: gid_t) {
        let account: UserAccount?
        var group: gid_t?
        do throws(SystemError) {
            if let owner = order.owner { account = try UserAccount.find(owner) } else { account = try UserAccount.current() }
            if let name = order.group { group = try UserGroup.find(name) }
        } catch { throw PrivateFileRefusal(error) }
        guard let account else { throw PrivateFileRefusal("private-file-owner", "this client has no user \(order.owner ?? "")") }
        if let name = order.group, group == nil {
            throw PrivateFileRefusal("private-file-owner", "this client has no group \(name)")
        }
        return (account.name, account.user, group ?? account.group)
    }

    // MARK: The end of files

    private func expire(_ state: inout State) throws(PrivateFileRefusal) {
        guard let place = state.place else { return }
        for name in state.index.expired(at: now()) {
            guard let entry = state.index.entries[name] else { continue }
            try take(name, place, &state)
            runAfterEnd(name, entry, place, "expired")
        }
    }

    private func take(_ name: String, _ place: PrivateFilePlace, _ state: inout State) throws(PrivateFileRefusal) {
        try place.remove(name)
        state.index.entries[name] = nil
        try place.writeIndex(state.index.serialized)
    }

    /// Programs hear that their file is gone, as they hear of a new one; nobody is left to be told how that went.
    private func runAfterEnd(_ name: String, _ entry: PrivateFileIndex.Entry, _ place: PrivateFilePlace, _ change: String) {
        guard !entry.hook.isEmpty, LocalPolicy.load(policyPath).allows(hook: entry.hook) else { return }
        _ = run(entry.hook, place.path(of: name), change)
    }

    private func run(_ hook: [String], _ path: String, _ change: String) -> String? {
        PrivateFileHookRun.run(hook, path: path, change: change).map { String($0.prefix(PrivateFileLimits.faultBytes)) }
    }

    private func save(
        _ entry: PrivateFileIndex.Entry, _ name: String, _ place: PrivateFilePlace, _ state: inout State
    ) throws(PrivateFileRefusal) {
        state.index.entries[name] = entry
        try place.writeIndex(state.index.serialized)
    }

    // MARK: The place

    /// The place that the policy names, or where files are already, or the best of the usual ones.
    private func openPlace(_ policy: LocalPolicy, _ state: inout State) throws(PrivateFileRefusal) -> PrivateFilePlace {
        try resume(&state)
        let wanted = policy.privateFiles.directory
        if let place = state.place {
            guard let wanted, wanted != place.path else { return place }
            // The owner of the machine wants them elsewhere: none stays behind.
            place.clear()
            state = State()
        }
        let place = try PrivateFilePlace.make(wanted.map { [$0] } ?? defaults)
        do throws(SystemError) { try AtomicFile.write(Array((place.path + "\n").utf8), to: pointerPath) } catch {
            throw PrivateFileRefusal(error)
        }
        try take(up: place, &state)
        return place
    }

    /// Finds the place of an earlier agent, if it is still there.
    private func resume(_ state: inout State) throws(PrivateFileRefusal) {
        guard state.place == nil else { return }
        let path: String
        do throws(SystemError) {
            guard let bytes = try Files.readIfPresent(pointerPath, limit: 4_096) else { return }
            path = String(decoding: bytes.prefix { $0 != 0x0A }, as: UTF8.self)
        } catch { throw PrivateFileRefusal(error) }
        guard Files.exists(path) else { return }
        try take(up: try PrivateFilePlace(path), &state)
    }

    private func take(up place: PrivateFilePlace, _ state: inout State) throws(PrivateFileRefusal) {
        let index = try place.readIndex().flatMap { PrivateFileIndex(parsing: $0) } ?? PrivateFileIndex()
        try place.sweep(except: Set(index.entries.keys))
        state.index = index
        // A file that is gone is not kept.
        state.index.entries = index.entries.filter { place.look($0.key) != nil }
        state.place = place
        try place.writeIndex(state.index.serialized)
    }
}

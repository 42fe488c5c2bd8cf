import Synchronization

/// Tells open streams that what opened them no longer holds: revoked, expired, or its roles were changed.
final class Revocations: Sendable {
    private struct State: ~Copyable {
        var next: UInt64 = 0
        var watchers: [String: [UInt64: @Sendable () -> Void]] = [:]
    }
    private let state = Mutex(State())

    func watch(_ credential: String, _ closed: @escaping @Sendable () -> Void) -> RevocationWatch {
        let number = state.withLock { state in
            state.next += 1
            state.watchers[credential, default: [:]][state.next] = closed
            return state.next
        }
        return RevocationWatch(self, credential, number)
    }

    func remove(_ credential: String, _ number: UInt64) {
        state.withLock { state in
            state.watchers[credential]?[number] = nil
            if state.watchers[credential]?.isEmpty == true { state.watchers[credential] = nil }
        }
    }

    /// Calls outside the lock: a handler may watch or unwatch.
    func tell(_ credentials: some Sequence<String>) {
        let handlers = state.withLock { state in
            credentials.flatMap { state.watchers.removeValue(forKey: $0).map { Array($0.values) } ?? [] }
        }
        for handler in handlers { handler() }
    }

    /// Credentials that have open streams.
    var watched: [String] { state.withLock { Array($0.watchers.keys) } }
}

/// Keeps a watch alive; letting go of it ends the watch.
public final class RevocationWatch: Sendable {
    private let owner: Revocations
    private let credential: String
    private let number: UInt64

    init(_ owner: Revocations, _ credential: String, _ number: UInt64) {
        self.owner = owner
        self.credential = credential
        self.number = number
    }

    deinit { owner.remove(credential, number) }
}

import Synchronization

/// The word that tells a holder whether its lease still holds: 1 or 0, read by plugins without any call.
///
/// `@unchecked Sendable`: the memory is never freed and only touched atomically.
struct LeaseWord: @unchecked Sendable {
    fileprivate let pointer: UnsafeMutablePointer<Atomic<UInt32>>

    func clear() { pointer.pointee.store(0, ordering: .releasing) }
    var isSet: Bool { pointer.pointee.load(ordering: .acquiring) != 0 }
    fileprivate func set() { pointer.pointee.store(1, ordering: .releasing) }

    /// What a lease carries: an aligned 32-bit word.
    var address: UnsafePointer<UInt32> { UnsafeRawPointer(pointer).assumingMemoryBound(to: UInt32.self) }
}

/// Words are never freed, because a holder may read one after it gave its lease back. One is used again only after at
/// least 4,096 others were, so that a late reader of an ended lease finds 0.
final class LeaseWords: Sendable {
    private struct State {
        var free: [LeaseWord] = []
        var next = 0
    }
    private let state = Mutex(State())
    static let rest = 4_096

    func take() -> LeaseWord {
        let word = state.withLock { state -> LeaseWord? in
            guard state.free.count - state.next > Self.rest else { return nil }
            defer {
                state.next += 1
                if state.next >= Self.rest {
                    state.free.removeFirst(state.next)
                    state.next = 0
                }
            }
            return state.free[state.next]
        }
        let taken = word ?? Self.make()
        taken.set()
        return taken
    }

    func give(_ word: LeaseWord) {
        word.clear()
        state.withLock { $0.free.append(word) }
    }

    private static func make() -> LeaseWord {
        let pointer = UnsafeMutablePointer<Atomic<UInt32>>.allocate(capacity: 1)
        pointer.initialize(to: Atomic(0))
        return LeaseWord(pointer: pointer)
    }
}

import AgentProtocol
import Synchronization

/// Somebody who sees what commands print before it is kept, and may overwrite it in place. The kernel does not know who.
public protocol OutputFilter: AnyObject, Sendable {
    /// Called on the loop of the client's link, without a lock; the window begins with what was held back the last time.
    /// - Returns: how many bytes at the window's end are to be shown again with what follows, at most
    ///   `OutputFilters.heldBytes`; `nil` or anything else: it could not do its work.
    func filter(_ piece: OutputFilterPiece, _ window: inout MutableSpan<UInt8>) -> Int?
}

/// Where a window stands.
public struct OutputFilterPiece: Sendable, Equatable {
    public let command: CommandID
    public let client: ClientID
    public let stream: OutputStream
    /// Of the window's first byte, in the stream as the program wrote it.
    public let offset: UInt64
    /// The stream has ended: nothing is held back any more.
    public let isLast: Bool
}

/// The filters that are there, by the id of their owner, and those that have to be there.
///
/// A command is bound to names when it is accepted (`names`), durably: its output passes all of them, or is kept as
/// asterisks. A filter's code may come, go and change meanwhile.
public final class OutputFilters: Sendable {
    /// What a filter may hold back of each stream.
    public static let heldBytes = 4_096

    private struct State: ~Copyable {
        /// Each owner's newest is the one that works: during an upgrade there are two, and the older one comes back when the
        /// newer one goes.
        var filters: [String: [any OutputFilter]] = [:]
        var required: Set<String> = []
        /// Sorted; made anew with each change.
        var names: [String] = []
        var isOpen = true
        var waiting: [UnsafeContinuation<Void, Never>] = []

        mutating func settle() { names = required.union(filters.keys).sorted() }
    }
    private let state = Mutex(State())

    public init() {}

    public func add(_ filter: any OutputFilter, of owner: String) {
        state.withLock { state in
            state.filters[owner, default: []].append(filter)
            state.settle()
        }
    }

    /// May be repeated.
    public func remove(_ filter: any OutputFilter, of owner: String) {
        state.withLock { state in
            guard var filters = state.filters[owner] else { return }
            filters.removeAll { $0 === filter }
            state.filters[owner] = filters.isEmpty ? nil : filters
            state.settle()
        }
    }

    /// Commands are bound to these from now on, whether they are there or not.
    func require(_ owners: [String]) {
        state.withLock { state in
            state.required = Set(owners)
            state.settle()
        }
    }

    /// What a command that is accepted now is bound to.
    var names: [String] { state.withLock { $0.names } }

    /// Required, and not there.
    var missing: [String] { state.withLock { state in state.required.filter { state.filters[$0] == nil }.sorted() } }

    func filter(of owner: String) -> (any OutputFilter)? { state.withLock { $0.filters[owner]?.last } }

    // MARK: Coming up, going down

    /// While filters come (the core starts) or go (it stops) no output that has to pass one is taken: its agent keeps it.
    var isOpen: Bool { state.withLock { $0.isOpen } }

    var waitingLinks: Int { state.withLock { $0.waiting.count } }

    public func close() { state.withLock { $0.isOpen = false } }

    public func open() {
        let waiting = state.withLock { state in
            state.isOpen = true
            defer { state.waiting = [] }
            return state.waiting
        }
        for continuation in waiting { continuation.resume() }
    }

    /// Returns when the filters are there, or will not come. One per link waits, at most.
    func whenOpen() async {
        await withUnsafeContinuation { (continuation: UnsafeContinuation<Void, Never>) in
            let isOpen = state.withLock { state in
                if !state.isOpen { state.waiting.append(continuation) }
                return state.isOpen
            }
            if isOpen { continuation.resume() }
        }
    }
}

extension Setting {
    public static let requiredOutputFilters = Setting(
        "required_output_filters", .strings(maximum: 16), initial: [],
        "ids of plugins whose filter the output of every new command has to pass; without it output is kept as asterisks")
}

import AgentProtocol

/// Follows one command: state changes and output, pulled at the watcher's own pace. A watcher that stops reading costs
/// its cursors and nothing else.
public struct CommandWatch: Sendable {
    public enum Item: Sendable {
        case output(ClientID, OutputStream, offset: UInt64, bytes: [UInt8])
        /// A new state; the output is not in it.
        case target(TargetView)
        case command(CommandID, isFinished: Bool, counts: OutcomeCounts, targetCount: Int)
    }

    private struct Cursor: Sendable {
        var read = StreamPair<UInt64>(0, 0)
        var state = ""
        var isDone = false
    }

    /// Targets that one watch can follow.
    public static let limit = 10_000
    /// Output in the items of one `next`.
    private static let roundBytes = 256 << 10

    private let commands: Commands
    private let detail: CommandDetail
    private let clients: [ClientID]
    private let withOutput: Bool
    private var cursors: [Cursor]
    /// Targets to look at, in turn.
    private var dirty: [Int]
    private var version: UInt64 = 0
    private var shownCounts: OutcomeCounts?
    /// Ended targets as read from the database, from index `pageStart` on.
    private var page: [TargetView] = []
    private var pageStart = 0
    private(set) public var isEnded = false

    init(
        _ commands: Commands, _ detail: CommandDetail, _ clients: [ClientID], withOutput: Bool,
        skip: [ClientID: StreamPair<UInt64>]
    ) {
        self.commands = commands
        self.detail = detail
        self.clients = clients
        self.withOutput = withOutput
        cursors = clients.map { Cursor(read: skip[$0] ?? StreamPair(0, 0)) }
        dirty = Array(clients.indices)
    }

    private var id: CommandID { detail.summary.id }

    /// How far the watcher has come with a client, for a later `skip`.
    public func position(of client: ClientID) -> StreamPair<UInt64>? {
        clients.firstIndex(of: client).map { cursors[$0].read }
    }

    /// The next items, a bounded number of them. Waits until there are some; empty when the time is over, or when
    /// `isEnded`.
    public mutating func next(waitMilliseconds: UInt64) async throws(Problem) -> [Item] {
        var items: [Item] = []
        var isFirstLook = version == 0
        while !isEnded {
            guard !commands.isStopped else {
                isEnded = true
                break
            }
            let news = commands.changes(of: id, after: version)
            if let news {
                version = news.version
                if !isFirstLook { dirty += news.targets.filter { !cursors[$0].isDone && !dirty.contains($0) } }
                if shownCounts != news.counts {
                    shownCounts = news.counts
                    items.append(.command(id, isFinished: false, counts: news.counts, targetCount: clients.count))
                }
            } else if dirty.isEmpty {
                dirty = cursors.indices.filter { !cursors[$0].isDone }
            }
            isFirstLook = false
            try await collect(isOver: news == nil, &items)
            if news == nil, dirty.isEmpty, cursors.allSatisfy(\.isDone) {
                isEnded = true
                let counts = try await commands.get(id).summary.counts
                items.append(.command(id, isFinished: true, counts: counts, targetCount: clients.count))
            }
            if !items.isEmpty { return items }
            if dirty.isEmpty, news != nil {
                guard await commands.change(of: id, after: version, milliseconds: waitMilliseconds) else { return [] }
            }
        }
        return items
    }

    private mutating func collect(isOver: Bool, _ items: inout [Item]) async throws(Problem) {
        var bytes = 0
        var next = 0
        var again: [Int] = []
        while next < dirty.count, bytes < Self.roundBytes, items.count < 512 {
            let index = dirty[next]
            next += 1
            if cursors[index].isDone { continue }
            let live = isOver ? nil : commands.present(id, index)
            if live == nil { try await load(index) }
            let source: OutputSource? = live.map { $0.output.map { .live($0) } } ?? page[index - pageStart].output.map { .kept($0) }
            var hasMore = false
            if withOutput, let source {
                for stream in OutputStream.allCases {
                    let piece = try await read(source, stream, index)
                    hasMore = hasMore || piece.count == 64 << 10
                    guard !piece.isEmpty else { continue }
                    bytes += piece.count
                    items.append(.output(clients[index], stream, offset: cursors[index].read[stream], bytes: piece))
                    cursors[index].read[stream] += UInt64(piece.count)
                }
            }
            if hasMore {
                again.append(index)
            } else if let live {
                if live.view.state != cursors[index].state {
                    cursors[index].state = live.view.state
                    items.append(.target(live.view))
                }
            } else if page[index - pageStart].end != nil {
                items.append(.target(page[index - pageStart]))
                cursors[index].isDone = true
            } else {
                // Between its end in the book and our look at the database.
                again.append(index)
                page = []
            }
        }
        dirty = Array(dirty[next...]) + again
    }

    private func read(
        _ source: OutputSource, _ stream: OutputStream, _ index: Int
    ) async throws(Problem) -> [UInt8] {
        do throws(Problem) {
            return try await commands.outputs.read(source, stream, at: cursors[index].read[stream], count: 64 << 10)
        } catch {
            guard error.status == 410 else { throw error }
            return []
        }
    }

    /// Makes `page` hold the target, with its neighbours: after a fan-out they end together.
    private mutating func load(_ index: Int) async throws(Problem) {
        if index >= pageStart, index - pageStart < page.count, page[index - pageStart].end != nil { return }
        page = try await commands.history.targets(detail, from: index, limit: 64, withOutput: true)
        pageStart = index
        guard !page.isEmpty else { throw Commands.unknown(id) }
    }
}

extension Commands {
    struct Changes: Sendable {
        var version: UInt64
        /// Indexes of targets that changed.
        var targets: [Int]
        var counts: OutcomeCounts
    }

    /// Watches the targets of a command.
    /// - Parameter skip: output that the watcher has already, by client.
    /// - Throws: 404; 422 `too-many-to-watch`.
    public func watch(
        _ id: CommandID, withOutput: Bool = true, skip: [ClientID: StreamPair<UInt64>] = [:]
    ) async throws(Problem) -> CommandWatch {
        let detail = try await get(id)
        guard detail.summary.targetCount <= CommandWatch.limit else {
            throw Problem(
                422, "too-many-to-watch",
                "the command has \(detail.summary.targetCount) targets, at most \(CommandWatch.limit) can be watched")
        }
        let views = try await history.targets(detail, from: 0, limit: CommandWatch.limit, withOutput: false)
        return CommandWatch(self, detail, views.map(\.client), withOutput: withOutput, skip: skip)
    }

    /// `nil` once the command has ended altogether.
    func changes(of id: CommandID, after version: UInt64) -> Changes? {
        state.withLock { state in
            guard let command = state.book.commands[id] else { return nil }
            let targets = command.version == version
                ? [] : command.targets.indices.filter { command.targets[$0].changed > version }
            return Changes(version: command.version, targets: targets, counts: command.recorded)
        }
    }

    /// An open target; `nil` when it, or the whole command, has ended.
    func present(_ id: CommandID, _ index: Int) -> (view: TargetView, output: LiveOutput?)? {
        state.withLock { state in
            guard let command = state.book.commands[id] else { return nil }
            let target = command.targets[index]
            if case .ended = target.machine.phase { return nil }
            return (Self.view(target), target.output)
        }
    }

    /// Suspends until the command is past `version`, has ended, or the time is over (then false).
    func change(of id: CommandID, after version: UInt64, milliseconds: UInt64) async -> Bool {
        guard milliseconds > 0 else { return false }
        let deadline = now() + milliseconds
        await withUnsafeContinuation { (continuation: UnsafeContinuation<Void, Never>) in
            let isOver = state.withLock { state in
                guard !state.isStopped, let command = state.book.commands[id], command.version == version else {
                    return true
                }
                state.book.watch(command, continuation, until: deadline)
                return false
            }
            if isOver { continuation.resume() }
        }
        return state.withLock { state in
            guard let command = state.book.commands[id] else { return true }
            return command.version != version
        }
    }
}

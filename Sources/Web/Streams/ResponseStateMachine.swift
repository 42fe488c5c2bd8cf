import Transport

/// What became of a piece that was given to an answer or a WebSocket.
public enum WriteOutcome: Sendable, Equatable {
    case accepted
    /// Not taken: too much waits for the peer. `drained` follows.
    case full
    /// Not taken: nobody reads any more.
    case gone
    /// Not taken: not begun, ended already, or more than the announced length.
    case misuse
}

/// One answer that is given from any thread: what may follow what, and what waits for the loop. A value without I/O.
struct ResponseStateMachine {
    /// Bytes on their way to the loop above which writes are refused.
    static let highMark = 256 << 10

    enum Phase: Equatable {
        case waiting
        /// `left` of the announced length is missing.
        case begun(left: UInt64?)
        /// The handler is done; the rest is the loop's.
        case ended
        /// The peer left, the time was over or the answer was given up.
        case over
    }

    enum Ending { case finish, abort }

    /// What the loop has to do, in this order.
    struct Work {
        var head: (status: Int, headers: HTTPHeaders, length: UInt64?)?
        var bytes: [UInt8] = []
        var ending: Ending?
        var isEmpty: Bool { head == nil && bytes.isEmpty && ending == nil }
    }

    private(set) var phase = Phase.waiting
    private var work = Work()
    private var isPosted = false
    private var socketIsFull = false
    private var wantsDrained = false

    /// False: it was begun before, is over, or is no final status.
    mutating func begin(_ status: Int, _ headers: HTTPHeaders, length: UInt64?) -> Bool {
        guard phase == .waiting, (200...599).contains(status) else { return false }
        phase = .begun(left: length)
        work.head = (status, headers, length)
        return true
    }

    mutating func write(_ bytes: RawSpan) -> WriteOutcome {
        switch phase {
        case .over: return .gone
        case .waiting, .ended: return .misuse
        case .begun(let left):
            if let left, UInt64(bytes.byteCount) > left { return .misuse }
            guard !socketIsFull, work.bytes.count < ResponseStateMachine.highMark else {
                wantsDrained = true
                return .full
            }
            bytes.withUnsafeBytes { work.bytes.append(contentsOf: $0) }
            phase = .begun(left: left.map { $0 - UInt64(bytes.byteCount) })
            return .accepted
        }
    }

    /// The whole answer. False: it was begun before, or is over.
    mutating func respond(_ status: Int, _ headers: HTTPHeaders, _ body: RawSpan) -> Bool {
        guard begin(status, headers, length: UInt64(body.byteCount)) else { return false }
        body.withUnsafeBytes { work.bytes.append(contentsOf: $0) }
        work.ending = .finish
        phase = .ended
        return true
    }

    /// False: there is nothing to finish. An answer shorter than announced is broken off instead, and that is misuse.
    mutating func finish() -> Bool {
        guard case .begun(let left) = phase else { return false }
        phase = .ended
        let isShort = (left ?? 0) > 0
        work.ending = isShort ? .abort : .finish
        return !isShort
    }

    mutating func abort() -> Bool {
        guard phase == .waiting || isBegun else { return false }
        phase = .ended
        work.ending = .abort
        return true
    }

    private var isBegun: Bool { if case .begun = phase { true } else { false } }
    var isWaiting: Bool { phase == .waiting }

    /// True when the loop must be told; once until it takes.
    mutating func needsPost() -> Bool {
        guard !isPosted, !work.isEmpty else { return false }
        isPosted = true
        return true
    }

    // MARK: The loop's side

    mutating func take() -> Work {
        isPosted = false
        defer { work = Work() }
        return work
    }

    /// The connection has what was taken. True when the handler waits to hear that it may write on.
    mutating func flushed(socketIsFull: Bool) -> Bool {
        self.socketIsFull = socketIsFull
        guard wantsDrained, !socketIsFull, isBegun, work.bytes.count < ResponseStateMachine.highMark else { return false }
        wantsDrained = false
        return true
    }

    /// A WebSocket takes the place of the answer. False: it was begun before, or is over.
    mutating func upgrade() -> Bool {
        guard phase == .waiting else { return false }
        phase = .ended
        return true
    }

    /// The peer left or the time is over. True when the handler has not ended its answer, and must hear of it.
    mutating func end() -> Bool {
        let isOpen = phase == .waiting || isBegun
        phase = .over
        work = Work()
        return isOpen
    }
}

/// An order for a program that somebody works with: on a terminal, or on a stream without one. It is sent once.
public struct TerminalOrder: Sendable, Equatable {
    public enum Form: UInt8, Sendable, CaseIterable {
        /// A pseudo terminal in a session of its own.
        case terminal = 1
        /// One socket as standard input, output and errors, which share one stream of output.
        case stream = 2
    }

    public var form: Form
    /// Program, user, directory, environment. An empty argument list is the user's login shell. Its command is the
    /// channel, its timeout the longest life, its grace the time from TERM to KILL; it has no script, no standard
    /// input and no output limit of its own.
    public var order: Order
    public var size: TerminalSize
    /// `TERM` of the program; empty on a stream.
    public var terminalType: String
    /// Of output that is kept at the agent, at most; the agent has a bound of its own.
    public var keptBytes: UInt64
    /// True: while nobody is attached the program runs on, and the oldest kept output makes room. False: it waits.
    public var isLossy: Bool
    /// Ends it when for this long no input has come; `nil` means no such limit.
    public var idleMilliseconds: UInt64?
    /// Ends it when for this long no core was connected. The agent has a bound of its own.
    public var orphanMilliseconds: UInt64

    public init(
        form: Form = .terminal, order: Order, size: TerminalSize = TerminalSize(rows: 24, columns: 80),
        terminalType: String = "xterm-256color", keptBytes: UInt64 = 1 << 20, isLossy: Bool = true,
        idleMilliseconds: UInt64? = nil, orphanMilliseconds: UInt64 = 24 * 3_600_000
    ) {
        self.form = form
        self.order = order
        self.size = size
        self.terminalType = terminalType
        self.keptBytes = keptBytes
        self.isLossy = isLossy
        self.idleMilliseconds = idleMilliseconds
        self.orphanMilliseconds = orphanMilliseconds
    }

    public var channel: ChannelID { ChannelID(sameAs: order.command) }
}

/// In characters.
public struct TerminalSize: Sendable, Equatable {
    public var rows: UInt16
    public var columns: UInt16

    public init(rows: UInt16, columns: UInt16) {
        self.rows = rows
        self.columns = columns
    }

    /// As the offset of a `resize` frame.
    var packed: UInt64 { UInt64(rows) | UInt64(columns) << 16 }

    init(packed: UInt64) throws(WireError) {
        guard packed >> 32 == 0 else { throw WireError(.malformed, "a size sets reserved bits") }
        rows = UInt16(truncatingIfNeeded: packed)
        columns = UInt16(truncatingIfNeeded: packed >> 16)
    }
}

/// What a person may send beside input, to the program in the foreground.
public enum TerminalSignal: UInt8, Sendable, CaseIterable {
    case hangUp = 1
    case interrupt = 2
    case quit = 3
    case kill = 9
    case user1 = 10
    case user2 = 12
    case terminate = 15
    case goOn = 18
    case stop = 19
}

/// What an agent says about one terminal after a (re)connect.
public struct TerminalReport: Sendable, Equatable {
    public var channel: ChannelID
    public var started: Started
    /// The oldest output that is kept, and the end of it. It may have grown since.
    public var keptFrom: UInt64
    public var outputEnd: UInt64
    /// Input that has arrived for good, and how much of it the program's terminal has taken.
    public var inputReceived: UInt64
    public var inputTaken: UInt64
    /// Set when it has ended.
    public var exit: ExitRecord?

    public init(
        channel: ChannelID, started: Started, keptFrom: UInt64, outputEnd: UInt64, inputReceived: UInt64,
        inputTaken: UInt64, exit: ExitRecord?
    ) {
        self.channel = channel
        self.started = started
        self.keptFrom = keptFrom
        self.outputEnd = outputEnd
        self.inputReceived = inputReceived
        self.inputTaken = inputTaken
        self.exit = exit
    }
}

extension ExitRecord {
    /// A terminal whose holder died, or that never had one: where its output ended is not known.
    public var hasLostOutput: Bool {
        switch outcome {
        case .interrupted, .refused, .startFailed: true
        case .exited, .signaled, .timedOut, .cancelled: false
        }
    }
}

/// The core's answer to one report.
public enum TerminalDecision: Sendable, Equatable {
    /// Goes on; output from this offset, or from the oldest that is kept.
    case attach(channel: ChannelID, from: UInt64)
    /// The core never knew it, or has its end: end it if it runs, and drop everything.
    case forget(channel: ChannelID)
    /// Goes on with nobody attached.
    case leave(channel: ChannelID)

    public var channel: ChannelID {
        switch self {
        case .attach(let channel, _), .forget(let channel), .leave(let channel): channel
        }
    }
}

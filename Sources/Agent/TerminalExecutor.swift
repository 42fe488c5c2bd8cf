import AgentProtocol

/// What runs the terminals of a session: the real one (holders with a pseudo terminal each) or the simulator's.
///
/// Everything here happens on the agent's loop. Terminals outlive the link; `linkLost` says that nobody reads now.
public protocol TerminalExecutor: AnyObject {
    /// Told of news; set by the session that is connected, `nil` while there is none.
    var observer: (any TerminalObserver)? { get set }

    /// Journals the order durably, then runs it, at most once. It counts as attached from offset 0.
    func start(_ order: TerminalOrder)
    /// Somebody reads from `offset`, or from the oldest output that is kept. Answered with `terminalAttached`.
    func attach(_ channel: ChannelID, from offset: UInt64)
    /// Nobody reads; a core is there.
    func detach(_ channel: ChannelID)
    /// Output may be given up to `offset`, after the first `WireLimits.initialWindowBytes`.
    func credit(_ channel: ChannelID, upTo offset: UInt64)
    /// The reader has the output below `offset`: its room may be used again.
    func arrived(_ channel: ChannelID, upTo offset: UInt64)
    /// Input that continues what has come before, within `WireLimits.inputWindowBytes` of what was taken.
    func input(_ channel: ChannelID, at offset: UInt64, _ bytes: RawSpan)
    func endInput(_ channel: ChannelID)
    func resize(_ channel: ChannelID, _ size: TerminalSize)
    func signal(_ channel: ChannelID, _ signal: TerminalSignal)
    /// Ends the program and everything that it started. Idempotent; unknown channels are ignored, here and above.
    func cancel(_ channel: ChannelID)
    /// The core has the end, or wants to know nothing of it: ended if it runs, and dropped.
    func forget(_ channel: ChannelID)

    /// Everything not yet forgotten, for the report after a (re)connect.
    func reports() -> [TerminalReport]
    /// The core is away until the next `attach` or `detach` of each channel.
    func linkLost()
    /// There is room again after `terminalOutput` answered false.
    func resumeOutput()
}

/// Called on the agent's loop, never from inside a call into the executor about the same channel.
public protocol TerminalObserver: AnyObject {
    func terminalStarted(_ channel: ChannelID, at unixMilliseconds: UInt64)
    /// Output begins at `offset`, in answer to the newest attach.
    func terminalAttached(_ channel: ChannelID, at offset: UInt64)
    /// Output that continues. False: no more until `resumeOutput`.
    func terminalOutput(_ channel: ChannelID, at offset: UInt64, _ bytes: RawSpan) -> Bool
    func terminalInputTaken(_ channel: ChannelID, upTo offset: UInt64)
    /// The record is durable at the agent before this is called; output that is kept may still follow.
    func terminalFinished(_ record: ExitRecord)
}

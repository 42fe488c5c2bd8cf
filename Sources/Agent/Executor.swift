import AgentProtocol

/// What runs orders for a session: the real one (holders, journal and spools on disk) or the simulator's.
///
/// Everything here happens on the agent's loop. The session asks for the bytes when it has credit (`read`), so an
/// executor never pushes output, and a slow link costs nothing but a file that grows to its bound.
public protocol Executor: AnyObject {
    /// Told of news; set by the session that is connected, `nil` while there is none.
    var observer: (any ExecutorObserver)? { get set }

    /// Journals the order durably, then runs it. An order whose command is already known is ignored (the observer is
    /// told its present state), so that a repeated order never starts twice.
    func start(_ order: Order)

    /// Ends the whole process group: TERM, then KILL after the order's grace. Idempotent; unknown commands are ignored.
    func cancel(_ command: CommandID)

    /// Everything not yet forgotten, for the report after a (re)connect.
    func reports() -> [ExecutionReport]

    /// Reads kept output from `offset` into the span's free space; returns the count, 0 at the present end.
    func read(
        _ command: CommandID, _ stream: OutputStream, at offset: UInt64, into buffer: inout OutputRawSpan
    ) -> Int

    /// The core has recorded the end: journal and spool may go.
    func forget(_ command: CommandID)
}

/// Called on the agent's loop, never from inside a call into the executor of the same command.
public protocol ExecutorObserver: AnyObject {
    func executionStarted(_ command: CommandID, at unixMilliseconds: UInt64)
    /// The stream now holds `length` bytes in all.
    func executionHasOutput(_ command: CommandID, _ stream: OutputStream, length: UInt64)
    /// The record is durable at the agent before this is called.
    func executionFinished(_ record: ExitRecord)
}

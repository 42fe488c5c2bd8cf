import AgentProtocol

/// What replaces the agent's program for a session: the real one or the simulator's.
///
/// Everything here happens on the agent's loop. There is at most one upgrade at a time, and the newest end of one is
/// kept until the core has it.
public protocol UpgradeExecutor: AnyObject {
    /// Told of news; set by the session that is connected, `nil` while there is none.
    var observer: (any UpgradeObserver)? { get set }

    /// Checks the release and asks for its file; refused ones end at once. One that is known is told again.
    func start(_ order: UpgradeOrder)
    /// The core will have no more of it: given up if its trial has not begun, dropped if it has ended.
    func forget(_ upgrade: UpgradeID)
    /// Bytes of the file. False: they are not what was asked for.
    func received(_ upgrade: UpgradeID, at offset: UInt64, _ bytes: RawSpan) -> Bool
    /// A link is accepted; `observer` is set. What is known is told, what is unfinished goes on.
    func linkUp()
    /// The link has ended.
    func linkLost()
}

/// Called on the agent's loop, never from inside a call into the executor.
public protocol UpgradeObserver: AnyObject {
    func upgradeReported(_ report: UpgradeReport)
    func upgradeWants(_ upgrade: UpgradeID, from offset: UInt64, count: UInt64)
}

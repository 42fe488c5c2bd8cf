import AgentProtocol

/// What keeps the private files of an agent: the real one (a directory in memory) or the simulator's.
///
/// On the agent's loop. Files outlive the link, and the agent itself.
public protocol PrivateFileExecutor: AnyObject {
    /// Does what the core asks; `reply` is called once, on the loop, perhaps before this returns.
    func handle(_ request: PrivateFileRequest, _ reply: @escaping (PrivateFileAnswer) -> Void)
}

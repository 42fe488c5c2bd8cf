import CPluginABI

/// State of the plugin's own thread in the hands of work that comes from another one: it may be carried anywhere, and
/// looked into only on the own thread.
///
/// Unchecked: `value` ends the process on any other thread, so two threads never see the state at once. What is released
/// elsewhere is only the reference.
public struct Confined<State>: @unchecked Sendable {
    private let state: State
    private let executor: Executor

    public init(_ state: State, on executor: Executor) {
        self.state = state
        self.executor = executor
    }

    public var value: State {
        precondition(executor.isOwnThread, "state of the plugin's own thread is looked into on another one")
        return state
    }
}

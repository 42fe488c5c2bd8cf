/// A state machine that a test holds on to: `#expect` takes no call that changes a value.
@dynamicMemberLookup
final class Held<State> {
    private(set) var state: State
    init(_ state: State) { self.state = state }
    subscript<Value>(dynamicMember path: KeyPath<State, Value>) -> Value { state[keyPath: path] }
}

extension Held where State == DeliveryStateMachine {
    func next(now: UInt64) -> DeliveryStateMachine.Step? { state.next(now: now) }
    @discardableResult func want(_ version: Int?) -> Bool { state.want(version) }
    func confirmed(_ version: Int, hookFault: String?, now: UInt64) { state.confirmed(version, hookFault: hookFault, now: now) }
    func failed(_ code: String, _ reason: String, now: UInt64) { state.failed(code, reason, now: now) }
    func lost(now: UInt64) { state.lost(now: now) }
    func removed() { state.removed() }
    func refresh() { state.refresh() }
}

extension Held where State == RotationStateMachine {
    func look(_ standing: Standing, now: UInt64) -> RotationStateMachine.Action? { state.look(standing, now: now) }
    @discardableResult func cancel(now: UInt64) -> RotationStateMachine.Action? { state.cancel(now: now) }
}

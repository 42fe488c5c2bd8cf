import Reactor
import Synchronization

/// A version on its way out: requests that it accepted end, leases come back, then it stops. Advanced by the control thread,
/// which waits for none of them.
final class Retirement {
    enum Stage { case requests, leases, stopping, done }
    static let requestMilliseconds = 10_000

    let instance: PluginInstance
    /// Fenced ones skip what needs their thread.
    let isFenced: Bool
    private(set) var stage = Stage.requests
    private var deadline: Deadline
    private let hasStopped = StopFlag()
    /// Ids of plugins that kept leases until they were revoked.
    private(set) var heldUntilRevoked: [String] = []
    private(set) var isStuck = false

    init(_ instance: PluginInstance, isFenced: Bool) {
        self.instance = instance
        self.isFenced = isFenced
        deadline = Deadline(milliseconds: isFenced ? 0 : Self.requestMilliseconds)
    }

    /// True when it is over.
    func advance() -> Bool {
        if stage == .requests, instance.underway.load(ordering: .acquiring) == 0 || deadline.millisecondsLeft == 0 {
            instance.environment.services.withdraw(instance)
            stage = .leases
            deadline = Deadline(milliseconds: isFenced ? 0 : instance.environment.callMilliseconds)
        }
        if stage == .leases {
            if !instance.environment.services.isHeld(instance) || deadline.millisecondsLeft == 0 {
                heldUntilRevoked = instance.environment.services.revoke(of: instance)
                stage = .stopping
                deadline = Deadline(milliseconds: instance.environment.callMilliseconds)
                if !isFenced { instance.beginStop { [hasStopped] in hasStopped.set() } }
            }
        }
        if stage == .stopping {
            if isFenced {
                stage = .done
            } else if hasStopped.isSet {
                instance.end(as: .stopped)
                stage = .done
            } else if deadline.millisecondsLeft == 0 {
                isStuck = true
                instance.end(as: .fenced)
                stage = .done
            }
        }
        return stage == .done
    }
}

private final class StopFlag: Sendable {
    private let flag = Atomic<Bool>(false)
    func set() { flag.store(true, ordering: .releasing) }
    var isSet: Bool { flag.load(ordering: .acquiring) }
}

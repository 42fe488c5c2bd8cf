/// Lets one task wait for events of its own loop. Confined to the loop.
public final class LoopSignal {
    private var waiter: UnsafeContinuation<Void, Never>?

    public init() {}

    /// Wakes the waiting task, if one waits.
    public func wake() {
        let waiter = waiter
        self.waiter = nil
        waiter?.resume()
    }

    /// Waits for the next `wake`, unless `isReady` already holds. The check stands inside the continuation, because
    /// events of the loop may run between the caller's own check and the suspension.
    public func wait(unless isReady: () -> Bool) async {
        await withUnsafeContinuation { (continuation: UnsafeContinuation<Void, Never>) in
            if isReady() { continuation.resume() } else { waiter = continuation }
        }
    }
}

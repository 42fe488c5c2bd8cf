import CLinux
import Glibc

/// Process signals as events of a loop.
public final class Signals: Source {
    private let handler: (Int32) -> Void

    /// Call it on the main thread before any other thread starts: threads inherit the mask.
    public static func block(_ signals: [Int32]) { _ = cm_signals_block(signals, signals.count) }

    /// On the loop; add it to the loop afterwards. The signals must have been blocked.
    public init(_ signals: [Int32], handler: @escaping (Int32) -> Void) throws(ReactorError) {
        let descriptor = cm_signals_descriptor(signals, signals.count)
        guard descriptor >= 0 else { throw ReactorError(call: "signalfd", errno: -descriptor) }
        self.handler = handler
        super.init(descriptor: descriptor)
    }

    deinit { close(descriptor) }

    public override func ready(_ readiness: Readiness) {
        while true {
            let signal = cm_signals_next(descriptor)
            guard signal > 0 else { return }
            handler(signal)
        }
    }
}

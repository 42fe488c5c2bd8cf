import Reactor
import System

/// The one thread on which plugins come and go: it may wait for them, which a loop may not.
final class ControlThread: Sendable {
    private struct Mailbox {
        var waiting: [@Sendable () -> Void] = []
        var isStopping = false
        var hasEnded = false
    }
    private let mailbox = Monitor(Mailbox())

    /// - Parameter tick: called after work and then after as many milliseconds as it says; `nil`: when there is work.
    init(name: String, tick: @escaping @Sendable () -> Int?) throws(SystemError) {
        try NativeThread.start(name: name) { [mailbox] in
            var pause: Int?
            while true {
                let deadline = pause.map { Deadline(milliseconds: $0).nanoseconds }
                let work: [@Sendable () -> Void]? = mailbox.wait(until: deadline) { box in
                    if !box.waiting.isEmpty {
                        defer { box.waiting = [] }
                        return box.waiting
                    }
                    return box.isStopping ? [] : nil
                }
                if let work, work.isEmpty { break }
                for item in work ?? [] { item() }
                pause = tick()
            }
            mailbox.update { $0.hasEnded = true }
        }
    }

    func post(_ work: @escaping @Sendable () -> Void) {
        mailbox.update { box in
            if !box.isStopping { box.waiting.append(work) }
        }
    }

    /// Runs `work` there and gives its result to the waiting task.
    func run<Result: Sendable>(_ work: @escaping @Sendable () -> Result) async -> Result? {
        await withUnsafeContinuation { continuation in
            let isTaken = mailbox.update { box in
                guard !box.isStopping else { return false }
                box.waiting.append { continuation.resume(returning: work()) }
                return true
            }
            if !isTaken { continuation.resume(returning: nil) }
        }
    }

    /// What was posted still runs. Blocks: not on a loop.
    func stop() {
        mailbox.update { $0.isStopping = true }
        _ = mailbox.wait { $0.hasEnded ? true : nil }
    }
}

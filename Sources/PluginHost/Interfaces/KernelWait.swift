import CPluginABI
import Kernel
import Reactor
import System

extension PluginInstance {
    /// Less than what the watchdog gives a callback: a slow disk is not the plugin's fault.
    private var kernelMilliseconds: Int { environment.callMilliseconds * 5 / 6 }

    /// Runs the kernel's asynchronous work on the host's loop and holds the plugin's thread until it is done: the one way in
    /// which functions marked [wait] wait. Never on a loop; `hostCall` has seen to that.
    /// - Throws: what `work` throws; 504 `plugin-wait`, and then nobody knows yet whether it was done.
    func waitForKernel<Value: Sendable>(
        _ work: @escaping @Sendable () async throws(Problem) -> Value
    ) throws(Problem) -> Value {
        let answer = Monitor<Result<Value, Problem>?>(nil)
        environment.loop.spawn {
            let result: Result<Value, Problem>
            do throws(Problem) {
                result = .success(try await work())
            } catch {
                result = .failure(error)
            }
            answer.update { $0 = result }
        }
        let result = answer.wait(until: Deadline(milliseconds: kernelMilliseconds).nanoseconds) { $0 }
        guard let result else {
            throw Problem(
                504, "plugin-wait",
                "the core did not get to it within \(kernelMilliseconds) ms; it may still be done")
        }
        return try result.get()
    }
}

/// Runs `body`, whose refusals become the status and the caller's error.
func answering(
    _ error: UnsafeMutablePointer<cm_error>?, _ body: () throws(Problem) -> cm_status
) -> cm_status {
    do throws(Problem) {
        return try body()
    } catch let problem {
        return error.set(problem)
    }
}

extension Problem {
    /// A text that a plugin passed is too long, is not UTF-8 or holds a NUL.
    static func text(_ name: String, atMost bytes: Int) -> Problem {
        Problem(400, "plugin-argument", "`\(name)` must be UTF-8 without NUL, of at most \(bytes) bytes")
    }
}

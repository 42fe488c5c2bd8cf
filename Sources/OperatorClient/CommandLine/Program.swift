import Glibc
import Program
import Reactor
import Synchronization

extension Cmctl {
    /// Runs the whole program on a loop of its own; the calling thread waits.
    public static func main(arguments: [String]) -> Int32 {
        // Ctrl-C becomes an event of the loop; writing to a closed pipe an error of `write`.
        Signals.block([SIGINT, SIGTERM])
        signal(SIGPIPE, SIG_IGN)
        let result = Result()
        let loop: EventLoop
        do throws(ReactorError) {
            loop = try EventLoop.start(name: "cmctl")
        } catch {
            StandardConsole(environment: [:]).complain("cmctl: \(error)")
            return Outcome.remoteFailure.rawValue
        }
        withExtendedLifetime(loop) {
            loop.spawn {
                let outcome = await runOnLoop(arguments, loop)
                result.status.withLock { $0 = outcome.rawValue }
                loop.stop()
            }
            loop.join()
        }
        return result.status.withLock { $0 }
    }

    private final class Result: Sendable {
        let status = Mutex<Int32>(Outcome.remoteFailure.rawValue)
    }

    private static func runOnLoop(_ arguments: [String], _ loop: EventLoop) async -> Outcome {
        let environment = Environment.current()
        let console = StandardConsole(environment: environment)
        let interrupts = Interrupts()
        do throws(ReactorError) {
            let signals = try Signals([SIGINT, SIGTERM]) { _ in
                // Nobody is in the middle of something that wants an orderly end.
                if !interrupts.raise() { exit(Outcome.remoteFailure.rawValue) }
            }
            try loop.add(signals)
        } catch {
            console.complain("cmctl: \(error)")
            return .remoteFailure
        }
        let cmctl = Cmctl(
            console: console, environment: environment, interrupts: interrupts,
            pause: { await loop.sleep(milliseconds: $0) },
            connect: { (choice) throws(OperatorError) in try NetworkTransport(choice) })
        return await cmctl.run(arguments)
    }
}

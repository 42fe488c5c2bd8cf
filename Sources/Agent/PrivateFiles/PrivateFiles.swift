import AgentProtocol
import JSON
import Program
import Reactor
import System

/// The private files of a real agent, confined to its loop: hands each request to one thread of its own, and removes what
/// has ended, whether a core is there or not.
public final class PrivateFiles: PrivateFileExecutor {
    /// Requests that wait: the core has a few on their way at a time.
    private static let waiting = 64
    private static let mostBytes = 4 << 20
    /// A timer that is far away is looked at again: the clock of the loop stops while the machine sleeps.
    private static let longestWait: UInt64 = 60_000

    private let loop: EventLoop
    private let keeper: PrivateFileKeeper
    /// Made with the first piece of work: an agent without private files has no thread for them.
    private lazy var thread = BlockingPool(name: "agent-private", threads: 1, queue: Self.waiting)
    private var waitingBytes = 0
    private let log: Log?
    private var timer: Timer?

    /// On the loop. What an earlier agent left is looked at soon.
    /// - Parameter directory: the agent's data directory `A`.
    public init(directory: String, on loop: EventLoop, log: Log? = nil) {
        self.loop = loop
        self.log = log
        keeper = PrivateFileKeeper(directory: directory)
        if keeper.hasPlace { submit { $0.begin() } }
    }

    public func handle(_ request: PrivateFileRequest, _ reply: @escaping (PrivateFileAnswer) -> Void) {
        loop.assertCurrent()
        var bytes = 0
        if case .put(_, let content) = request { bytes = content.count }
        let keeper = keeper
        let answered = Confined(Reply(reply), on: loop)
        let me = Confined(self, on: loop)
        let taken = waitingBytes + bytes <= Self.mostBytes && thread.submit { [bytes] in
            let answer = keeper.handle(request)
            answered.post { $0.body(answer) }
            me.post { files in
                files.waitingBytes -= bytes
                files.note(request, answer)
                files.arm()
            }
        }
        if taken {
            waitingBytes += bytes
        } else {
            reply(.refused(code: "private-file-busy", message: "\(Self.waiting) requests for private files wait on this client"))
        }
    }

    /// Something that is only looked into on the loop.
    private final class Reply {
        let body: (PrivateFileAnswer) -> Void
        init(_ body: @escaping (PrivateFileAnswer) -> Void) { self.body = body }
    }

    private func note(_ request: PrivateFileRequest, _ answer: PrivateFileAnswer) {
        switch (request, answer) {
        case (.put(let order, _), .done(_, isChanged: true)):
            log?.info("private-file.placed", ["name": .string(order.name), "keeper": .string(order.keeper)])
        case (.remove(let name, let keeper), .done(_, isChanged: true)):
            log?.info("private-file.removed", ["name": .string(name), "keeper": .string(keeper)])
        case (.put(let order, _), .refused(let code, let message)):
            log?.warning("private-file.refused", ["name": .string(order.name), "code": .string(code), "message": .string(message)])
        default: break
        }
    }

    private func submit(_ work: @escaping @Sendable (PrivateFileKeeper) -> PrivateFileRefusal?) {
        let keeper = keeper
        let me = Confined(self, on: loop)
        let taken = thread.submit {
            let refusal = work(keeper)
            me.post { files in
                if let refusal {
                    files.log?.warning(
                        "private-file.failed", ["code": .string(refusal.code), "message": .string(refusal.message)])
                }
                files.arm(atLeast: refusal == nil ? 0 : 5_000)
            }
        }
        if !taken { arm(atLeast: 1_000) }
    }

    /// - Parameter least: milliseconds, so that a failure is not tried again at once for ever.
    private func arm(atLeast least: UInt64 = 0) {
        guard let end = keeper.nextEnd else { return }
        let now = PrivateFileIndex.now()
        let delay = min(max(end > now ? end - now + 1 : 1, least), Self.longestWait)
        let timer = self.timer ?? Timer { [weak self] in self?.submit { $0.expire() } }
        self.timer = timer
        loop.schedule(timer, afterMilliseconds: delay)
    }
}

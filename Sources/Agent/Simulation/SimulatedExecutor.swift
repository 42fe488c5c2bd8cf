import AgentProtocol
import Reactor

/// Runs orders in memory: a program that prints its arguments and ends with 0. For load, not for work.
///
/// A few first arguments mean something else, so that a test can ask for more: `bytes N` prints N bytes that depend on
/// their offset, `printenv NAME` prints a variable, `exit N` ends with N, `sleep MS` ends after that time (`cancel` ends it sooner).
public final class SimulatedExecutor: Executor {
    public weak var observer: (any ExecutorObserver)?
    public private(set) var started = 0
    /// Nothing runs, and the core has acknowledged everything.
    public var isIdle: Bool { executions.isEmpty }

    private struct Execution {
        var command: CommandID
        var text: [UInt8]
        /// Length of the output; more than `text` for `bytes N`.
        var length: UInt64
        var startedAt: UInt64
        var exit: ExitRecord?
    }

    private let loop: EventLoop
    private let delayMilliseconds: () -> UInt64
    private var executions: [Execution] = []
    private var news: [CommandID] = []

    /// - Parameter delayMilliseconds: asked once per order; how long a slow machine takes over it.
    public init(loop: EventLoop, delayMilliseconds: @escaping () -> UInt64 = { 0 }) {
        self.loop = loop
        self.delayMilliseconds = delayMilliseconds
    }

    /// The byte at an offset of what `bytes N` prints.
    public static func byte(at offset: UInt64) -> UInt8 { UInt8(truncatingIfNeeded: offset &* 31 &+ offset >> 8) }

    public func start(_ order: Order) {
        guard index(of: order.command) == nil else { return }
        started += 1
        var arguments: [String]
        switch order.invocation {
        case .argv(let list): arguments = list
        case .shell(let text): arguments = [text]
        case .script(_, let body, let list): arguments = [String(decoding: body, as: UTF8.self)] + list
        }
        var length: UInt64?
        var code: Int32 = 0
        var delay = delayMilliseconds()
        if arguments.count == 2, let number = UInt64(arguments[1]) {
            switch arguments[0] {
            case "bytes":
                length = min(number, order.outputLimitBytes)
                arguments = []
            case "exit": code = Int32(truncatingIfNeeded: number)
            case "sleep": delay = min(number, 3_600_000)
            default: break
            }
        }
        if arguments.count == 2, arguments[0] == "printenv" {
            arguments = [order.secretEnvironment[arguments[1]] ?? order.environment[arguments[1]] ?? ""]
        }
        let text = length == nil ? Array((arguments.joined(separator: " ") + "\n").utf8) : []
        let now = unixMilliseconds()
        let record = ExitRecord(
            command: order.command, outcome: .exited(code: code), started: .yes, startedAt: now, finishedAt: now,
            durationMicroseconds: delay * 1_000, standardOutputBytes: length ?? UInt64(text.count))
        executions.append(
            Execution(
                command: order.command, text: text, length: length ?? UInt64(text.count), startedAt: now,
                exit: delay == 0 ? record : nil))
        if delay == 0 {
            tellSoon(order.command)
        } else {
            let me = Confined(self, on: loop)
            loop.schedule(Timer { me.assumeOnLoop { $0.end(record) } }, afterMilliseconds: delay)
            tellSoon(order.command)
        }
    }

    private func index(of command: CommandID) -> Int? { executions.lastIndex { $0.command == command } }

    private func end(_ record: ExitRecord) {
        guard let index = index(of: record.command), executions[index].exit == nil else { return }
        executions[index].exit = record
        tellSoon(record.command)
    }

    /// Never from inside `start`: news come on their own, once for all of a turn.
    private func tellSoon(_ command: CommandID) {
        news.append(command)
        guard news.count == 1 else { return }
        let me = Confined(self, on: loop)
        loop.post { me.assumeOnLoop { $0.tell() } }
    }

    private func tell() {
        let news = news
        self.news.removeAll(keepingCapacity: true)
        guard let observer else { return }
        for command in news {
            guard let index = index(of: command) else { continue }
            let execution = executions[index]
            if let exit = execution.exit {
                observer.executionFinished(exit)
            } else {
                observer.executionStarted(command, at: execution.startedAt)
                observer.executionHasOutput(command, .standardOutput, length: execution.length)
            }
        }
    }

    public func cancel(_ command: CommandID) {
        guard let index = index(of: command) else { return }
        end(
            ExitRecord(
                command: command, outcome: .cancelled, started: .yes, startedAt: executions[index].startedAt,
                finishedAt: unixMilliseconds(), standardOutputBytes: executions[index].length))
    }

    public func reports() -> [ExecutionReport] {
        executions.map {
            ExecutionReport(
                command: $0.command, started: .yes, standardOutputBytes: $0.length, standardErrorBytes: 0,
                exit: $0.exit)
        }
    }

    public func read(
        _ command: CommandID, _ stream: OutputStream, at offset: UInt64, into buffer: inout OutputRawSpan
    ) -> Int {
        guard stream == .standardOutput, let index = index(of: command), offset < executions[index].length else {
            return 0
        }
        let count = Int(min(UInt64(buffer.freeCapacity), executions[index].length - offset))
        if executions[index].text.isEmpty {
            for step in 0..<UInt64(count) { buffer.append(Self.byte(at: offset + step)) }
        } else {
            for byte in executions[index].text[Int(offset)..<Int(offset) + count] { buffer.append(byte) }
        }
        return count
    }

    public func forget(_ command: CommandID) {
        guard let index = index(of: command) else { return }
        executions.remove(at: index)
        if executions.isEmpty { executions = [] }
    }
}

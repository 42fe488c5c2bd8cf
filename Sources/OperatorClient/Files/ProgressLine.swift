import Reactor

/// Shows a `ProgressStateMachine` on standard error, where that is a terminal: one line, drawn over at most ten times a
/// second, gone or ended with a line break when it is over.
final class ProgressLine {
    private let console: any Console
    private var machine: ProgressStateMachine
    private var nextDrawing: UInt64 = 0
    private var isShown = false

    init(_ console: any Console, _ name: String, total: UInt64?, done: UInt64 = 0) {
        self.console = console
        machine = ProgressStateMachine(name, total: total, done: done, now: Self.now)
    }

    private static var now: UInt64 { monotonicNanoseconds() / 1_000_000 }

    func moved(to done: UInt64, total: UInt64? = nil) {
        if let total { machine.total = total }
        let now = Self.now
        machine.moved(to: done, now: now)
        guard console.errorIsTerminal, now >= nextDrawing else { return }
        nextDrawing = now + 100
        draw()
    }

    /// Leaves the last state on the screen.
    func finish() {
        guard console.errorIsTerminal else { return }
        draw()
        console.write(Array("\n".utf8), toError: true)
        isShown = false
    }

    /// Takes the line away: something else is about to be said.
    func clear() {
        guard isShown else { return }
        console.write(Array("\r\u{1B}[K".utf8), toError: true)
        isShown = false
    }

    private func draw() {
        console.write(Array(("\r" + Table.printable(machine.line(width: max(20, console.columns - 1))) + "\u{1B}[K").utf8), toError: true)
        isShown = true
    }
}

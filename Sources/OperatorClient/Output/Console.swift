import Glibc

/// Where `cmctl` writes and what it knows of the terminal. Writing blocks, as it should: a pager that stops stops `cmctl`.
public protocol Console: AnyObject {
    func write(_ bytes: [UInt8], toError: Bool)
    var outputIsTerminal: Bool { get }
    var errorIsTerminal: Bool { get }
    /// Character columns of the terminal.
    var columns: Int { get }
    var usesColour: Bool { get }
    /// Asks without echo; `nil` when there is no terminal to ask on.
    func secret(_ prompt: String) -> String?
    /// All of standard input, at most `limit` bytes.
    func readInput(limit: Int) -> [UInt8]
    /// Keys as they are typed, without echo and signals, on the calling loop; `nil` when standard input is no terminal.
    func keyboard(_ typed: @escaping ([UInt8]) -> Void) -> (any Keyboard)?
    var windowSize: (rows: Int, columns: Int) { get }
}

/// A terminal in raw mode.
public protocol Keyboard: AnyObject {
    /// As it was before. May be called twice.
    func restore()
}

extension Console {
    public func keyboard(_ typed: @escaping ([UInt8]) -> Void) -> (any Keyboard)? { nil }
    public var windowSize: (rows: Int, columns: Int) { (24, columns) }
    func print(_ text: String) { write(Array((text + "\n").utf8), toError: false) }
    func complain(_ text: String) { write(Array((text + "\n").utf8), toError: true) }
}

/// The process's own standard streams.
public final class StandardConsole: Console {
    public let outputIsTerminal = isatty(STDOUT_FILENO) == 1
    public let errorIsTerminal = isatty(STDERR_FILENO) == 1
    public let usesColour: Bool

    /// https://no-color.org
    public init(environment: [String: String]) {
        usesColour = isatty(STDOUT_FILENO) == 1 && environment["NO_COLOR", default: ""].isEmpty && environment["TERM"] != "dumb"
    }

    public var columns: Int {
        var size = winsize()
        for descriptor in [STDOUT_FILENO, STDERR_FILENO] where ioctl(descriptor, UInt(TIOCGWINSZ), &size) == 0 {
            if size.ws_col > 0 { return Int(size.ws_col) }
        }
        return 80
    }

    public var windowSize: (rows: Int, columns: Int) {
        var size = winsize()
        for descriptor in [STDIN_FILENO, STDOUT_FILENO] where ioctl(descriptor, UInt(TIOCGWINSZ), &size) == 0 {
            if size.ws_row > 0, size.ws_col > 0 { return (Int(size.ws_row), Int(size.ws_col)) }
        }
        return (24, 80)
    }

    public func keyboard(_ typed: @escaping ([UInt8]) -> Void) -> (any Keyboard)? { RawKeyboard(typed) }

    public func write(_ bytes: [UInt8], toError: Bool) {
        let descriptor = toError ? STDERR_FILENO : STDOUT_FILENO
        var offset = 0
        while offset < bytes.count {
            let count = bytes.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress?.advanced(by: offset), $0.count - offset) }
            if count > 0 { offset += count } else if errno != EINTR && errno != EAGAIN { return }
        }
    }

    public func secret(_ prompt: String) -> String? {
        let terminal = open("/dev/tty", O_RDWR | O_CLOEXEC)
        guard terminal >= 0 else { return nil }
        defer { close(terminal) }
        var mode = termios()
        guard tcgetattr(terminal, &mode) == 0 else { return nil }
        var silent = mode
        silent.c_lflag &= ~tcflag_t(ECHO)
        tcsetattr(terminal, TCSAFLUSH, &silent)
        defer {
            tcsetattr(terminal, TCSAFLUSH, &mode)
            _ = Glibc.write(terminal, "\n", 1)
        }
        let question = Array((prompt + ": ").utf8)
        _ = Glibc.write(terminal, question, question.count)
        var answer: [UInt8] = []
        var byte: UInt8 = 0
        while answer.count < 1024, Glibc.read(terminal, &byte, 1) == 1, byte != 0x0A { answer.append(byte) }
        return String(decoding: answer, as: UTF8.self)
    }

    public func readInput(limit: Int) -> [UInt8] {
        var bytes: [UInt8] = []
        var block = [UInt8](repeating: 0, count: 64 << 10)
        while bytes.count < limit {
            let count = Glibc.read(STDIN_FILENO, &block, min(block.count, limit - bytes.count))
            if count < 0, errno == EINTR { continue }
            if count <= 0 { break }
            bytes += block[..<count]
        }
        return bytes
    }
}

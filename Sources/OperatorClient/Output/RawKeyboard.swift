import Glibc
import Reactor
import System

/// Standard input in raw mode. A thread of its own reads it, because its descriptor is shared with the shell that started
/// us and must stay blocking; what it reads goes to the loop.
final class RawKeyboard: Keyboard {
    private var mode = termios()
    private var isRaw = false

    init?(_ typed: @escaping ([UInt8]) -> Void) {
        guard let loop = EventLoop.current, isatty(STDIN_FILENO) == 1, tcgetattr(STDIN_FILENO, &mode) == 0 else { return nil }
        var raw = mode
        cfmakeraw(&raw)
        guard tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) == 0 else { return nil }
        isRaw = true
        let receiver = Confined(typed, on: loop)
        do throws(SystemError) {
            // Ends with the process: a read of a terminal cannot be taken back.
            try NativeThread.start(name: "keyboard") {
                var block = [UInt8](repeating: 0, count: 4_096)
                while true {
                    let count = read(STDIN_FILENO, &block, block.count)
                    if count < 0, errno == EINTR { continue }
                    guard count > 0 else { return }
                    let bytes = Array(block[..<count])
                    receiver.post { $0(bytes) }
                }
            }
        } catch {
            restore()
            return nil
        }
    }

    func restore() {
        guard isRaw else { return }
        isRaw = false
        tcsetattr(STDIN_FILENO, TCSADRAIN, &mode)
    }

    deinit { restore() }
}

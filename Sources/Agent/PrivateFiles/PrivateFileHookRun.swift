import AgentProtocol
import Glibc
import System

/// Does what a hook says. Blocks, 30 s at most. Nothing of a file's content comes near it.
enum PrivateFileHookRun {
    static let milliseconds: Int32 = 30_000

    /// - Returns: why it did not do its work; `nil`: it did.
    static func run(_ words: [String], path: String, change: String) -> String? {
        switch PrivateFileHook(words) {
        case nil: return "the hook has no known form"
        case .reload(let unit): return systemctl(["reload", "--", unit])
        case .restart(let unit): return systemctl(["restart", "--", unit])
        case .signal(let signal, let target) where target.hasPrefix("/"): return kill(target, Int32(signal.rawValue))
        case .signal(let signal, let unit):
            return systemctl(["kill", "--signal=\(signal.rawValue)", "--", unit])
        case .run(let arguments):
            return spawn(arguments, ["CM_PRIVATE_FILE": path, "CM_PRIVATE_FILE_CHANGE": change])
        }
    }

    private static func systemctl(_ arguments: [String]) -> String? {
        guard Files.exists("/run/systemd/system") else { return "systemd does not run on this client" }
        return spawn(["systemctl"] + arguments, [:])
    }

    private static func spawn(_ arguments: [String], _ environment: [String: String]) -> String? {
        guard let program = arguments.first else { return "nothing to run" }
        var spawn = Spawn(program: program, arguments: arguments)
        spawn.environment = environment
        spawn.environment["PATH"] = spawn.searchPath
        spawn.directory = "/"
        do {
            let child = try spawn.start()
            var item = pollfd(fd: child.descriptor.number, events: Int16(POLLIN), revents: 0)
            var ready: Int32 = 0
            repeat { ready = poll(&item, 1, milliseconds) } while ready < 0 && errno == EINTR
            guard ready > 0 else {
                child.signalGroup(SIGKILL)
                _ = poll(&item, 1, 5_000)
                _ = try child.reap()
                return "\(program) took longer than \(milliseconds / 1_000) s"
            }
            switch try child.reap()?.how {
            case .exited(0): return nil
            case .exited(let code): return "\(program) ended with \(code)"
            case .signaled(let signal): return "\(program) ended by signal \(signal)"
            case nil: return "\(program) did not end"
            }
        } catch let error as SpawnError {
            return "\(program) did not start: \(error)"
        } catch { return "\(program): \(error)" }
    }

    /// The number in the file is trusted as far as who can write it: root or the agent's user.
    private static func kill(_ path: String, _ signal: Int32) -> String? {
        do throws(SystemError) {
            let status = try Files.status(path)
            guard status.kind == .file, status.owner == 0 || status.owner == geteuid(), status.mode & 0o022 == 0 else {
                return "\(path) is no file that only root or the agent's user may write"
            }
            let text = String(decoding: try Files.read(path, limit: 64).prefix { $0 > 0x20 }, as: UTF8.self)
            guard let pid = pid_t(text), pid > 1 else { return "\(path) holds no process number" }
            guard Glibc.kill(pid, signal) == 0 else { return "\(SystemError.last("kill", "\(pid)"))" }
            return nil
        } catch { return "\(error)" }
    }
}

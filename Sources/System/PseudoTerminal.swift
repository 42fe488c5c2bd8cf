import CLinux
import Glibc

/// A pseudo terminal: the master is ours, the terminal end becomes 0, 1 and 2 of a program in a session of its own.
public struct PseudoTerminal: ~Copyable, Sendable {
    public let master: Descriptor
    /// Close it (by dropping this value after taking `master`) once the program runs, or the master never reads an end.
    public let terminal: Descriptor

    public init(rows: UInt16, columns: UInt16) throws(SystemError) {
        var master: Int32 = -1
        var terminal: Int32 = -1
        let status = cm_pty_open(&master, &terminal, rows, columns)
        guard status == 0 else { throw SystemError("posix_openpt", code: -status) }
        self.master = Descriptor(owning: master)
        self.terminal = Descriptor(owning: terminal)
    }

    /// Starts `spawn` on the terminal end and gives back the non-blocking master.
    public consuming func start(_ spawn: Spawn) throws(TerminalError) -> Program {
        var spawn = spawn
        spawn.descriptors = [terminal.number, terminal.number, terminal.number]
        spawn.group = .session
        spawn.controllingTerminal = true
        let child: ChildProcess
        do throws(SpawnError) { child = try spawn.start() } catch { throw .spawn(error) }
        do throws(SystemError) { try master.setNonBlocking() } catch {
            child.signalGroup(SIGKILL)
            throw .system(error)
        }
        return Program(master: master, child: child)
    }

    /// What runs on a terminal.
    public struct Program: ~Copyable, Sendable {
        /// Non-blocking: keystrokes go in, output comes out; `EIO` when the last process has closed the terminal.
        public let master: Descriptor
        public let child: ChildProcess

        /// Closes this copy of the master.
        public consuming func takeChild() -> ChildProcess { child }
    }

    /// Tells the programs of the terminal (SIGWINCH).
    public static func resize(_ master: borrowing Descriptor, rows: UInt16, columns: UInt16) throws(SystemError) {
        let status = cm_pty_resize(master.number, rows, columns)
        guard status == 0 else { throw SystemError("TIOCSWINSZ", code: -status) }
    }

    /// The process group in the foreground; `nil` when there is none.
    public static func foreground(_ master: borrowing Descriptor) -> pid_t? {
        let group = cm_pty_foreground(master.number)
        return group > 1 ? group : nil
    }

    public enum TerminalError: Error, Sendable, Equatable {
        case spawn(SpawnError)
        case system(SystemError)
    }
}

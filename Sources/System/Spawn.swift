import CLinux
import Glibc

/// Why a program did not start, and at which step. No process is left behind.
public struct SpawnError: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Step: Sendable, Equatable {
        /// A text with a NUL byte, an empty program name.
        case arguments
        case fork, session, terminal, controlGroup, limit, descriptors, user, directory, parent
        /// The program itself: `ENOENT` missing, `EACCES` not executable, `ENOEXEC` no known format.
        case execute
    }
    public let step: Step
    /// `errno`, positive.
    public let code: Int32

    public init(step: Step, code: Int32) {
        self.step = step
        self.code = code
    }

    public var description: String { "\(step): \(SystemError("", code: code).reason)" }
}

/// A program to start: everything about the new process as a value. `start` may be called on any thread.
public struct Spawn: Sendable {
    public enum Group: Sendable { case none, processGroup, session }

    public struct Limit: Sendable, Equatable {
        public var resource: Int32
        public var soft: UInt64
        public var hard: UInt64

        /// Open files of one process.
        public static func openFiles(_ soft: UInt64, hard: UInt64) -> Limit {
            Limit(resource: cm_limit_open_files(), soft: soft, hard: hard)
        }
        /// Bytes of a core dump.
        public static func coreDump(_ bytes: UInt64) -> Limit {
            Limit(resource: cm_limit_core(), soft: bytes, hard: bytes)
        }
    }

    /// With a slash it is this file (relative to `directory`); without, it is looked for in `searchPath`.
    public var program: String
    /// All arguments; the first is by custom the program's name.
    public var arguments: [String]
    /// Complete: the parent's environment is not passed on.
    public var environment: [String: String] = [:]
    public var searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    /// Entered as the new user; `nil` means as the parent.
    public var directory: String?
    /// What becomes 0, 1, 2, … in the child; `-1` is /dev/null. They stay the caller's and open.
    public var descriptors: [Int32] = [-1, -1, -1]
    public var group = Group.processGroup
    /// Descriptor 0 becomes the controlling terminal; needs `.session`.
    public var controllingTerminal = false
    public var controlGroup: ControlGroup?
    public var account: UserAccount?
    public var limits: [Limit] = []
    /// KILL for the child when the starting thread ends. Lost when the child starts a set-user-id program.
    public var diesWithStarter = false
    public var fileModeMask: mode_t = 0o022

    public init(program: String, arguments: [String]) {
        self.program = program
        self.arguments = arguments
    }

    /// Blocks the thread for about 1 ms, until the program runs or has failed.
    public func start() throws(SpawnError) -> ChildProcess {
        guard !program.isEmpty else { throw SpawnError(step: .arguments, code: EINVAL) }
        let assignments = environment.map { "\($0.key)=\($0.value)" }
        guard let argumentList = CStringList(arguments), let environmentList = CStringList(assignments),
            let texts = CStringList([program, searchPath, directory ?? ""])
        else { throw SpawnError(step: .arguments, code: EINVAL) }

        var procs: Int32 = -1
        if let controlGroup {
            procs = open(controlGroup.path + "/cgroup.procs", O_WRONLY | O_CLOEXEC)
            guard procs >= 0 else { throw SpawnError(step: .controlGroup, code: errno) }
        }
        defer { if procs >= 0 { close(procs) } }

        var pidDescriptor: Int32 = -1
        var failedStep: Int32 = 0
        let pid = argumentList.withPointers { arguments in
            environmentList.withPointers { environment in
                texts.withPointers { texts in
                    descriptors.withUnsafeBufferPointer { descriptors in
                        (account?.groups ?? []).withUnsafeBufferPointer { groups in
                            limits.map { cm_spawn_limit(resource: $0.resource, soft: $0.soft, hard: $0.hard) }
                                .withUnsafeBufferPointer { limits in
                                    launch(
                                        arguments, environment, texts, descriptors, groups, limits, procs,
                                        &pidDescriptor, &failedStep)
                                }
                        }
                    }
                }
            }
        }
        guard pid > 0 else { throw SpawnError(step: .init(number: failedStep), code: -pid) }
        return ChildProcess(pid: pid, descriptor: Descriptor(owning: pidDescriptor), group: group)
    }

    /// Every pointer is valid for the length of this call only, which is all that the C function asks for.
    private func launch(
        _ arguments: UnsafePointer<UnsafeMutablePointer<CChar>?>,
        _ environment: UnsafePointer<UnsafeMutablePointer<CChar>?>,
        _ texts: UnsafePointer<UnsafeMutablePointer<CChar>?>, _ descriptors: UnsafeBufferPointer<Int32>,
        _ groups: UnsafeBufferPointer<gid_t>, _ limits: UnsafeBufferPointer<cm_spawn_limit>, _ procs: Int32,
        _ pidDescriptor: inout Int32, _ failedStep: inout Int32
    ) -> Int32 {
        var none: Int32 = -1
        return withUnsafePointer(to: &none) { noDescriptors in
            guard let program = texts[0], let searchPath = texts[1] else { return -EINVAL }
            var order = cm_spawn(
                program: program, search_path: searchPath, arguments: arguments, environment: environment,
                directory: directory == nil ? nil : UnsafePointer(texts[2]),
                descriptors: descriptors.baseAddress ?? noDescriptors, descriptor_count: descriptors.count,
                group: group == .session ? 2 : group == .processGroup ? 1 : 0, terminal: controllingTerminal ? 1 : 0,
                cgroup_procs: procs, change_user: account == nil ? 0 : 1, user: account?.user ?? 0,
                user_group: account?.group ?? 0, groups: groups.baseAddress, group_count: groups.count,
                limits: limits.baseAddress, limit_count: limits.count,
                death_signal: diesWithStarter ? SIGKILL : 0, umask: Int32(fileModeMask))
            return cm_spawn_start(&order, &pidDescriptor, &failedStep)
        }
    }
}

extension Spawn {
    /// Becomes another program in this process, with its environment and its standard descriptors alone. Returns only to
    /// say why it could not; this process then goes on as before.
    public static func become(_ program: String, _ arguments: [String]) -> SystemError {
        guard let list = CStringList(arguments) else { return SystemError("execve", program, code: EINVAL) }
        let status = list.withPointers { cm_become(program, $0) }
        return SystemError("execve", program, code: -status)
    }
}

extension SpawnError.Step {
    init(number: Int32) {
        self =
            switch UInt32(bitPattern: number) {
            case CM_SPAWN_SESSION.rawValue: .session
            case CM_SPAWN_TERMINAL.rawValue: .terminal
            case CM_SPAWN_CGROUP.rawValue: .controlGroup
            case CM_SPAWN_LIMIT.rawValue: .limit
            case CM_SPAWN_DESCRIPTORS.rawValue: .descriptors
            case CM_SPAWN_USER.rawValue: .user
            case CM_SPAWN_DIRECTORY.rawValue: .directory
            case CM_SPAWN_PARENT.rawValue: .parent
            case CM_SPAWN_EXEC.rawValue: .execute
            default: .fork
            }
    }
}

/// Texts as C wants them: one block of NUL-ended bytes and a NULL-ended list of pointers into it.
private struct CStringList: ~Copyable {
    private let bytes: UnsafeMutableBufferPointer<CChar>
    private let pointers: UnsafeMutableBufferPointer<UnsafeMutablePointer<CChar>?>

    /// `nil` when a text holds a NUL byte, which would cut it.
    init?(_ texts: [String]) {
        var count = 0
        for text in texts {
            if text.utf8.contains(0) { return nil }
            count += text.utf8.count + 1
        }
        bytes = .allocate(capacity: max(count, 1))
        pointers = .allocate(capacity: texts.count + 1)
        var offset = 0
        for (index, text) in texts.enumerated() {
            pointers[index] = bytes.baseAddress.map { $0 + offset }
            for byte in text.utf8 {
                bytes[offset] = CChar(bitPattern: byte)
                offset += 1
            }
            bytes[offset] = 0
            offset += 1
        }
        pointers[texts.count] = nil
    }

    deinit {
        bytes.deallocate()
        pointers.deallocate()
    }

    /// `body` must not keep the pointer.
    borrowing func withPointers<R>(_ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) -> R) -> R {
        guard let start = pointers.baseAddress else { preconditionFailure("allocated in init") }
        return body(UnsafePointer(start))
    }
}

import Glibc

/// Starts this program again for one part, reads its lines, and ends it when its time is over.
enum CheckProcess {
    enum End: Equatable {
        case exited(Int32), signaled(Int32), hung, notStarted(String)
    }

    static func run(path: String, part: CheckPart, others: [String], seconds: Int) -> (lines: [String], how: End) {
        var ends: [Int32] = [-1, -1]
        guard pipe(&ends) == 0 else { return ([], .notStarted(String(cString: strerror(errno)))) }
        // The child gets the write end as its standard output and nothing else: else its end could not be seen.
        for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO)
        let words = ["client-manager", "plugin", "check-part", path, part.word] + others
        var pid = pid_t()
        let status = withStrings(words) { arguments in
            withStrings(environment()) { environment in
                posix_spawn(&pid, "/proc/self/exe", &actions, nil, arguments, environment)
            }
        }
        close(ends[1])
        defer { close(ends[0]) }
        guard status == 0 else { return ([], .notStarted(String(cString: strerror(status)))) }
        let (output, isWhole) = read(ends[0], milliseconds: seconds * 1000)
        if !isWhole { kill(pid, SIGKILL) }
        var code: Int32 = 0
        while waitpid(pid, &code, 0) == -1, errno == EINTR {}
        let lines = output.split(separator: "\n").map(String.init)
        if !isWhole { return (lines, .hung) }
        // As the macros WIFEXITED and WTERMSIG, which Swift does not see.
        return (lines, code & 0x7F == 0 ? .exited((code >> 8) & 0xFF) : .signaled(code & 0x7F))
    }

    /// Until the child closes its output, which it does when it ends; at most 1 MiB.
    private static func read(_ descriptor: Int32, milliseconds: Int) -> (String, isWhole: Bool) {
        var output: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        let end = now() + milliseconds
        while true {
            let left = end - now()
            guard left > 0, output.count < 1 << 20 else { return (String(decoding: output, as: UTF8.self), false) }
            var wait = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            guard poll(&wait, 1, Int32(clamping: left)) > 0 else { continue }
            let count = Glibc.read(descriptor, &buffer, buffer.count)
            if count > 0 { output.append(contentsOf: buffer[..<count]) }
            if count == 0 || (count < 0 && errno != EINTR) { return (String(decoding: output, as: UTF8.self), true) }
        }
    }

    private static func now() -> Int {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return time.tv_sec * 1000 + time.tv_nsec / 1_000_000
    }

    /// The core's own libraries first, as the host does it: lib/ beside the program's bin/.
    private static func environment() -> [String] {
        var own = "/usr/lib"
        var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
        let count = readlink("/proc/self/exe", &buffer, buffer.count - 1)
        if count > 0 {
            let path = String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
            own = path.split(separator: "/", omittingEmptySubsequences: false).dropLast(2).joined(separator: "/") + "/lib"
        }
        let given = getenv("LD_LIBRARY_PATH").map { ":" + String(cString: $0) } ?? ""
        return ["LD_LIBRARY_PATH=\(own)\(given)", "SWIFT_BACKTRACE=enable=no", "PATH=/usr/bin:/bin"]
    }

    private static func withStrings<Result>(
        _ words: [String], _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) -> Result
    ) -> Result {
        var pointers = words.map { strdup($0) }
        pointers.append(nil)
        defer { for pointer in pointers { free(pointer) } }
        return pointers.withUnsafeBufferPointer { buffer in
            guard let base = buffer.baseAddress else { preconditionFailure("the array is not empty") }
            return body(base)
        }
    }
}

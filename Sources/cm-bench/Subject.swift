import Glibc

/// A program that was started to be measured, or to measure with: its pid and what it prints.
struct Child {
    let pid: pid_t
    /// Reading end of its standard output.
    private let output: Int32

    /// - Parameter program: a path; `nil` starts this program again.
    init(_ program: String?, _ arguments: [String]) throws(BenchError) {
        var ends: (Int32, Int32) = (0, 0)
        let piped = withUnsafeMutableBytes(of: &ends) { pipe($0.assumingMemoryBound(to: Int32.self).baseAddress) }
        guard piped == 0 else { throw BenchError(status: 4, "pipe failed with errno \(errno)\n") }
        for end in [ends.0, ends.1] { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, ends.1, 1)
        var child = pid_t()
        let path = program ?? "/proc/self/exe"
        var words: [UnsafeMutablePointer<CChar>?] = ([program ?? "cm-bench"] + arguments).map { strdup($0) }
        words.append(nil)
        let status = posix_spawn(&child, path, &actions, nil, words, environ)
        for word in words { free(word) }
        close(ends.1)
        guard status == 0 else {
            close(ends.0)
            throw BenchError(status: 4, "cannot start \(path): errno \(status)\n")
        }
        pid = child
        output = ends.0
    }

    /// The next line that it prints, empty at the end of its output.
    func line() -> String {
        var line: [UInt8] = []
        var byte: UInt8 = 0
        while line.count < 65_536, read(output, &byte, 1) == 1, byte != 10 { line.append(byte) }
        return String(decoding: line, as: UTF8.self)
    }

    /// All that it prints until it ends, and its exit status; `nil` when a signal ended it.
    func finish() -> (output: [UInt8], status: Int32?) {
        var bytes: [UInt8] = []
        var piece = [UInt8](repeating: 0, count: 64 << 10)
        while true {
            let count = read(output, &piece, piece.count)
            guard count > 0 else { break }
            bytes += piece[..<count]
        }
        close(output)
        var status: Int32 = 0
        waitpid(pid, &status, 0)
        return (bytes, status & 0x7F == 0 ? status >> 8 & 0xFF : nil)
    }

    /// - Returns: its exit status; `nil` when the signal ended it.
    @discardableResult
    func stop(_ signal: Int32 = SIGKILL) -> Int32? {
        kill(pid, signal)
        return finish().status
    }

    /// User and system time of all its threads and of the children that it has waited for, seconds; the kernel's tick is
    /// 10 ms.
    func cpuSeconds() -> Double {
        let text = readFile("/proc/\(pid)/stat")
        guard let end = text.lastIndex(of: ")") else { return 0 }
        let fields = text[text.index(after: end)...].split(separator: " ")
        guard fields.count > 14 else { return 0 }
        return fields[11...14].reduce(0) { $0 + (Double($1) ?? 0) } / Double(sysconf(Int32(_SC_CLK_TCK)))
    }
}

/// A server under measurement: a child process with the address of its ready line.
struct Subject {
    let child: Child
    let url: String
    let port: UInt16
    /// Its first line.
    let ready: String

    /// Starts a program (this one without a path) and waits for its ready line. It dies with `stop`.
    init(_ program: String?, _ arguments: [String]) throws(BenchError) {
        child = try Child(program, arguments)
        ready = child.line()
        guard ready.split(separator: "\"").contains("ready"),
            let url = ready.split(separator: "\"").first(where: { $0.hasPrefix("http") }),
            let colon = url.lastIndex(of: ":"), let port = UInt16(url[url.index(after: colon)...])
        else {
            child.stop()
            throw BenchError(status: 4, "the server did not become ready: \(ready)\n")
        }
        self.url = String(url)
        self.port = port
    }

    func stop() { child.stop() }
    func cpuSeconds() -> Double { child.cpuSeconds() }
}

func readFile(_ path: String) -> String {
    let descriptor = open(path, O_RDONLY)
    guard descriptor >= 0 else { return "" }
    defer { close(descriptor) }
    var bytes = [UInt8](repeating: 0, count: 64 << 10)
    let count = read(descriptor, &bytes, bytes.count)
    return String(decoding: bytes.prefix(max(0, count)), as: UTF8.self)
}

/// What the figures were measured on.
enum Machine {
    static var description: String {
        let model =
            readFile("/proc/cpuinfo").split(separator: "\n").first { $0.hasPrefix("model name") }
            .flatMap { $0.split(separator: ":").last } ?? " unknown"
        let kernel = readFile("/proc/sys/kernel/osrelease").split(separator: "\n").first ?? ""
        let load = readFile("/proc/loadavg").split(separator: " ").first ?? ""
        return "machine: \(sysconf(Int32(_SC_NPROCESSORS_ONLN))) CPUs,\(model), Linux \(kernel), load \(load)"
    }
}

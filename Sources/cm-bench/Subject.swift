import Glibc

/// A server under measurement: a child process of this program, its address, and the CPU time that it has used.
struct Subject {
    let pid: pid_t
    let port: UInt16
    let isSecure: Bool

    /// Starts this program again with `arguments` and waits for its ready line. It dies with `stop`.
    init(_ arguments: [String]) throws(BenchError) {
        var ends: (Int32, Int32) = (0, 0)
        let piped = withUnsafeMutableBytes(of: &ends) { pipe($0.assumingMemoryBound(to: Int32.self).baseAddress) }
        guard piped == 0 else { throw BenchError(status: 4, "pipe failed with errno \(errno)\n") }
        defer { close(ends.0) }
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        posix_spawn_file_actions_adddup2(&actions, ends.1, 1)
        posix_spawn_file_actions_addclose(&actions, ends.0)
        posix_spawn_file_actions_addclose(&actions, ends.1)
        var child = pid_t()
        var words: [UnsafeMutablePointer<CChar>?] = (["cm-bench"] + arguments).map { strdup($0) }
        words.append(nil)
        let status = posix_spawn(&child, "/proc/self/exe", &actions, nil, words, environ)
        for word in words { free(word) }
        close(ends.1)
        guard status == 0 else { throw BenchError(status: 4, "cannot start the server: errno \(status)\n") }
        var line: [UInt8] = []
        var byte: UInt8 = 0
        while line.count < 1_000, read(ends.0, &byte, 1) == 1, byte != 10 { line.append(byte) }
        let text = String(decoding: line, as: UTF8.self)
        guard text.contains("\"ready\""), let url = text.split(separator: "\"").first(where: { $0.hasPrefix("http") }),
            let colon = url.lastIndex(of: ":"), let port = UInt16(url[url.index(after: colon)...])
        else {
            kill(child, SIGKILL)
            waitpid(child, nil, 0)
            throw BenchError(status: 4, "the server did not become ready: \(text)\n")
        }
        pid = child
        self.port = port
        isSecure = url.hasPrefix("https")
    }

    func stop() {
        kill(pid, SIGKILL)
        waitpid(pid, nil, 0)
    }

    /// User and system time of all its threads, seconds; the kernel's tick is 10 ms.
    func cpuSeconds() -> Double {
        let text = readFile("/proc/\(pid)/stat")
        guard let end = text.lastIndex(of: ")") else { return 0 }
        let fields = text[text.index(after: end)...].split(separator: " ")
        guard fields.count > 12, let user = Double(fields[11]), let system = Double(fields[12]) else { return 0 }
        return (user + system) / Double(sysconf(Int32(_SC_CLK_TCK)))
    }
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

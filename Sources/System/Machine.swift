import Glibc

/// Facts of the running machine that the agent's journal needs.
public enum Machine {
    /// New with each boot of the kernel; empty where /proc does not tell.
    public static func bootID() -> String {
        guard let bytes = try? Files.read("/proc/sys/kernel/random/boot_id", limit: 64) else { return "" }
        return String(decoding: bytes.prefix { $0 != UInt8(ascii: "\n") }, as: UTF8.self)
    }

    /// Ends with KILL what is left of a session whose leader was `leader`: only processes whose environment holds
    /// `mark`, because the number may meanwhile belong to others. Returns how many were there.
    public static func killSession(_ leader: pid_t, mark: String) -> Int {
        guard let names = try? Files.list("/proc") else { return 0 }
        let wanted = Array(mark.utf8)
        var count = 0
        for name in names {
            guard let pid = pid_t(name), pid > 1, session(of: pid) == leader,
                let environment = try? Files.read("/proc/\(pid)/environ", limit: 1 << 20),
                environment.split(separator: 0).contains(where: { $0.elementsEqual(wanted) })
            else { continue }
            if kill(pid, SIGKILL) == 0 { count += 1 }
        }
        return count
    }

    /// Sends a signal (0: none, only counts) to every process of the session that `leader` leads, and to those elsewhere
    /// whose environment holds `mark`. The leader must not have been reaped, so that its number means nobody else; it is
    /// itself not counted once it has ended. Returns how many there were.
    @discardableResult
    public static func signalSession(_ leader: pid_t, mark: String, _ signal: Int32) -> Int {
        guard let names = try? Files.list("/proc") else { return 0 }
        let wanted = Array(mark.utf8)
        let own = getpid()
        var count = 0
        for name in names {
            guard let pid = pid_t(name), pid > 1, pid != own, !isZombie(pid) else { continue }
            if session(of: pid) != leader {
                guard let environment = try? Files.read("/proc/\(pid)/environ", limit: 1 << 20),
                    environment.split(separator: 0).contains(where: { $0.elementsEqual(wanted) })
                else { continue }
            }
            if kill(pid, signal) == 0 { count += 1 }
        }
        return count
    }

    /// Of a process; `nil` when it is gone.
    public static func parent(of pid: pid_t) -> pid_t? {
        guard let bytes = try? Files.read("/proc/\(pid)/stat", limit: 4_096),
            let end = bytes.lastIndex(of: UInt8(ascii: ")"))
        else { return nil }
        let fields = String(decoding: bytes[(end + 1)...], as: UTF8.self).split(separator: " ")
        return fields.count > 1 ? pid_t(fields[1]) : nil
    }

    private static func isZombie(_ pid: pid_t) -> Bool {
        guard let bytes = try? Files.read("/proc/\(pid)/stat", limit: 4_096),
            let end = bytes.lastIndex(of: UInt8(ascii: ")")), end + 2 < bytes.count
        else { return true }
        return bytes[end + 2] == UInt8(ascii: "Z") || bytes[end + 2] == UInt8(ascii: "X")
    }

    /// Field 6 of /proc/PID/stat; the name before it stands in parentheses and may hold anything.
    private static func session(of pid: pid_t) -> pid_t? {
        guard let bytes = try? Files.read("/proc/\(pid)/stat", limit: 4_096),
            let end = bytes.lastIndex(of: UInt8(ascii: ")"))
        else { return nil }
        let fields = String(decoding: bytes[(end + 1)...], as: UTF8.self).split(separator: " ")
        return fields.count > 3 ? pid_t(fields[3]) : nil
    }
}

/// How much harm a program can do, in four steps. A convenience for rules, by the program's name alone: whoever needs
/// to be sure writes argv rules and a local policy on the client.
///
/// A program that can start others or write files where it is told (find, awk, sed, tar, xargs, env, an editor) is never
/// below `dangerous`, whatever its arguments; a program in no list is `restricted`.
public enum CommandLevel: Int, Sendable, Comparable, CustomStringConvertible {
    /// Reads the state of the machine.
    case safe
    /// Writes files of its own, fetches, packs.
    case moderate
    /// Changes the system, ends processes, runs other programs.
    case dangerous
    /// Everything else.
    case restricted

    public init?(name: String) {
        switch name {
        case "safe": self = .safe
        case "moderate": self = .moderate
        case "dangerous": self = .dangerous
        case "restricted": self = .restricted
        default: return nil
        }
    }

    public var description: String {
        switch self {
        case .safe: "safe"
        case .moderate: "moderate"
        case .dangerous: "dangerous"
        case .restricted: "restricted"
        }
    }

    public static func < (a: CommandLevel, b: CommandLevel) -> Bool { a.rawValue < b.rawValue }

    /// - Parameter isDeny: a rule that denies takes the highest level that the program could have by any path.
    init(of argv: [String], isDeny: Bool) {
        guard let program = argv.first, let known = ProgramName(program, isDeny: isDeny) else {
            self = .restricted
            return
        }
        switch known.name {
        case "arch", "basename", "cal", "cat", "cksum", "cmp", "cut", "df", "diff", "dirname", "du",
            "echo", "expr", "false", "file", "free", "getconf", "getent", "grep", "groups", "head", "hostid", "id",
            "ipcs", "last", "ls", "lsblk", "lscpu", "lsmem", "lsmod", "lsof", "lspci", "lsusb", "md5sum", "nproc",
            "pgrep", "pidof", "printenv", "printf", "ps", "pwd", "readlink", "realpath", "sha256sum", "sleep",
            "stat", "tail", "tr", "true", "uname", "uptime", "vmstat", "w", "wc", "who", "whoami":
            self = .safe
        case "cp", "date", "dig", "dmidecode", "gunzip", "gzip", "host", "ln", "mkdir", "mktemp", "mv", "nslookup", "ping", "sort", "ss", "tee",
            "touch", "traceroute", "truncate", "uniq", "xz":
            self = .moderate
        case "apt", "apt-get", "awk", "bash", "bzip2", "chgrp", "chmod", "chown", "curl", "dash", "dnf", "docker", "dpkg",
            "ed", "env", "find", "git", "gzexe", "hostname", "ip", "journalctl", "kill", "killall", "less", "more",
            "nano", "nc", "nice", "nohup", "perl", "pkill", "podman", "python3", "renice", "rm", "rmdir", "rsync", "scp",
            "sed", "service", "setsid", "sh", "ssh", "stdbuf", "sysctl", "systemctl", "tar", "timeout", "unzip", "vi",
            "vim", "wget", "xargs", "yum", "zip":
            self = .dangerous
        default:
            self = .restricted
        }
    }
}

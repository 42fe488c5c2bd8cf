import PluginKit

/// What a host is, and whether the agent's program runs there.
struct Platform: Sendable, Equatable {
    var system: String
    var machine: String
    /// "2.36"; empty where there is no glibc.
    var glibc: String
    var isRoot: Bool
    var hasSudo: Bool
    var hasSystemd: Bool
    var missing: [String]

    static let script = """
        LC_ALL=C; export LC_ALL
        echo "system=$(uname -s)"
        echo "machine=$(uname -m)"
        echo "glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | sed -n 's/^glibc //p')"
        echo "user=$(id -u)"
        command -v sudo >/dev/null 2>&1 && echo sudo=yes
        [ -d /run/systemd/system ] && echo systemd=yes
        missing=
        for tool in sha256sum sed tr head mkdir mv cp rm readlink setsid; do
            command -v "$tool" >/dev/null 2>&1 || missing="$missing $tool"
        done
        echo "missing=$missing"
        """

    init(_ values: [String: String]) {
        system = values["system"] ?? ""
        machine = values["machine"] ?? ""
        glibc = values["glibc"] ?? ""
        isRoot = values["user"] == "0"
        hasSudo = values["sudo"] == "yes"
        hasSystemd = values["systemd"] == "yes"
        missing = (values["missing"] ?? "").split(separator: " ").map(String.init)
    }

    var summary: String {
        "\(system) \(machine), " + (glibc.isEmpty ? "no glibc" : "glibc \(glibc)") + (hasSystemd ? ", systemd" : ", no systemd")
    }

    /// Why the program would not run; said before anything is put on the host.
    func check(_ program: Enrollment.AgentProgram) throws(Failure) {
        guard system == "Linux" else {
            throw Failure("platform-unsupported", "the host runs \(system.isEmpty ? "an unknown system" : system); the agent runs on Linux")
        }
        guard machine == program.machine else {
            throw Failure("platform-unsupported", "the host's processor is \(machine); the agent's program of this core is for \(program.machine)")
        }
        guard !glibc.isEmpty else {
            throw Failure("platform-unsupported", "the host has no glibc (musl, perhaps); the agent needs \(program.glibc ?? "it")")
        }
        if let wanted = program.glibc, Self.numbers(glibc).lexicographicallyPrecedes(Self.numbers(wanted)) {
            throw Failure("platform-unsupported", "the host has glibc \(glibc); the agent needs \(wanted) or newer")
        }
        guard missing.isEmpty else {
            throw Failure("platform-unsupported", "the host has no \(missing.joined(separator: ", ")), which the installation needs")
        }
    }

    private static func numbers(_ text: String) -> [Int] { text.split(separator: ".").map { Int($0) ?? 0 } }
}

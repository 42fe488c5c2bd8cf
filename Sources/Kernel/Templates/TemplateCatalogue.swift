/// The built-in commands for Linux. What is not here is not supported; nothing pretends to be.
///
/// They use coreutils, procps, findutils, iproute2 and systemd as every Debian has them. File names stand behind `--` or
/// after a check that they are absolute, so that none is read as an option.
enum TemplateCatalogue {
    static var all: [Template] { system + disk + memory + process + network + service + file }

    private static func argv(
        _ name: String, _ description: String, _ parameters: [TemplateParameter] = [], _ words: [Template.Word],
        _ result: ResultParser? = nil
    ) -> Template {
        Template(
            name, description, category: String(name.prefix { $0 != "." }), parameters: parameters, body: .argv(words),
            result: result, isBuiltIn: true)
    }

    private static func words(_ words: String...) -> [Template.Word] { words.map { .word($0) } }

    private static func script(
        _ name: String, _ description: String, _ parameters: [TemplateParameter] = [], _ text: String,
        _ arguments: [Template.Word] = [], _ result: ResultParser? = nil
    ) -> Template {
        Template(
            name, description, category: String(name.prefix { $0 != "." }), parameters: parameters,
            body: .script(interpreter: ["/bin/sh", "-eu"], text: text, arguments: arguments), result: result,
            isBuiltIn: true)
    }

    private static let system = [
        script(
            "system.info", "Host name, distribution, kernel, architecture, processors, uptime and load", [],
            """
            [ -r /etc/os-release ] && . /etc/os-release
            echo "hostname=$(uname -n)"
            echo "distribution=${PRETTY_NAME:-unknown}"
            echo "kernel=$(uname -r)"
            echo "architecture=$(uname -m)"
            echo "processors=$(getconf _NPROCESSORS_ONLN)"
            read -r up rest </proc/uptime
            echo "uptime_s=$up"
            read -r one five fifteen rest </proc/loadavg
            echo "load_1=$one"
            echo "load_5=$five"
            echo "load_15=$fifteen"
            """, [], .keyValue),
        argv("system.time", "The client's clock, UTC, in seconds since 1970", [], words("date", "-u", "+unix_s=%s.%N"), .keyValue),
        argv("system.users", "Who is logged in", [], words("who")),
        argv(
            "system.log", "The newest lines of the journal",
            [
                TemplateParameter("lines", .integer(1...10_000), default: 100, "How many lines"),
                TemplateParameter("unit", .name, "Only this unit"),
            ],
            words("journalctl", "--no-pager", "--output=short-iso", "--lines={lines}") + [.when("unit", ["--unit={unit}"])]),
        argv("system.reboot", "Restarts the machine", [], words("systemctl", "reboot")),
        argv("system.shutdown", "Switches the machine off", [], words("systemctl", "poweroff")),
    ]

    private static let disk = [
        argv(
            "disk.usage", "Size and use of the mounted file systems",
            [TemplateParameter("path", .path, "Only the file system that holds this path")],
            words("df", "-P", "-k") + [.when("path", ["--", "{path}"])], .diskUsage),
        argv("disk.list", "Block devices", [], words("lsblk", "--json", "--bytes", "--output", "NAME,TYPE,SIZE,FSTYPE,MOUNTPOINT,MODEL"), .json),
        argv(
            "disk.directory-size", "Bytes below a directory, on its own file system",
            [TemplateParameter("path", .path, required: true, "The directory")],
            words("du", "-s", "-x", "--block-size=1", "--", "{path}")),
    ]

    private static let memory = [
        argv("memory.info", "Memory and swap in bytes", [], words("cat", "/proc/meminfo"), .memory),
    ]

    private static let process = [
        argv(
            "process.list", "All processes", [],
            words("ps", "-ww", "-eo", "pid=,ppid=,user:32=,state=,pcpu=,rss=,etimes=,args="), .processes),
        argv(
            "process.find", "Processes whose command line matches a regular expression",
            [TemplateParameter("pattern", .text, required: true, "Extended regular expression")],
            words("pgrep", "-a", "-f", "--", "{pattern}")),
        argv(
            "process.signal", "Sends a signal to a process",
            [
                TemplateParameter("pid", .integer(2...4_194_304), required: true, "The process"),
                TemplateParameter(
                    "signal", .choice(["TERM", "KILL", "HUP", "INT", "USR1", "USR2", "STOP", "CONT"]), default: "TERM",
                    "The signal"),
            ],
            words("kill", "-s", "{signal}", "{pid}")),
    ]

    private static let network = [
        argv("network.interfaces", "Interfaces and addresses", [], words("ip", "-json", "address", "show"), .json),
        argv("network.routes", "Routes", [], words("ip", "-json", "route", "show"), .json),
        argv("network.neighbours", "Neighbours (ARP, NDP)", [], words("ip", "-json", "neighbour", "show"), .json),
        argv("network.listening", "Ports that somebody listens on", [], words("ss", "-H", "-tuln"), .sockets),
        argv(
            "network.ping", "Round-trip time to a host",
            [
                TemplateParameter("host", .host, required: true, "Name or address"),
                TemplateParameter("count", .integer(1...100), default: 4, "How many packets"),
            ],
            words("ping", "-n", "-c", "{count}", "-W", "2", "--", "{host}")),
        argv(
            "network.resolve", "Addresses of a host name as the client sees them",
            [TemplateParameter("host", .host, required: true, "The name")], words("getent", "ahosts", "{host}")),
    ]

    private static func unit(_ verb: String, _ description: String) -> Template {
        argv(
            "service.\(verb)", description, [TemplateParameter("service", .name, required: true, "The unit")],
            words("systemctl", verb, "--", "{service}"))
    }

    private static let service = [
        argv(
            "service.list", "All services and their states", [],
            words("systemctl", "list-units", "--type=service", "--all", "--plain", "--no-legend", "--no-pager", "--full"),
            .units),
        argv(
            "service.status", "State of one service", [TemplateParameter("service", .name, required: true, "The unit")],
            words(
                "systemctl", "show", "--no-pager",
                "--property=Id,Description,LoadState,ActiveState,SubState,UnitFileState,MainPID,ExecMainStatus,ActiveEnterTimestamp",
                "--", "{service}"), .keyValue),
        unit("start", "Starts a service"),
        unit("stop", "Stops a service"),
        unit("restart", "Restarts a service"),
        unit("reload", "Lets a service read its configuration again"),
        unit("enable", "Lets a service start at boot"),
        unit("disable", "Keeps a service from starting at boot"),
    ]

    private static let path = TemplateParameter("path", .path, required: true, "Absolute path on the client")
    private static let sourceAndTarget = [
        TemplateParameter("source", .path, required: true, "Absolute path of what is there"),
        TemplateParameter("target", .path, required: true, "Absolute path of what will be there"),
    ]

    private static let file = [
        argv(
            "file.list", "What is in a directory", [path],
            words("find", "{path}", "-mindepth", "1", "-maxdepth", "1", "-printf", #"%y\t%s\t%T@\t%m\t%u\t%g\t%f\0"#), .files),
        argv(
            "file.info", "Type, size, times, mode and owner of one path", [path],
            words("find", "{path}", "-maxdepth", "0", "-printf", #"%y\t%s\t%T@\t%m\t%u\t%g\t%p\0"#), .files),
        argv(
            "file.head", "The first bytes of a file",
            [path, TemplateParameter("bytes", .integer(1...16_777_216), default: 65_536, "How many bytes")],
            words("head", "-c", "{bytes}", "--", "{path}")),
        argv(
            "file.tail", "The last lines of a file",
            [path, TemplateParameter("lines", .integer(1...100_000), default: 100, "How many lines")],
            words("tail", "-n", "{lines}", "--", "{path}")),
        argv("file.hash", "SHA-256 of a file", [path], words("sha256sum", "--", "{path}")),
        argv(
            "file.find", "Paths below a directory whose last part matches a pattern",
            [
                path, TemplateParameter("name", .text, required: true, "Pattern with * and ?"),
                TemplateParameter("depth", .integer(1...64), default: 16, "How deep to look"),
            ],
            words("find", "{path}", "-xdev", "-maxdepth", "{depth}", "-name", "{name}", "-print")),
        argv("file.copy", "Copies a file or directory with its attributes", sourceAndTarget, words("cp", "-a", "--", "{source}", "{target}")),
        argv("file.move", "Moves or renames", sourceAndTarget, words("mv", "--", "{source}", "{target}")),
        argv(
            "file.delete", "Removes a file; with recursive also a directory with everything in it",
            [path, TemplateParameter("recursive", .boolean, "Also directories")],
            words("rm") + [.when("recursive", ["-r", "--one-file-system"]), .word("--"), .word("{path}")]),
        argv(
            "file.mode", "Sets the permission bits",
            [path, TemplateParameter("mode", .integer(0...7777), required: true, "Octal, for example 644")],
            words("chmod", "{mode}", "--", "{path}")),
        argv("file.make-directory", "Makes a directory and what is missing above it", [path], words("mkdir", "-p", "--", "{path}")),
    ]
}

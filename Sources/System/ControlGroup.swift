import Glibc

/// A control group (version 2) of its own for the processes of one command: ends a whole tree at once, and limits it
/// where the controllers are there.
public struct ControlGroup: Sendable, Equatable {
    public let path: String

    /// Takes over a group that an earlier process made.
    public init(existing path: String) { self.path = path }

    public func limitMemory(_ bytes: UInt64) throws(SystemError) {
        try set("memory.max", "\(bytes)")
        // Without this the limit would only push the group into swap. Absent where swap accounting is off.
        if Files.exists(path + "/memory.swap.max") { try set("memory.swap.max", "0") }
        if Files.exists(path + "/memory.oom.group") { try set("memory.oom.group", "1") }
    }

    /// - Parameter millis: thousandths of one core.
    public func limitProcessor(_ millis: UInt64) throws(SystemError) {
        // Period 100 ms; the kernel takes quotas from 1 ms on.
        try set("cpu.max", "\(max(1_000, millis.multipliedReportingOverflow(by: 100).partialValue)) 100000")
    }

    /// KILL for every process in the group, also for those that are being forked. False: the kernel (before 5.14)
    /// cannot.
    public func killAll() -> Bool {
        (try? set("cgroup.kill", "1")) != nil
    }

    /// True while it has processes.
    public var isPopulated: Bool {
        guard let bytes = try? Files.read(path + "/cgroup.events", limit: 4_096) else { return false }
        return String(decoding: bytes, as: UTF8.self).split(separator: "\n").contains("populated 1")
    }

    /// True while it has processes other than `leader` (which may have ended and not be reaped).
    public func isPopulatedBesides(_ leader: Int32) -> Bool {
        guard let bytes = try? Files.read(path + "/cgroup.procs", limit: 1 << 20) else { return false }
        return String(decoding: bytes, as: UTF8.self).split(separator: "\n").contains { $0 != "\(leader)" }
    }

    /// Removes the empty group; false while it has processes.
    public func remove() -> Bool { rmdir(path) == 0 || errno == ENOENT }

    private func set(_ file: String, _ value: String) throws(SystemError) {
        let descriptor = try Descriptor.open(path + "/" + file, O_WRONLY)
        try descriptor.write(Array(value.utf8).span.bytes, subject: path + "/" + file)
    }
}

/// Where this process may make control groups.
public struct ControlGroupParent: Sendable, Equatable {
    public let path: String
    public let limitsMemory: Bool
    public let limitsProcessor: Bool

    public init(path: String, limitsMemory: Bool, limitsProcessor: Bool) {
        self.path = path
        self.limitsMemory = limitsMemory
        self.limitsProcessor = limitsProcessor
    }

    /// Looks for the version 2 tree and a directory in it that is ours to write; `nil` where there is none.
    ///
    /// A group with processes cannot hand controllers down. Under systemd (`Delegate=yes`) this process therefore first
    /// moves into the leaf `agent` of its own group.
    public static func find(name: String) -> ControlGroupParent? {
        guard let mount = mountPoint(), let own = ownGroup() else { return nil }
        let base = own == "/" ? mount : mount + own
        let parent = base + "/" + name
        guard access(base, W_OK) == 0 else { return nil }
        do throws(SystemError) {
            try Files.makeDirectories(parent, mode: 0o755)
        } catch { return nil }
        if own != "/" { moveSelf(into: base + "/agent") }
        handDown(base)
        handDown(parent)
        guard access(parent + "/cgroup.procs", W_OK) == 0 else { return nil }
        let controllers = words(parent + "/cgroup.subtree_control")
        return ControlGroupParent(
            path: parent, limitsMemory: controllers.contains("memory"), limitsProcessor: controllers.contains("cpu"))
    }

    public func make(_ name: String) throws(SystemError) -> ControlGroup {
        let path = path + "/" + name
        try Files.makeDirectories(path, mode: 0o755)
        return ControlGroup(existing: path)
    }

    private static func moveSelf(into leaf: String) {
        guard (try? Files.makeDirectories(leaf, mode: 0o755)) != nil,
            let procs = try? Descriptor.open(leaf + "/cgroup.procs", O_WRONLY)
        else { return }
        try? procs.write([UInt8(ascii: "0")].span.bytes)
    }

    private static func handDown(_ path: String) {
        for controller: Substring in ["memory", "cpu"] where words(path + "/cgroup.controllers").contains(controller) {
            guard let file = try? Descriptor.open(path + "/cgroup.subtree_control", O_WRONLY) else { return }
            try? file.write(Array("+\(controller)".utf8).span.bytes)
        }
    }

    private static func words(_ path: String) -> [Substring] {
        guard let bytes = try? Files.read(path, limit: 4_096) else { return [] }
        return String(decoding: bytes, as: UTF8.self).split { $0 == " " || $0 == "\n" }
    }

    private static func mountPoint() -> String? {
        guard let bytes = try? Files.read("/proc/self/mounts", limit: 1 << 20) else { return nil }
        for line in String(decoding: bytes, as: UTF8.self).split(separator: "\n") {
            let fields = line.split(separator: " ")
            if fields.count > 2, fields[2] == "cgroup2" { return String(fields[1]) }
        }
        return nil
    }

    /// The line `0::/path` is the version 2 group.
    private static func ownGroup() -> String? {
        guard let bytes = try? Files.read("/proc/self/cgroup", limit: 1 << 16) else { return nil }
        for line in String(decoding: bytes, as: UTF8.self).split(separator: "\n") where line.hasPrefix("0::") {
            let path = String(line.dropFirst(3))
            // An agent that starts again under the same manager already stands in its leaf.
            return path.hasSuffix("/agent") ? String(path.dropLast("/agent".utf8.count)) : path
        }
        return nil
    }
}

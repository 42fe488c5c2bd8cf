import AgentProtocol
import Glibc
import JSON
import System

/// Collects what an agent reports about its machine. Blocks (file systems may hang): call it on a thread for that.
public struct FactsCollector: Sendable {
    /// `--fact k=v`. Built-in facts win over these, and these over files of the directory.
    public let extra: [(name: String, value: String)]
    /// Each file is a fact: its name and its content, or a JSON object of facts if the name ends in `.json`.
    public let directory: String?
    public let agentVersion: String

    /// Of the file system list, the address list and the facts of the directory.
    private static let listLimit = 32
    private static let fileLimit = 4_096

    /// - Parameter extra: throws with the text that is not `name=value`, or whose name is not allowed.
    public init(extra: [String] = [], directory: String? = nil, agentVersion: String) throws(IdentityError) {
        var pairs: [(name: String, value: String)] = []
        for text in extra {
            guard let equals = text.firstIndex(of: "=") else {
                throw IdentityError("fact '\(text)' is not of the form name=value")
            }
            let name = String(text[..<equals])
            guard Self.isName(name) else {
                throw IdentityError("fact name '\(name)' must have 1 to 64 of a-z, 0-9, '_', '-', '.' and begin with a letter")
            }
            pairs.append((name, String(text[text.index(after: equals)...].prefix(1_024))))
        }
        guard pairs.count <= 64 else { throw IdentityError("\(pairs.count) facts; at most 64 can be given") }
        self.extra = pairs
        self.directory = directory
        self.agentVersion = agentVersion
    }

    static func isName(_ name: String) -> Bool {
        let bytes = name.utf8
        guard (1...64).contains(bytes.count), let first = bytes.first, (0x61...0x7A).contains(first) else { return false }
        return bytes.allSatisfy {
            (0x61...0x7A).contains($0) || (0x30...0x39).contains($0) || $0 == 0x5F || $0 == 0x2D || $0 == 0x2E
        }
    }

    /// One JSON object of at most `WireLimits.factsBytes`; facts of the directory are left out first if it would be more.
    public func collect() -> [UInt8] {
        let full = write(withDirectory: true)
        return full.count <= WireLimits.factsBytes ? full : write(withDirectory: false)
    }

    private func write(withDirectory: Bool) -> [UInt8] {
        var facts = JSONObject()
        if withDirectory { readDirectory(into: &facts) }
        for (name, value) in extra { facts[name] = .string(value) }
        addSystem(to: &facts)
        var writer = JSONWriter(reserving: 2_048)
        writer.value(JSONValue.object(facts))
        return writer.finish()
    }

    private func readDirectory(into facts: inout JSONObject) {
        guard let directory, let names = try? Files.list(directory, limit: 1_024) else { return }
        for name in names.sorted().prefix(Self.listLimit) {
            guard let bytes = try? Files.read("\(directory)/\(name)", limit: Self.fileLimit) else { continue }
            if name.hasSuffix(".json") {
                guard let value = try? JSONValue(parsing: bytes), let object = value.object else { continue }
                for member in object where Self.isName(member.key) { facts[member.key] = member.value }
            } else if Self.isName(name), let text = String(validating: bytes, as: UTF8.self) {
                facts[name] = .string(Self.trimmed(text))
            }
        }
    }

    private static func trimmed(_ text: String) -> String {
        var text = text[...]
        while let last = text.last, last.isWhitespace { text.removeLast() }
        return String(text.drop { $0.isWhitespace })
    }

    // MARK: Built-in facts

    private func addSystem(to facts: inout JSONObject) {
        var names = utsname()
        if uname(&names) == 0 {
            facts["kernel"] = .string(Self.text(names.release))
            facts["arch"] = .string(Self.text(names.machine))
            facts["hostname"] = .string(Self.text(names.nodename))
        }
        let release = Self.fields(of: "/etc/os-release", separator: "=")
        facts["os"] = .string(release["ID"] ?? "linux")
        facts["os_version"] = .string(release["VERSION_ID"] ?? "")
        facts["os_name"] = .string(release["PRETTY_NAME"] ?? "Linux")
        facts["cores"] = .integer(Int64(sysconf(Int32(_SC_NPROCESSORS_ONLN))))
        facts["memory_kib"] = .integer(Int64(Measures.memory().total))
        facts["agent_version"] = .string(agentVersion)
        facts["disks"] = .array(Self.disks())
        facts["addresses"] = .array(Self.addresses().map { .string($0) })
        if let booted = Self.fields(of: "/proc/stat", separator: " ")["btime"].flatMap({ Int64($0) }) {
            facts["booted_s"] = .integer(booted)
        }
    }

    private static func text<Tuple>(_ field: Tuple) -> String {
        // Invariant: utsname's fields are zero-terminated arrays of fixed size; the buffer does not outlive the closure.
        unsafe withUnsafeBytes(of: field) { buffer in
            unsafe String(decoding: buffer.prefix { $0 != 0 }, as: UTF8.self)
        }
    }

    /// `KEY<separator>value` lines, quotes taken off.
    private static func fields(of path: String, separator: Character) -> [String: String] {
        guard let bytes = try? Files.read(path, limit: 65_536) else { return [:] }
        var fields: [String: String] = [:]
        for line in String(decoding: bytes, as: UTF8.self).split(separator: "\n") {
            guard let place = line.firstIndex(of: separator) else { continue }
            var value = line[line.index(after: place)...]
            if value.first == "\"", value.last == "\"", value.count >= 2 { value = value.dropFirst().dropLast() }
            fields[String(line[..<place])] = String(value.prefix(256))
        }
        return fields
    }

    /// File systems on real devices, each device once.
    private static func disks() -> [JSONValue] {
        guard let bytes = try? Files.read("/proc/self/mounts", limit: 1 << 20) else { return [] }
        var disks: [JSONValue] = []
        var seen: Set<Substring> = []
        for line in String(decoding: bytes, as: UTF8.self).split(separator: "\n") {
            let parts = line.split(separator: " ")
            guard parts.count >= 3, parts[0].hasPrefix("/dev/"), seen.insert(parts[0]).inserted else { continue }
            var status = statvfs()
            guard statvfs(String(parts[1]), &status) == 0 else { continue }
            let block = UInt(status.f_frsize)
            disks.append([
                "mount": .string(String(parts[1])), "device": .string(String(parts[0])),
                "type": .string(String(parts[2])), "total_kib": .integer(Int64(clamping: status.f_blocks * block / 1_024)),
                // In whole percent, so that the same machine says the same for a while.
                "used_percent": .integer(
                    status.f_blocks == 0 ? 0 : Int64((status.f_blocks - status.f_bavail) * 100 / status.f_blocks)),
            ])
            if disks.count == listLimit { break }
        }
        return disks
    }

    private static func addresses() -> [String] {
        var list: UnsafeMutablePointer<ifaddrs>?
        guard unsafe getifaddrs(&list) == 0 else { return [] }
        defer { unsafe freeifaddrs(list) }
        var addresses: [String] = []
        var next = unsafe list
        while let entry = unsafe next, addresses.count < listLimit {
            unsafe next = entry.pointee.ifa_next
            guard let address = unsafe entry.pointee.ifa_addr, unsafe entry.pointee.ifa_flags & UInt32(IFF_LOOPBACK) == 0
            else { continue }
            let family = Int32(unsafe address.pointee.sa_family)
            guard family == AF_INET || family == AF_INET6 else { continue }
            let length = family == AF_INET ? MemoryLayout<sockaddr_in>.size : MemoryLayout<sockaddr_in6>.size
            var host = [CChar](repeating: 0, count: 64)
            guard unsafe getnameinfo(address, socklen_t(length), &host, 64, nil, 0, NI_NUMERICHOST) == 0 else { continue }
            let text = String(decoding: host.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
            // A link-local address says nothing outside its own wire.
            if !text.hasPrefix("fe80:") { addresses.append(text) }
        }
        return addresses
    }
}

/// What a heartbeat carries, read from /proc (never from a disk).
public enum Measures {
    public static func now(runningExecutions: Int = 0) -> BeatAnswer {
        let memory = memory()
        return BeatAnswer(
            loadHundredths: load(), memoryAvailableKiB: memory.available, memoryTotalKiB: memory.total,
            runningExecutions: UInt32(clamping: runningExecutions))
    }

    private static func load() -> UInt32 {
        guard let bytes = try? Files.read("/proc/loadavg", limit: 256) else { return 0 }
        let text = String(decoding: bytes.prefix { $0 != 0x20 }, as: UTF8.self)
        return Double(text).map { UInt32(clamping: Int64(min($0, 1e6) * 100)) } ?? 0
    }

    static func memory() -> (total: UInt32, available: UInt32) {
        guard let bytes = try? Files.read("/proc/meminfo", limit: 16_384) else { return (0, 0) }
        var (total, available): (UInt32, UInt32) = (0, 0)
        for line in bytes.split(separator: 0x0A).prefix(8) {
            let parts = String(decoding: line, as: UTF8.self).split(separator: " ")
            guard parts.count >= 2, let value = UInt64(parts[1]) else { continue }
            if parts[0] == "MemTotal:" { total = UInt32(clamping: value) }
            if parts[0] == "MemAvailable:" { available = UInt32(clamping: value) }
        }
        return (total, available)
    }

    /// A random number of this boot; another after a restart.
    public static func bootID() -> String {
        guard let bytes = try? Files.read("/proc/sys/kernel/random/boot_id", limit: 128) else { return "unknown" }
        return String(decoding: bytes.prefix { $0 != 0x0A }, as: UTF8.self)
    }

    public static func hostname() -> String {
        var names = utsname()
        guard uname(&names) == 0 else { return "" }
        return FactsCollector.hostname(names)
    }
}

extension FactsCollector {
    fileprivate static func hostname(_ names: utsname) -> String { text(names.nodename) }
}

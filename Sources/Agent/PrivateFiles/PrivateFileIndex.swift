import AgentProtocol
import Glibc
import JSON

/// What an agent knows of its private files: whose they are and when they end. Stands beside them, in memory too, and
/// therefore ends with them at a restart of the machine.
struct PrivateFileIndex: Sendable, Equatable {
    struct Entry: Sendable, Equatable {
        var keeper: String
        var owner: String
        /// By the clock that runs from the machine's start and also while it sleeps; nobody sets it.
        var endsAt: UInt64?
        /// What the file has to be; the hash of what is there is read when it is asked for.
        var bytes: UInt64
        var hook: [String]
        /// The hook of the last change is still to be done, or failed with this.
        var hookFault: String?
    }

    var entries: [String: Entry] = [:]

    /// Milliseconds of that clock.
    static func now() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_BOOTTIME, &time)
        return UInt64(time.tv_sec) * 1_000 + UInt64(time.tv_nsec) / 1_000_000
    }

    var nextEnd: UInt64? { entries.values.compactMap(\.endsAt).min() }
    var totalBytes: UInt64 { entries.values.reduce(0) { $0 + $1.bytes } }

    func expired(at now: UInt64) -> [String] {
        entries.filter { ($0.value.endsAt ?? .max) <= now }.map(\.key).sorted()
    }

    var serialized: [UInt8] {
        var writer = JSONWriter(reserving: 256 + 256 * entries.count)
        writer.object { writer in
            for (name, entry) in entries.sorted(by: { $0.key < $1.key }) {
                writer.name(name)
                writer.object {
                    $0.field("keeper", entry.keeper)
                    $0.field("owner", entry.owner)
                    $0.field("ends_at", ifPresent: entry.endsAt)
                    $0.field("bytes", entry.bytes)
                    if !entry.hook.isEmpty { $0.array("hook") { for word in entry.hook { $0.value(word) } } }
                    $0.field("hook_fault", ifPresent: entry.hookFault)
                }
            }
        }
        return writer.finish()
    }

    init() {}

    /// `nil`: it cannot be understood; then nothing that stands beside it is known.
    init?(parsing bytes: [UInt8]) {
        guard let object = (try? JSONValue(parsing: bytes))?.object else { return nil }
        for member in object {
            guard PrivateFileOrder.fault(inName: member.key) == nil, let keeper = member.value["keeper"]?.string else { return nil }
            entries[member.key] = Entry(
                keeper: keeper, owner: member.value["owner"]?.string ?? "",
                endsAt: member.value["ends_at"]?.integer.map { UInt64(clamping: $0) },
                bytes: UInt64(clamping: member.value["bytes"]?.integer ?? 0),
                hook: member.value["hook"]?.array?.compactMap(\.string) ?? [],
                hookFault: member.value["hook_fault"]?.string)
        }
    }
}

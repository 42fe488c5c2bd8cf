import JSON
import Program
import Reactor
import Synchronization
import System

/// What one plugin has cost in this process, over all its versions. Counted without locks.
final class PluginAccounting: Sendable {
    let calls = Atomic<UInt64>(0)
    let nanoseconds = Atomic<UInt64>(0)
    let errors = Atomic<UInt64>(0)
    let misuses = Atomic<UInt64>(0)
    let refusedForBounds = Atomic<UInt64>(0)
    let suppressedLogLines = Atomic<UInt64>(0)
    /// Loaded versions. Each keeps one descriptor, its sealed copy, for the life of the process.
    let images = Atomic<UInt64>(0)
    let imageBytes = Atomic<UInt64>(0)

    func call(nanoseconds spent: UInt64) {
        calls.wrappingAdd(1, ordering: .relaxed)
        nanoseconds.wrappingAdd(spent, ordering: .relaxed)
    }

    func loaded(_ image: PluginImage) {
        images.wrappingAdd(1, ordering: .relaxed)
        imageBytes.wrappingAdd(UInt64(image.range.upperBound - image.range.lowerBound), ordering: .relaxed)
    }

    var json: JSONValue {
        [
            "calls": .integer(Int64(clamping: calls.load(ordering: .relaxed))),
            "call_ms": .number(Double(nanoseconds.load(ordering: .relaxed) / 1_000) / 1_000),
            "errors": .integer(Int64(clamping: errors.load(ordering: .relaxed))),
            "misuses": .integer(Int64(clamping: misuses.load(ordering: .relaxed))),
            "refused": .integer(Int64(clamping: refusedForBounds.load(ordering: .relaxed))),
            "suppressed_log_lines": .integer(Int64(clamping: suppressedLogLines.load(ordering: .relaxed))),
            "image_bytes": .integer(Int64(clamping: imageBytes.load(ordering: .relaxed))),
            "descriptors": .integer(Int64(clamping: images.load(ordering: .relaxed))),
        ]
    }

    /// The host's own numbers are called client_manager_plugins_…: client_manager_plugin_… are the plugins' own.
    func register(_ metrics: Metrics, id: String, threads: @escaping @Sendable () -> Int) {
        func reading(_ name: String, _ help: String, _ isTotal: Bool = true, _ read: @escaping @Sendable (PluginAccounting) -> Double) {
            metrics.reading("client_manager_plugins_" + name, help, labels: [("plugin", id)], isTotal: isTotal) { [self] in read(self) }
        }
        reading("calls_total", "Calls of the core into the plugin.") { Double($0.calls.load(ordering: .relaxed)) }
        reading("call_seconds_total", "Time in those calls.") { Double($0.nanoseconds.load(ordering: .relaxed)) / 1e9 }
        reading("errors_total", "Calls of the plugin into the core that failed.") { Double($0.errors.load(ordering: .relaxed)) }
        reading("misuses_total", "Calls that break the rules of the header.") { Double($0.misuses.load(ordering: .relaxed)) }
        reading("refused_total", "Calls that its full queue refused.") { Double($0.refusedForBounds.load(ordering: .relaxed)) }
        reading("descriptors", "Descriptors of its loaded versions.", false) { Double($0.images.load(ordering: .relaxed)) }
        reading("image_bytes", "Address space of its loaded versions.", false) { Double($0.imageBytes.load(ordering: .relaxed)) }
        reading("threads", "Threads that carry its name.", false) { _ in Double(threads()) }
    }
}

/// The threads of this process by name. Threads that a plugin starts itself have its thread's name, unless it renames them.
/// Looked at anew once a second at most.
final class ThreadCensus: Sendable {
    private let state = Mutex<(at: UInt64, counts: [String: Int])>((0, [:]))

    func count(_ shortName: String) -> Int {
        let counts = state.withLock { state in
            let now = monotonicNanoseconds()
            if state.at == 0 || now - state.at > 1_000_000_000 { state = (now, Self.take()) }
            return state.counts
        }
        return ["p:", "w:"].reduce(0) { $0 + (counts[Self.kept($1 + shortName)] ?? 0) }
    }

    /// What the kernel keeps of a thread's name.
    private static func kept(_ name: String) -> String { String(decoding: name.utf8.prefix(15), as: UTF8.self) }

    private static func take() -> [String: Int] {
        var counts: [String: Int] = [:]
        for thread in (try? Files.list("/proc/self/task", limit: 100_000)) ?? [] {
            guard let name = try? Files.read("/proc/self/task/\(thread)/comm", limit: 64) else { continue }
            counts[String(decoding: name.prefix { $0 != 0x0A }, as: UTF8.self), default: 0] += 1
        }
        return counts
    }
}

import JSON
import Synchronization

/// What one loaded version of a plugin has cost so far. Counted without locks.
final class PluginAccounting: Sendable {
    let calls = Atomic<UInt64>(0)
    let nanoseconds = Atomic<UInt64>(0)
    let errors = Atomic<UInt64>(0)
    let misuses = Atomic<UInt64>(0)
    let refusedForBounds = Atomic<UInt64>(0)
    let suppressedLogLines = Atomic<UInt64>(0)

    func call(nanoseconds spent: UInt64) {
        calls.wrappingAdd(1, ordering: .relaxed)
        nanoseconds.wrappingAdd(spent, ordering: .relaxed)
    }

    var json: JSONValue {
        [
            "calls": .integer(Int64(clamping: calls.load(ordering: .relaxed))),
            "call_ms": .number(Double(nanoseconds.load(ordering: .relaxed) / 1_000) / 1_000),
            "errors": .integer(Int64(clamping: errors.load(ordering: .relaxed))),
            "misuses": .integer(Int64(clamping: misuses.load(ordering: .relaxed))),
            "refused": .integer(Int64(clamping: refusedForBounds.load(ordering: .relaxed))),
            "suppressed_log_lines": .integer(Int64(clamping: suppressedLogLines.load(ordering: .relaxed))),
        ]
    }
}

import Crypto
import JSON

/// What `cmctl exec` knows of a running command, from the events of its watch. Events may come twice (after a lost
/// connection) and are then without effect.
struct ExecStateMachine {
    enum Action: Equatable {
        case output([UInt8], client: String, isError: Bool)
        /// A target has reached its final state.
        case ended(client: String)
    }

    struct Target: Equatable {
        var state = "waiting"
        var exitCode: Int64?
        var detail: String?
        var readOutput: UInt64 = 0
        var readError: UInt64 = 0

        var isFinal: Bool { ExecStateMachine.finalStates.contains(state) }
    }

    static let finalStates: Set<String> = [
        "succeeded", "failed", "timed-out", "cancelled", "refused", "start-failed", "interrupted", "skipped", "expired",
        "aborted", "lost",
    ]

    private(set) var targets: [String: Target] = [:]
    private(set) var commandState = "running"
    /// Ended targets by state, as the core counts them.
    private(set) var counts: [(state: String, count: Int64)] = []

    var isFinished: Bool { commandState == "finished" }
    /// Targets of the command.
    let total: Int64

    init(total: Int64) { self.total = total }

    mutating func event(_ name: String, _ data: JSONValue) -> [Action] {
        switch name {
        case "output": return output(data)
        case "target": return target(data)
        case "command":
            if let state = data["state"]?.string { commandState = state }
            if let object = data["counts"]?.object {
                counts = object.compactMap { member in member.value.integer.map { (member.key, $0) } }
            }
            return []
        default: return []
        }
    }

    private mutating func output(_ data: JSONValue) -> [Action] {
        guard let client = data["client"]?.string, let offset = data["offset"]?.integer, offset >= 0 else { return [] }
        let bytes: [UInt8]
        if let text = data["text"]?.string {
            bytes = Array(text.utf8)
        } else if let text = data["base64"]?.string ?? data["text_base64"]?.string, let decoded = Base64.decode(text) {
            bytes = decoded
        } else {
            return []
        }
        let isError = data["stream"]?.string == "stderr"
        var target = targets[client] ?? Target()
        let read = isError ? target.readError : target.readOutput
        let end = UInt64(offset) + UInt64(bytes.count)
        guard end > read else { return [] }
        let fresh = bytes.dropFirst(Int(read > UInt64(offset) ? read - UInt64(offset) : 0))
        if isError { target.readError = end } else { target.readOutput = end }
        targets[client] = target
        return [.output(Array(fresh), client: client, isError: isError)]
    }

    private mutating func target(_ data: JSONValue) -> [Action] {
        guard let client = data["client"]?.string, let state = data["state"]?.string else { return [] }
        var target = targets[client] ?? Target()
        let wasFinal = target.isFinal
        target.state = state
        target.exitCode = data["exit_code"]?.integer ?? target.exitCode
        target.detail = data["message"]?.string ?? target.detail
        targets[client] = target
        return target.isFinal && !wasFinal ? [.ended(client: client)] : []
    }

    /// One line that says how far it is.
    var progress: String {
        let ended = counts.filter { Self.finalStates.contains($0.state) && $0.count > 0 }
        let done = ended.reduce(0) { $0 + $1.count }
        let bad = ended.filter { $0.state != "succeeded" }.map { "\($0.count) \($0.state)" }
        return "\(done)/\(total) done" + (bad.isEmpty ? "" : ": " + bad.joined(separator: ", "))
    }

    /// All well when every target succeeded or was left out on the operator's word; refused when nothing but refusals stood
    /// in the way.
    static func status(ofStates states: [String]) -> Outcome {
        let bad = states.filter { $0 != "succeeded" && $0 != "skipped" }
        if bad.isEmpty { return states.contains("succeeded") ? .success : .remoteFailure }
        return bad.allSatisfy { $0 == "refused" } && bad.count == states.count ? .refused : .remoteFailure
    }
}

import JSON

/// What `cmctl shell` knows of its terminal: where output goes on after a lost connection, how it ended, and whether the
/// detach key was pressed. A value without I/O.
struct ShellStateMachine {
    enum Action: Equatable {
        case print([UInt8])
        /// For the person, not of the terminal.
        case say(String)
        /// Show what the window is like.
        case tellSize
    }

    enum End: Equatable {
        /// The program's exit status; 128 and the signal's number; 255 for any other end.
        case exited(Int32, String?)
    }

    /// Ctrl-] : what telnet and virsh use.
    static let detachKey: UInt8 = 0x1D

    /// Next byte of output that is wanted; `nil`: all that is kept.
    private(set) var offset: UInt64?
    private(set) var end: End?
    private(set) var isDetached = false
    private var wasAttached = false

    mutating func output(_ bytes: [UInt8]) -> [Action] {
        offset = (offset ?? 0) + UInt64(bytes.count)
        return [.print(bytes)]
    }

    mutating func notice(_ text: [UInt8]) -> [Action] {
        guard let json = try? JSONValue(parsing: text) else { return [] }
        switch json["type"]?.string {
        case "attached":
            offset = json["offset"]?.integer.flatMap { UInt64(exactly: $0) } ?? offset
            defer { wasAttached = true }
            return wasAttached ? [.say("attached again"), .tellSize] : [.tellSize]
        case "gap":
            let from = json["from"]?.integer ?? 0
            let to = json["to"]?.integer ?? 0
            offset = UInt64(exactly: to) ?? offset
            // Before the first byte it only says that the beginning is not kept any more.
            return from == 0 && !wasAttached ? [] : [.say("\(to - from) bytes of output are not kept any more")]
        case "link": return [.say(json["up"]?.bool == true ? "the client is back" : "the client is away; what you type waits")]
        case "exit":
            end = Self.end(json["result"] ?? .null)
            return []
        default: return []
        }
    }

    private static func end(_ result: JSONValue) -> End {
        let message = result["message"]?.string
        switch result["outcome"]?.string {
        case "exited": return .exited(Int32(clamping: result["exit_code"]?.integer ?? 0), nil)
        case "signaled": return .exited(Int32(clamping: 128 + (result["signal"]?.integer ?? 0)), "ended by signal \(result["signal"]?.integer ?? 0)")
        case "timed-out": return .exited(255, "the terminal's time is over")
        case "closed": return .exited(255, "the terminal was ended")
        case let outcome: return .exited(255, message ?? outcome ?? "ended")
        }
    }

    /// What of the keystrokes goes to the terminal.
    mutating func typed(_ bytes: [UInt8]) -> [UInt8] {
        guard let index = bytes.firstIndex(of: Self.detachKey) else { return bytes }
        isDetached = true
        return Array(bytes[..<index])
    }
}

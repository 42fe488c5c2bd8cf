import JSON
import PluginKit
import Synchronization

/// Writes a session down as asciicast v2 (https://docs.asciinema.org/manual/asciicast/v2/): a header line, then one line per
/// event. Lines are collected on the core's loops and written on the plugin's thread; the blob has a cap.
final class Recorder: Sendable {
    private struct State {
        var pending: [UInt8] = []
        var written: UInt64 = 0
        /// Beginning of a character that a read cut in two.
        var partial: [UInt8] = []
        var isFull = false
    }
    /// Waiting to be written; over half of it, output is held up.
    private static let pendingBytes = 1 << 20

    let blob: String
    let startedAt: UInt64
    private let limit: UInt64
    private let recordsInput: Bool
    private let now: @Sendable () -> UInt64
    private let state = Mutex(State())

    init(
        session: Session.Shape, terminal: String, limit: UInt64, recordsInput: Bool, isNew: Bool, written: UInt64,
        startedAt: UInt64, now: @escaping @Sendable () -> UInt64
    ) {
        blob = "recordings/\(session.id).cast"
        self.startedAt = startedAt
        self.limit = limit
        self.recordsInput = recordsInput
        self.now = now
        state.withLock { $0.written = written }
        guard isNew else { return }
        var writer = JSONWriter()
        writer.object {
            $0.field("version", UInt64(2))
            $0.field("width", UInt64(session.columns))
            $0.field("height", UInt64(session.rows))
            $0.field("timestamp", startedAt / 1_000)
            $0.field("title", "\(session.program) on \(session.client)")
            $0.field("env", ["TERM": .string(terminal)] as JSONObject)
        }
        let line = writer.finish()
        state.withLock { $0.pending = line + [0x0A] }
    }

    var hasRoom: Bool { state.withLock { $0.pending.count < Self.pendingBytes / 2 } }

    func output(_ bytes: RawSpan) {
        state.withLock { state in
            var data = state.partial + [UInt8](bytes)
            let whole = Self.wholeCharacters(data)
            state.partial = Array(data[whole...])
            data.removeSubrange(whole...)
            add("o", String(decoding: data, as: UTF8.self), &state)
        }
    }

    func input(_ bytes: RawSpan) {
        guard recordsInput else { return }
        let text = String(bytes)
        state.withLock { add("i", text, &$0) }
    }

    func resize(rows: Int, columns: Int) { state.withLock { add("r", "\(columns)x\(rows)", &$0) } }

    private func add(_ kind: String, _ text: String, _ state: inout State) {
        guard !text.isEmpty, !state.isFull else { return }
        let time = Double(now() - min(now(), startedAt)) / 1_000
        let line = JSONValue.array([.number(time), .string(kind), .string(text)]).serialized() + [0x0A]
        guard state.written + UInt64(state.pending.count + line.count) <= limit, state.pending.count + line.count <= Self.pendingBytes else {
            state.isFull = true
            let note = JSONValue.array([.number(time), "m", "the recording has reached its largest size"]).serialized() + [0x0A]
            state.pending += note
            return
        }
        state.pending += line
    }

    /// How much of the front ends with a whole character (RFC 3629); a torn one is at most three bytes.
    private static func wholeCharacters(_ data: [UInt8]) -> Int {
        var index = data.count
        for _ in 0..<4 where index > 0 {
            index -= 1
            let byte = data[index]
            if byte & 0xC0 == 0x80 { continue }
            let length = byte < 0x80 ? 1 : byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1
            return data.count - index >= length ? data.count : index
        }
        return data.count
    }

    /// What is to be written now. On the plugin's thread.
    func take() -> [UInt8] {
        state.withLock { state in
            defer { state.pending = [] }
            return state.pending
        }
    }

    func wrote(_ count: Int) { state.withLock { $0.written += UInt64(count) } }
    var isFull: Bool { state.withLock { $0.isFull } }
}

import Glibc
import JSON
import Program
import Synchronization
import Testing

private final class Lines: Sendable {
    private let bytes = Mutex<[[UInt8]]>([])
    func add(_ line: [UInt8]) { bytes.withLock { $0.append(line) } }
    var all: [[UInt8]] { bytes.withLock { $0 } }
    var parsed: [JSONValue] { all.compactMap { try? JSONValue(parsing: $0) } }
}

@Suite struct LogTests {
    private func make(_ level: LogLevel = .info) -> (Log, Lines) {
        let lines = Lines()
        return (Log(level: level, clock: { Timestamp(milliseconds: 1_700_000_000_123) }) { lines.add($0) }, lines)
    }

    @Test func linesAreObjects() {
        let (log, lines) = make()
        log.with(["correlation": "c1"]).info("client.online", ["client": "a\nb", "count": 3])
        #expect(lines.all.first?.last == 0x0A)
        #expect(
            lines.parsed == [
                [
                    "time": "2023-11-14T22:13:20.123Z", "level": "info", "event": "client.online", "client": "a\nb", "count": 3,
                    "correlation": "c1",
                ]
            ])
    }

    @Test func levelChangesForAllHandles() {
        let (log, lines) = make()
        let derived = log.with(["part": "x"])
        derived.debug("hidden")
        log.level = .debug
        derived.debug("shown")
        log.level = .error
        derived.warning("hidden")
        #expect(lines.parsed.compactMap { $0["event"]?.string } == ["shown"])
        #expect(LogLevel(name: "warning") == .warning && LogLevel(name: "loud") == nil)
    }

    @Test func fieldsCannotForgeTheHead() {
        let (log, lines) = make()
        log.with(["a": 1]).info("e", ["level": "error", "a": 2])
        #expect(lines.parsed.first?["level"] == "info")
        #expect(lines.parsed.first?["a"] == 2)
    }

    @Test func linesAreBounded() {
        let (log, lines) = make()
        log.info("long", ["text": .string(String(repeating: "é", count: 100_000))])
        log.info("many", JSONObject((0..<2_000).map { ("key\($0)", .string("some value")) }))
        #expect(lines.all.allSatisfy { $0.count <= 16 << 10 })
        #expect(lines.parsed.count == 2)
        #expect(lines.parsed.last?["truncated"] == true)
    }

    /// A reader that stops costs lines, never time, and the loss is told.
    @Test func aStuckReaderStopsNobody() throws {
        var ends: [Int32] = [0, 0]
        #expect(pipe(&ends) == 0)
        defer { close(ends[0]) }
        let writer = LogWriter(descriptor: ends[1], limit: 64 << 10)
        let log = Log { writer.write($0) }
        for number in 0..<20_000 { log.info("line", ["number": .integer(Int64(number))]) }
        let reading = Reading(ends[0])
        writer.close()
        close(ends[1])
        let lines = reading.lines()
        let events = lines.compactMap { try? JSONValue(parsing: $0) }
        #expect(events.count == lines.count)
        let written = events.count { $0["event"] == "line" }
        let dropped = events.compactMap { $0["lines"]?.integer }.reduce(0, +)
        #expect(written > 0 && dropped > 0)
        #expect(Int64(written) + dropped == 20_000)
    }
}

/// Reads a pipe to its end on a thread of its own.
private final class Reading: Sendable {
    private let thread: pthread_t

    init(_ descriptor: Int32) {
        final class Job {
            let descriptor: Int32
            let collect: @Sendable ([UInt8]) -> Void
            init(_ descriptor: Int32, _ collect: @escaping @Sendable ([UInt8]) -> Void) {
                self.descriptor = descriptor
                self.collect = collect
            }
        }
        let box = Box()
        let job = Unmanaged.passRetained(Job(descriptor) { box.add($0) })
        var created = pthread_t()
        pthread_create(&created, nil, { pointer in
            guard let pointer else { return nil }
            let job = Unmanaged<Job>.fromOpaque(pointer).takeRetainedValue()
            var block = [UInt8](repeating: 0, count: 4096)
            while true {
                let count = read(job.descriptor, &block, block.count)
                if count <= 0 { return nil }
                job.collect(Array(block[..<count]))
            }
        }, job.toOpaque())
        thread = created
        self.box = box
    }

    private final class Box: Sendable {
        private let bytes = Mutex<[UInt8]>([])
        func add(_ more: [UInt8]) { bytes.withLock { $0 += more } }
        var all: [UInt8] { bytes.withLock { $0 } }
    }
    private let box: Box

    func lines() -> [[UInt8]] {
        pthread_join(thread, nil)
        return box.all.split(separator: 0x0A).map { Array($0) }
    }
}

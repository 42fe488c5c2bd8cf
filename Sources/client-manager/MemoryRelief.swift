import Program
import Reactor
import System

/// Gives memory back when a storm is over. What ten thousand handshakes needed for a moment stays with the C library, in holes
/// between what lives on: a tenth of the core's memory, for good. Asked for while the core works it would be taken again at once.
enum MemoryRelief {
    /// Milliseconds between looks.
    private static let interval: UInt64 = 10_000

    /// On the loop, as long as it runs.
    static func start(on loop: EventLoop, log: Log) {
        loop.spawn {
            var watch = StormWatch()
            var last = (time: monotonicNanoseconds(), processor: processorNanoseconds())
            while true {
                await loop.sleep(milliseconds: interval)
                let now = (time: monotonicNanoseconds(), processor: processorNanoseconds())
                let isOver = watch.look(processor: now.processor &- last.processor, time: now.time &- last.time)
                last = now
                if isOver { release(log) }
            }
        }
    }

    /// On a thread of its own: it walks through every heap. Where none can be started, the memory stays until the next storm.
    private static func release(_ log: Log) {
        try? NativeThread.start(name: "memory") {
            let start = monotonicNanoseconds()
            releaseFreeMemory()
            log.debug("memory.released", ["us": .integer(Int64(clamping: (monotonicNanoseconds() &- start) / 1_000))])
        }
    }
}

/// Tells when the process has come to rest after it was busy: once for each time that it was.
struct StormWatch {
    /// Of one processor, in per cent: ten thousand idle agents take a few (3 at 15 s between beats, 10 with somebody who reads
    /// /metrics all the time), a storm takes all there are.
    private static let busyPercent: UInt64 = 25
    private var wasBusy = false

    /// - Parameters: nanoseconds of processor time that the process took within `time` nanoseconds.
    mutating func look(processor: UInt64, time: UInt64) -> Bool {
        let isBusy = processor > time / 100 &* Self.busyPercent
        defer { wasBusy = isBusy }
        return wasBusy && !isBusy
    }
}

import Glibc
import Reactor
import Synchronization
import System

/// The plugin's own thread: what is posted runs there one after the other, bounded, with a stamp for the watchdog.
///
/// The thread ends with `close`. A thread that is stuck in the plugin is abandoned: nobody waits for it, and nothing
/// more runs on it.
final class PluginThread: Sendable {
    typealias Work = @Sendable () -> Void

    private struct Mailbox {
        var waiting: [Work] = []
        var next = 0
        var isClosed = false
        var hasEnded = false
    }
    private let mailbox = Monitor(Mailbox())
    private let capacity: Int
    /// Monotonic nanoseconds at which the running callback began; 0: idle.
    private let busySince = Atomic<UInt64>(0)
    /// Text of a `StaticString`: its address; 0 for none. What the thread is in now, for messages.
    private let function = Atomic<UInt>(0)
    private let identity = Atomic<UInt>(0)

    init(name: String, capacity: Int = 4_096) throws(SystemError) {
        self.capacity = capacity
        try NativeThread.start(name: name, stackBytes: 1 << 20) { [self] in run() }
    }

    /// False: full or closed; the work does not run.
    func post(_ work: @escaping Work) -> Bool {
        mailbox.update { box in
            guard !box.isClosed, box.waiting.count - box.next < capacity else { return false }
            box.waiting.append(work)
            return true
        }
    }

    /// The same for the host's own work (lifecycle, last calls), which no bound refuses.
    func postAlways(_ work: @escaping Work) -> Bool {
        mailbox.update { box in
            guard !box.isClosed else { return false }
            box.waiting.append(work)
            return true
        }
    }

    /// What was accepted still runs; then the thread ends.
    func close() { mailbox.update { $0.isClosed = true } }

    /// Nothing more runs, whatever waits: the thread is stuck.
    func abandon() {
        mailbox.update { box in
            box.isClosed = true
            box.waiting.removeAll()
            box.next = 0
        }
    }

    /// False when the deadline passed first. Not on this thread.
    func join(_ deadline: Deadline) -> Bool {
        mailbox.wait(until: deadline.nanoseconds) { $0.hasEnded ? true : nil } ?? false
    }

    var isCurrent: Bool { identity.load(ordering: .relaxed) == UInt(pthread_self()) }
    var depth: Int { mailbox.update { $0.waiting.count - $0.next } }

    /// How long the present callback has been running, and which it is.
    func stuck(now: UInt64) -> (nanoseconds: UInt64, function: String)? {
        let since = busySince.load(ordering: .acquiring)
        guard since != 0, now > since else { return nil }
        return (now - since, functionName)
    }

    private var functionName: String {
        guard let text = UnsafePointer<CChar>(bitPattern: function.load(ordering: .relaxed)) else { return "a callback" }
        return String(cString: text)
    }

    /// Marks the time spent in one of the plugin's functions. On this thread.
    func inside<Result>(_ name: StaticString, _ body: () -> Result) -> Result {
        let outer = function.load(ordering: .relaxed)
        function.store(UInt(bitPattern: name.utf8Start), ordering: .relaxed)
        busySince.store(monotonicNanoseconds(), ordering: .releasing)
        defer {
            busySince.store(0, ordering: .releasing)
            function.store(outer, ordering: .relaxed)
        }
        return body()
    }

    private func run() {
        identity.store(UInt(pthread_self()), ordering: .relaxed)
        while let work = take() { work() }
        mailbox.update { $0.hasEnded = true }
    }

    private func take() -> Work? {
        mailbox.wait { box -> Work?? in
            if box.next < box.waiting.count {
                let work = box.waiting[box.next]
                box.next += 1
                if box.next == box.waiting.count {
                    box.waiting.removeAll(keepingCapacity: box.next <= 1_024)
                    box.next = 0
                } else if box.next >= 64, box.next * 2 >= box.waiting.count {
                    box.waiting.removeFirst(box.next)
                    box.next = 0
                }
                return .some(work)
            }
            return box.isClosed ? .some(nil) : nil
        } ?? nil
    }
}

import CLinux
import Glibc
import Synchronization

/// One thread with one epoll set: sources, timers, mail from other threads, and Swift tasks.
///
/// Confined things (sources, timers, `now`) may be touched only on the loop's thread; debug builds trap otherwise.
/// `post`, `spawn` and `enqueue` may be called from any thread.
///
/// It is a task executor and on purpose no serial one: a job that ran as isolated to a serial executor would be enqueued
/// once more at each suspension, to get back to its task's preference.
///
/// A loop with little to do that posts to one that sleeps does not wake its thread: at the end of its own turn it does that
/// loop's mail itself, as that loop (see `lend`). So "the loop's thread" is the one that holds `running`, and `current` says
/// which loop that is.
///
/// `@unchecked Sendable`: `mail`, `running`, `asleep`, `finished` and the descriptors are safe across threads by their types;
/// every other stored property is read and written only by who holds `running`, after `start` has handed it over.
public final class EventLoop: TaskExecutor, @unchecked Sendable {
    public let name: String

    private enum Letter {
        case work(@Sendable () -> Void)
        case job(UnownedJob)
    }
    private struct Mail: ~Copyable {
        var letters: [Letter] = []
        var stopping = false
    }
    private let mail = Mutex(Mail())
    /// Held by whoever runs a turn of this loop: its own thread, or one that does the mail in its place while it sleeps.
    private let running = Mutex(())
    /// True only while the thread is (about to be) in epoll_wait: writers signal the eventfd only then.
    private let asleep = Atomic<Bool>(false)
    private let finished = Finished()
    private let epoll: Int32
    private let wakeDescriptor: Int32

    /// Above these a turn is no light one, and the other's thread is woken at once. Nanoseconds: about what a wake costs.
    private static let lightEvents: Int32 = 4
    private static let lightTime: UInt64 = 60_000
    private static let lentLetters = 16
    private static let lentRounds = 4

    // Confined to who holds `running`. Those that each event touches are not checked for exclusivity: no access to one of
    // them lasts over a call of somebody else's code.
    private var batch: [Letter] = []
    @exclusivity(unchecked) private var local: [Letter] = []
    private var sources: [Source?] = []
    @exclusivity(unchecked) private var graveyard: [Source] = []
    private var timers = TimerHeap()
    private var turnEnds: [() -> Void] = []
    @exclusivity(unchecked) private var cachedNow: UInt64 = 0
    private var residents: [ObjectIdentifier: AnyObject] = [:]
    /// This turn has few events.
    @exclusivity(unchecked) private var isLight = true
    /// Loops that slept when this turn posted to them.
    @exclusivity(unchecked) private var sleepers: [EventLoop] = []
    /// What epoll_wait was told to wait for, monotonic nanoseconds; only with `timers` to compare.
    private var sleepsUntil: UInt64 = 0
    @exclusivity(unchecked) private var waitMilliseconds: Int32 = 0

    /// Starts the thread. It runs until `stop`.
    public static func start(name: String) throws(ReactorError) -> EventLoop {
        let loop = try EventLoop(name: name)
        var thread = pthread_t()
        let context = Unmanaged.passRetained(loop).toOpaque()
        let status = pthread_create(&thread, nil, { context in
            guard let context else { return nil }
            let loop = Unmanaged<EventLoop>.fromOpaque(context).takeRetainedValue()
            loop.run()
            return nil
        }, context)
        guard status == 0 else {
            Unmanaged<EventLoop>.fromOpaque(context).release()
            throw ReactorError(call: "pthread_create", errno: status)
        }
        pthread_detach(thread)
        return loop
    }

    private init(name: String) throws(ReactorError) {
        self.name = name
        let epoll = cm_epoll_create()
        guard epoll >= 0 else { throw ReactorError(call: "epoll_create1", errno: -epoll) }
        let wake = cm_eventfd()
        guard wake >= 0 else {
            close(epoll)
            throw ReactorError(call: "eventfd", errno: -wake)
        }
        self.epoll = epoll
        wakeDescriptor = wake
        let status = cm_epoll_add(epoll, wake, cm_epoll_read_level(), nil)
        guard status == 0 else {
            close(epoll)
            close(wake)
            throw ReactorError(call: "epoll_ctl", errno: -status)
        }
        cachedNow = monotonicNanoseconds()
    }

    deinit {
        close(epoll)
        close(wakeDescriptor)
    }

    // MARK: Any thread

    /// The loop whose thread this is.
    public static var current: EventLoop? {
        cm_thread_loop().map { Unmanaged<EventLoop>.fromOpaque($0).takeUnretainedValue() }
    }

    public var isCurrent: Bool { cm_thread_loop() == Unmanaged.passUnretained(self).toOpaque() }

    /// Traps in every build: for entry points that would corrupt confined state.
    public func preconditionCurrent() {
        precondition(isCurrent, "called off the event loop that owns this")
    }

    @inline(__always)
    public func assertCurrent() {
        assert(isCurrent, "called off the event loop that owns this")
    }

    /// Runs `work` on the loop, in the order of the calls of each thread; after `stop` it is dropped.
    public func post(_ work: @escaping @Sendable () -> Void) { deliver(.work(work)) }

    /// Starts a task that runs on this loop. The only way to start one: a bare `Task` would run on the global pool,
    /// where a request costs twice as much.
    ///
    /// Generic like `Task` itself: a closure is then passed on as it is, without a shell around it that adapts its result.
    @discardableResult
    public func spawn<Success: Sendable>(
        _ body: sending @escaping @isolated(any) () async -> Success
    ) -> Task<Success, Never> {
        Task(executorPreference: self, operation: body)
    }

    public func enqueue(_ job: consuming ExecutorJob) { deliver(.job(UnownedJob(job))) }

    public func asUnownedTaskExecutor() -> UnownedTaskExecutor { UnownedTaskExecutor(ordinary: self) }

    /// Ends the thread after the present turn. Idempotent.
    public func stop() {
        mail.withLock { $0.stopping = true }
        wake()
    }

    /// Blocks the calling thread until the loop's thread has ended. Never call it on a loop.
    public func join() { finished.wait() }

    private func deliver(_ letter: Letter) {
        let current = EventLoop.current
        if current === self {
            local.append(letter)
            return
        }
        mail.withLock { $0.letters.append(letter) }
        guard asleep.load(ordering: .sequentiallyConsistent) else { return }
        guard let current, current.isTurnLight else { return wake() }
        if !current.sleepers.contains(where: { $0 === self }) { current.sleepers.append(self) }
    }

    private func wake() {
        if asleep.exchange(false, ordering: .sequentiallyConsistent) { _ = cm_eventfd_signal(wakeDescriptor) }
    }

    // MARK: On the loop

    /// Monotonic nanoseconds, read once per turn.
    public var now: UInt64 {
        assertCurrent()
        return cachedNow
    }

    /// Watches the source for all edges until `remove`. Without `writable` those come only while `watchWritable` asks for
    /// them: of a Unix socket each packet that the peer takes is such an edge, and a wake of this thread.
    public func add(_ source: Source, writable: Bool = true) throws(ReactorError) {
        assertCurrent()
        let descriptor = Int(source.descriptor)
        let context = Unmanaged.passUnretained(source).toOpaque()
        let status = cm_epoll_add(epoll, source.descriptor, Self.edges(writable: writable), context)
        guard status == 0 else { throw ReactorError(call: "epoll_ctl", errno: -status) }
        if sources.count <= descriptor {
            sources.append(contentsOf: repeatElement(nil, count: descriptor + 1 - sources.count))
        }
        sources[descriptor] = source
    }

    /// Whether the source hears that it can write; if it can now, it hears so in the next turn.
    public func watchWritable(_ source: Source, _ isOn: Bool) {
        assertCurrent()
        let descriptor = Int(source.descriptor)
        guard descriptor < sources.count, sources[descriptor] === source else { return }
        let context = Unmanaged.passUnretained(source).toOpaque()
        // Of a descriptor that is registered it cannot fail.
        _ = cm_epoll_modify(epoll, source.descriptor, Self.edges(writable: isOn), context)
    }

    private static func edges(writable: Bool) -> UInt32 { writable ? cm_epoll_all_edges() : cm_epoll_read_edges() }

    /// No event reaches the source after this; it stays alive to the end of the turn.
    public func remove(_ source: Source) {
        assertCurrent()
        let descriptor = Int(source.descriptor)
        guard descriptor < sources.count, sources[descriptor] === source else { return }
        _ = cm_epoll_remove(epoll, source.descriptor)
        graveyard.append(source)  // First: the table's reference may be the last one that really counts (see dispatch).
        sources[descriptor] = nil
    }

    public func schedule(_ timer: Timer, afterMilliseconds milliseconds: UInt64) {
        assertCurrent()
        let (nanoseconds, overflow) = milliseconds.multipliedReportingOverflow(by: 1_000_000)
        timers.schedule(timer, at: overflow ? .max : cachedNow &+ nanoseconds)
    }

    public func cancel(_ timer: Timer) {
        assertCurrent()
        timers.cancel(timer)
    }

    /// Calls `hook` at the end of every turn from now on, before the loop sleeps: the place to flush what many events
    /// of a turn have queued.
    public func atEndOfTurn(_ hook: @escaping () -> Void) {
        assertCurrent()
        turnEnds.append(hook)
    }

    /// The one object of its type that lives as long as this loop: buffers that all its connections share. Made at the
    /// first call.
    public func resident<Object: AnyObject>(_ make: (EventLoop) -> Object) -> Object {
        assertCurrent()
        if let present = residents[ObjectIdentifier(Object.self)] as? Object { return present }
        let object = make(self)
        residents[ObjectIdentifier(Object.self)] = object
        return object
    }

    /// Suspends the calling task; other work of the loop goes on.
    public func sleep(milliseconds: UInt64) async {
        await withUnsafeContinuation { (continuation: UnsafeContinuation<Void, Never>) in
            onLoop {
                self.schedule(Timer { continuation.resume() }, afterMilliseconds: milliseconds)
            }
        }
    }

    /// At once if this is the loop's thread, else by mail.
    public func onLoop(_ work: @escaping @Sendable () -> Void) {
        if isCurrent { work() } else { post(work) }
    }

    // MARK: The thread

    private func run() {
        cm_thread_set_name(name)
        // Without it an overflow of the stack would leave no crash record.
        _ = cm_crash_use_own_stack()
        defer { cm_crash_release_own_stack() }
        cm_thread_set_loop(Unmanaged.passUnretained(self).toOpaque())
        let capacity: Int32 = 512
        let memory = UnsafeMutableRawPointer.allocate(byteCount: cm_epoll_array_bytes(capacity), alignment: 16)
        defer { memory.deallocate() }
        let events = memory.assumingMemoryBound(to: epoll_event.self)
        while turn(events, capacity) {}
        running.withLock { _ in drainAfterStop() }
        cm_thread_set_loop(nil)
        finished.signal()
    }

    private func turn(_ events: UnsafeMutablePointer<epoll_event>, _ capacity: Int32) -> Bool {
        let count = cm_epoll_wait(epoll, events, capacity, waitMilliseconds)
        return running.withLock { _ in
            asleep.store(false, ordering: .sequentiallyConsistent)
            cachedNow = monotonicNanoseconds()
            isLight = count <= Self.lightEvents
            if count > 0 {
                for index in 0..<count {
                    dispatch(cm_epoll_context(events, index), Readiness(rawValue: cm_epoll_events(events, index)))
                }
            }
            let goesOn = runMail()
            while let timer = timers.popDue(cachedNow) { timer.handler() }
            for hook in turnEnds { hook() }
            if !graveyard.isEmpty { graveyard.removeAll(keepingCapacity: true) }
            visitSleepers()
            waitMilliseconds = timeout()
            return goesOn
        }
    }

    // MARK: In place of a thread that sleeps

    private var isTurnLight: Bool { isLight && monotonicNanoseconds() &- cachedNow < Self.lightTime }

    /// The end of a turn: nothing of this loop is under way on the stack.
    private func visitSleepers() {
        guard !sleepers.isEmpty else { return }
        let isLight = isTurnLight
        while let loop = sleepers.popLast() {
            guard isLight else {
                loop.wake()
                continue
            }
            cm_thread_set_loop(Unmanaged.passUnretained(loop).toOpaque())
            // Not to be had: its thread is up, or another one is doing this and may have taken the mail before ours came.
            let isDone = loop.running.withLockIfAvailable { _ in loop.lend() } ?? false
            cm_thread_set_loop(Unmanaged.passUnretained(self).toOpaque())
            if !isDone { loop.wake() }
        }
    }

    /// Runs this loop's mail on the caller's thread, while its own is in epoll_wait. False: its own has to go on.
    ///
    /// What that thread may have in its hands, events of sources that are removed here, stays good: the graveyard is
    /// emptied by itself alone. Its timers are its own to run; it is woken for one that is earlier than what it waits for.
    private func lend() -> Bool {
        guard mail.withLock({ $0.letters.count <= Self.lentLetters && !$0.stopping }) else { return false }
        cachedNow = monotonicNanoseconds()
        // To others that sleep it leads no further: their mail might come back to this one.
        isLight = false
        var rounds = 0
        repeat {
            guard runMail() else { return false }
            for hook in turnEnds { hook() }
            rounds += 1
        } while !local.isEmpty && rounds < Self.lentRounds
        return local.isEmpty && timers.nextDeadline ?? .max >= sleepsUntil
    }

    private func dispatch(_ context: UnsafeMutableRawPointer?, _ readiness: Readiness) {
        guard let context else {
            _ = cm_eventfd_drain(wakeDescriptor)
            return
        }
        // The table or the graveyard holds the source for the whole turn. One that was removed earlier in this turn is
        // no longer in the table and must not hear of it.
        Unmanaged<Source>.fromOpaque(context)._withUnsafeGuaranteedRef { source in
            let descriptor = Int(source.descriptor)
            guard descriptor < sources.count, sources[descriptor] === source else { return }
            source.ready(readiness)
        }
    }

    /// Milliseconds for epoll_wait. Announces sleep before the last look at the mailbox, so that no letter is missed.
    private func timeout() -> Int32 {
        sleepsUntil = 0
        guard local.isEmpty else { return 0 }
        asleep.store(true, ordering: .sequentiallyConsistent)
        guard mail.withLock({ $0.letters.isEmpty && !$0.stopping }) else { return 0 }
        sleepsUntil = timers.nextDeadline ?? .max
        guard let deadline = timers.nextDeadline else { return -1 }
        let now = monotonicNanoseconds()
        guard deadline > now else { return 0 }
        return Int32(clamping: (deadline - now + 999_999) / 1_000_000)
    }

    /// Runs what had arrived when it was called; what that adds waits for the next turn, so sources never starve.
    private func runMail() -> Bool {
        // A job may deliver to this loop while it runs: take each batch into a variable of its own first.
        var batch = self.batch
        self.batch = []
        swap(&batch, &local)
        run(batch)
        batch.removeAll(keepingCapacity: true)
        let running = mail.withLock { mail in
            swap(&batch, &mail.letters)
            return !mail.stopping
        }
        run(batch)
        batch.removeAll(keepingCapacity: true)
        self.batch = batch
        return running
    }

    private func run(_ letters: [Letter]) {
        for letter in letters {
            switch letter {
            case .work(let work): work()
            case .job(let job): job.runSynchronously(on: asUnownedTaskExecutor())
            }
        }
    }

    /// Jobs must run, or their tasks leak; a bounded number of rounds lets short chains finish.
    private func drainAfterStop() {
        // No end of a turn comes any more at which it could do the mail of others.
        isLight = false
        for _ in 0..<64 {
            _ = runMail()
            if local.isEmpty, mail.withLock({ $0.letters.isEmpty }) { break }
        }
        sources.removeAll()
        graveyard.removeAll()
    }
}

/// CLOCK_MONOTONIC in nanoseconds.
public func monotonicNanoseconds() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
}

/// CLOCK_REALTIME in milliseconds since 1970.
public func unixMilliseconds() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_REALTIME, &time)
    return UInt64(time.tv_sec) &* 1_000 &+ UInt64(time.tv_nsec) / 1_000_000
}

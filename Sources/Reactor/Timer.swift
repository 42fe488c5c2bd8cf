/// A one-shot timer of one event loop. Scheduling it again moves it. Touched only on that loop.
///
/// For time-outs that activity pushes back, note the time of the activity and schedule the remainder when the timer
/// fires; re-arming per message would cost a heap operation each.
public final class Timer {
    fileprivate(set) var deadline: UInt64 = 0
    fileprivate var index = -1
    let handler: () -> Void

    public init(_ handler: @escaping () -> Void) { self.handler = handler }

    public var isScheduled: Bool { index >= 0 }
}

/// The timers of a loop as a binary heap by deadline; each timer knows its place, so cancelling needs no search.
struct TimerHeap {
    private var timers: [Timer] = []

    var nextDeadline: UInt64? { timers.first?.deadline }

    mutating func schedule(_ timer: Timer, at deadline: UInt64) {
        if timer.index < 0 {
            timer.index = timers.count
            timers.append(timer)
        }
        timer.deadline = deadline
        siftDown(siftUp(timer.index))
    }

    mutating func cancel(_ timer: Timer) {
        let index = timer.index
        guard index >= 0 else { return }
        timer.index = -1
        let last = timers.removeLast()
        guard last !== timer else { return }
        last.index = index
        timers[index] = last
        siftDown(siftUp(index))
    }

    mutating func popDue(_ now: UInt64) -> Timer? {
        guard let first = timers.first, first.deadline <= now else { return nil }
        cancel(first)
        return first
    }

    @discardableResult
    private mutating func siftUp(_ start: Int) -> Int {
        var index = start
        while index > 0 {
            let parent = (index - 1) / 2
            guard timers[index].deadline < timers[parent].deadline else { break }
            exchange(index, parent)
            index = parent
        }
        return index
    }

    private mutating func siftDown(_ start: Int) {
        var index = start
        while true {
            var least = index
            for child in (2 * index + 1)...(2 * index + 2)
            where child < timers.count && timers[child].deadline < timers[least].deadline {
                least = child
            }
            guard least != index else { return }
            exchange(index, least)
            index = least
        }
    }

    private mutating func exchange(_ a: Int, _ b: Int) {
        timers.swapAt(a, b)
        timers[a].index = a
        timers[b].index = b
    }
}

import Testing

@testable import Kernel

@Suite struct DueQueueTests {
    @Test func eachComesWhenItIsDueAndOnceInOrder() {
        var queue = DueQueue<Int>()
        #expect(queue.nextDue == nil && queue.take(now: .max) == nil)
        queue.append(1, due: 10)
        queue.append(2, due: 10)
        queue.append(3, due: 12)
        #expect(queue.nextDue == 10 && queue.take(now: 9) == nil)
        #expect(queue.take(now: 11) == 1 && queue.take(now: 11) == 2 && queue.take(now: 11) == nil)
        #expect(queue.nextDue == 12 && queue.take(now: 12) == 3 && queue.isEmpty)
    }

    /// Many more than it ever holds: the places of those that are gone are used again.
    @Test func nothingIsLostOrDoubledWhileItIsCompacted() {
        var queue = DueQueue<UInt64>()
        var taken: UInt64 = 0
        for now in 0..<20_000 as Range<UInt64> {
            queue.append(now, due: now + 3_000)
            while let next = queue.take(now: now) {
                #expect(next == taken && next + 3_000 <= now)
                taken += 1
            }
        }
        #expect(taken == 17_000)
        while queue.take(now: .max) != nil { taken += 1 }
        #expect(taken == 20_000 && queue.isEmpty)
    }
}

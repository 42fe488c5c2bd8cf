import JSON
import Kernel
import Reactor
import Testing

@Suite struct EventsTests {
    private func publish(_ events: Events, _ range: ClosedRange<Int>) {
        for number in range { events.publish(Event(kind: "test.number", subject: "\(number)")) }
    }

    @Test func aReaderGetsWhatCameAfterItsPosition() {
        let events = Events(run: 7)
        publish(events, 1...3)
        let position = events.end
        publish(events, 4...5)
        let page = events.page(after: position)
        #expect(page.events.map(\.subject) == ["4", "5"])
        #expect(page.missed == 0 && !page.restarted)
        #expect(events.page(after: page.next).events.isEmpty)
    }

    @Test func aSlowReaderIsToldHowMuchItMissed() {
        let events = Events(run: 7, capacity: 4)
        publish(events, 1...10)
        let page = events.page(after: EventCursor(run: 7, sequence: 2))
        #expect(page.missed == 4)
        #expect(page.events.map(\.subject) == ["7", "8", "9", "10"])
    }

    @Test func theRingHoldsNoMoreBytesThanItMay() {
        let events = Events(run: 7, capacity: 1_000, maximumBytes: 1_000)
        publish(events, 1...500)
        let held = events.page(after: EventCursor(run: 7, sequence: 0), limit: 1_000).events
        #expect(held.reduce(0) { $0 + $1.json.count } <= 1_000)
        #expect(held.last?.subject == "500")
    }

    @Test func aPositionOfAnEarlierRunIsARestart() {
        let events = Events(run: 8)
        publish(events, 1...2)
        let page = events.page(after: EventCursor(run: 7, sequence: 90))
        #expect(page.restarted)
        #expect(page.events.map(\.subject) == ["1", "2"])
    }

    @Test func pagesOfAFixedSizeGiveEachEventOnce() {
        let events = Events(run: 7)
        publish(events, 1...25)
        var position = EventCursor(run: 7, sequence: 0)
        var seen: [String] = []
        for _ in 0..<10 {
            let page = events.page(after: position, limit: 4)
            seen += page.events.compactMap(\.subject)
            position = page.next
        }
        #expect(seen == (1...25).map(String.init))
    }

    @Test func positionsSurviveTheirText() {
        let position = EventCursor(run: 0xABC, sequence: 42)
        #expect(EventCursor(position.description) == position)
        #expect(EventCursor("12") == nil)
        #expect(EventCursor("x-1") == nil)
    }

    @Test func aWaitingReaderIsWokenByTheNextEventAndByItsEnd() async throws {
        let loop = try EventLoop.start(name: "events-test")
        defer { loop.stop() }
        let events = Events(run: 7)
        let woken: [String?] = await withUnsafeContinuation { continuation in
            loop.spawn {
                let start = events.end
                loop.post { events.publish(Event(kind: "test.number", subject: "1")) }
                await events.wait(after: start, milliseconds: 600_000)
                let first = events.page(after: start)
                await events.wait(after: first.next, milliseconds: 1)
                continuation.resume(returning: first.events.map(\.subject) + [nil])
            }
        }
        #expect(woken == ["1", nil])
    }

    @Test func oversizeDataIsLeftOutAndSaysSo() throws {
        let events = Events(run: 7)
        events.publish(Event(kind: "test.large", data: .string(String(repeating: "x", count: 100_000))))
        let json = try JSONValue(parsing: events.page(after: EventCursor(run: 7, sequence: 0)).events[0].json)
        #expect(json["data"]?["left_out_bytes"]?.integer == 100_002)
    }
}

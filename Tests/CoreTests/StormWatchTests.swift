import Testing

@testable import client_manager

@Suite struct StormWatchTests {
    @Test func theEndOfEachStormIsToldOnce() {
        var watch = StormWatch()
        let second: UInt64 = 1_000_000_000
        func look(_ percent: UInt64) -> Bool { watch.look(processor: second / 100 * percent, time: second) }
        #expect([0, 5, 24, 25].map(look) == [false, false, false, false], "never busy")
        #expect([26, 160, 25, 0].map(look) == [false, false, true, false])
        #expect([90, 1, 90, 1].map(look) == [false, true, false, true])
    }
}

import Testing

@testable import Kernel

@Suite struct ArchiveHealthTests {
    private enum Act {
        case isAway(at: UInt64)
        case refuses(at: UInt64)
        case works
    }

    /// What each act answers: the pause, and `!` where it is news; of one that goes well whether that is news.
    private func answers(_ acts: Act...) -> [String] {
        var health = ArchiveHealth(graceMilliseconds: 15_000)
        return acts.map { act in
            let answer =
                switch act {
                case .isAway(let now): health.failed(.store(.absent), now: now)
                case .refuses(let now): health.failed(.store(ObjectStoreError("cloud-denied", "no")), now: now)
                case .works: (pause: UInt64(0), isNews: health.succeeded())
                }
            return "\(answer.pause)\(answer.isNews ? "!" : "")"
        }
    }

    @Test func aStoreThatIsAwayIsNewsAfterTheGraceAndOnce() {
        // Woken before its time, it waits for what is left.
        #expect(
            answers(.isAway(at: 1_000), .isAway(at: 11_000), .isAway(at: 16_000), .isAway(at: 76_000), .works, .works)
                == ["15000", "5000", "60000!", "60000", "0!", "0"])
    }

    @Test func oneThatComesInTheGraceWasNeverNews() {
        #expect(answers(.isAway(at: 1_000), .works, .isAway(at: 20_000)) == ["15000", "0", "15000"])
    }

    @Test func aRefusalIsNewsAtOnceAndTriedAgainLaterAndLater() {
        // That it is away meanwhile is another thing, with a grace of its own.
        #expect(
            answers(
                .refuses(at: 1_000), .refuses(at: 2_000), .refuses(at: 4_000), .isAway(at: 8_000), .refuses(at: 9_000), .works,
                .refuses(at: 10_000)) == ["1000!", "2000", "4000", "15000", "8000!", "0!", "1000!"])
    }

    @Test func aClockThatWasPutBackEndsTheGraceNeitherEarlyNorLate() {
        #expect(answers(.isAway(at: 50_000), .isAway(at: 10_000), .isAway(at: 25_000)) == ["15000", "15000", "60000!"])
    }
}

import AgentProtocol
import Testing

@testable import Kernel

@Suite struct ReleaseRequestsTests {
    private func request(_ offset: UInt64, _ count: Int = Int(ReleaseFetchStateMachine.pieceBytes)) -> ReleaseRequests.Request {
        ReleaseRequests.Request(upgrade: UpgradeID(high: 1, low: 2), offset: offset, count: count)
    }

    /// Pieces that were read at the same time came out of their order, and the agent broke the link off.
    @Test func oneIsReadAfterTheOtherInTheOrderOfTheRequests() {
        var requests = ReleaseRequests()
        let taken = [0, 65_536, 131_072].map { requests.append(request($0)) }
        #expect(taken == [true, true, true])
        var read: [UInt64?] = []
        for _ in taken {
            read.append(requests.next()?.offset)
            let second = requests.next()
            #expect(second == nil)
            requests.answered(65_536)
        }
        read.append(requests.next()?.offset)
        #expect(read == [0, 65_536, 131_072, nil])
    }

    @Test func neitherBytesNorPiecesGrowWithoutBound() {
        var many = ReleaseRequests()
        let taken = (0...ReleaseRequests.count).map { many.append(request(UInt64($0), 1)) }
        #expect(taken == [Bool](repeating: true, count: ReleaseRequests.count) + [false])
        var large = ReleaseRequests()
        let answers = [large.append(request(0, ReleaseRequests.bytes)), large.append(request(UInt64(ReleaseRequests.bytes), 1))]
        #expect(answers == [true, false])
        _ = large.next()
        large.answered(ReleaseRequests.bytes)
        let after = large.append(request(UInt64(ReleaseRequests.bytes), 1))
        #expect(after)
    }
}

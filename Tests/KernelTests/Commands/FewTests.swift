import Testing

@testable import Kernel

@Suite struct FewTests {
    @Test(arguments: 0...4) func itHoldsHandsOnAndThinsOutInOrder(_ count: Int) {
        var few = Few<Int>()
        for number in 0..<count { few.append(number) }
        #expect(Array(few) == Array(0..<count))
        #expect(few.isEmpty == (count == 0))
        var both = few
        both.append(contentsOf: few)
        #expect(Array(both) == Array(0..<count) + Array(0..<count))
        both.removeAll { $0 % 2 == 0 }
        #expect(Array(both) == (Array(0..<count) + Array(0..<count)).filter { $0 % 2 == 1 })
        var drained: [Int] = []
        few.drain { drained.append($0) }
        #expect(drained == Array(0..<count))
        #expect(few.isEmpty && Array(few).isEmpty)
    }
}

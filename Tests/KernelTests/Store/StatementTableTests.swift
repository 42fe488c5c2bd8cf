import Testing

@testable import Kernel

@Suite struct StatementTableTests {
    /// Addresses as literals have them: close together, and never 0.
    @Test func everyStatementIsFoundByItsKeyHoweverManyThereAre() throws {
        var table = StatementTable()
        let keys = (1...1_000).map { UInt($0 * 16 + $0 % 7) }
        for key in keys {
            #expect(table[key] == nil)
            table.insert(try #require(OpaquePointer(bitPattern: key + 1)), for: key)
        }
        #expect(keys.allSatisfy { table[$0] == OpaquePointer(bitPattern: $0 + 1) })
        #expect(table.all.count == 1_000)
        #expect(table[5] == nil)
    }
}

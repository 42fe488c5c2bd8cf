import AgentProtocol
import System
import Testing

@testable import Agent

@Suite struct FileBrowsingTests {
    private let names = (0..<10).map { "\($0)" }

    /// A page of what is left when these have gone since their names were read.
    private func page(after: String = "", limit: Int, gone: Set<String> = []) throws -> (names: [String], hasMore: Bool) {
        let answer = try FileBrowsing.page(of: names, after: after, limit: limit) { (name) throws(SystemError) in
            gone.contains(name) ? nil : FileEntry(name: name, kind: .file, size: 0, mode: 0, modified: 0, owner: 0, group: 0)
        }
        return (answer.entries.map(\.name), answer.hasMore)
    }

    @Test func pagesHaveAllNamesOnce() throws {
        for limit in 1...11 {
            var (seen, after) = ([String](), "")
            while true {
                let next = try page(after: after, limit: limit)
                seen += next.names
                guard next.hasMore else { break }
                after = try #require(next.names.last)
            }
            #expect(seen == names)
        }
    }

    @Test func whatHasGoneMakesNoPageEmpty() throws {
        let first = try page(limit: 3, gone: ["0", "1", "2", "3", "5"])
        #expect(first.names == ["4", "6", "7"] && first.hasMore)
        let last = try page(after: "4", limit: 3, gone: ["5", "6", "7", "8", "9"])
        #expect(last.names.isEmpty && !last.hasMore)
    }
}

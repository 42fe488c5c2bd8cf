import AgentProtocol
import Testing

@testable import Kernel

/// What a client says is in a directory becomes a path on an operator's disk, or a key in a store.
@Suite struct FileAnswerTests {
    private func fault(_ names: [String], after: String = "", limit: Int = 3, hasMore: Bool = true) -> String? {
        let entries = names.map { FileEntry(name: $0, kind: .file, size: 1, mode: 0o644, modified: 0, owner: 0, group: 0) }
        return Transfers.fault(of: FileAnswer(entries: entries, hasMore: hasMore), after: after, limit: limit)
    }

    @Test(arguments: [["a"], ["a", "b", "c"], ["...", "..a", ".a"], ["a b", "a\u{7F}", "ä"]])
    func aDirectoryIsTaken(names: [String]) { #expect(fault(names) == nil) }

    @Test(arguments: [
        ([""], "is no name"), (["."], "is no name"), ([".."], "is no name"), (["a", "b/c"], "is no name"), (["/etc"], "is no name"),
        (["a\0"], "is no name"), (["b", "a"], "\"a\" comes after \"b\""), (["a", "a"], "\"a\" comes after \"a\""),
        (["a", "b", "c", "d"], "4 entries, 3 were asked for"),
    ])
    func whatNoDirectoryIsIsNot(names: [String], says: String) { #expect(fault(names)?.contains(says) == true) }

    /// Whoever reads on after the last name would take it for the end, and what is missing for removed.
    @Test func onlyTheEndIsEmpty() {
        #expect(fault([], hasMore: false) == nil)
        #expect(fault([]) == "no entries, and more of them")
    }

    @Test func aListGoesOnAfterTheLastName() {
        #expect(fault(["m"], after: "l") == nil)
        #expect(fault(["l"], after: "l") != nil)
        #expect(fault(["k"], after: "l") != nil)
    }
}

import Glibc
import System
import Testing

/// The agent is one file: what it needs from a machine is in glibc.
@Suite struct LinkedLibrariesTests {
    @Test func agentNeedsOnlyGlibc() throws {
        let needed = try neededLibraries(of: try agentProgram())
        #expect(!needed.isEmpty)
        #expect(needed.subtracting(["libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2"]) == [])
    }

    /// DT_NEEDED of an ELF-64 file: dynamic section (type 6) through its string table.
    private func neededLibraries(of path: String) throws -> Set<String> {
        let file = try Files.read(path, limit: 256 << 20)
        func number(_ offset: Int, _ size: Int) -> Int {
            (0..<size).reduce(0) { $0 | Int(file[offset + $1]) << (8 * $1) }
        }
        let (table, entrySize, count) = (number(40, 8), number(58, 2), number(60, 2))
        var needed: Set<String> = []
        for index in 0..<count where number(table + index * entrySize + 4, 4) == 6 {
            let section = table + index * entrySize
            let strings = number(table + number(section + 40, 4) * entrySize + 24, 8)
            let start = number(section + 24, 8)
            for entry in stride(from: start, to: start + number(section + 32, 8), by: 16) where number(entry, 8) == 1 {
                let text = file[(strings + number(entry + 8, 8))...].prefix { $0 != 0 }
                needed.insert(String(decoding: text, as: UTF8.self))
            }
        }
        return needed
    }
}

import Glibc

/// What is running: the version that people speak of, and the linker's build id, which tells two builds apart.
public enum BuildID {
    /// Of the sources, unless this program's file is a release with a stamp of its own (`ReleaseStamp`).
    public static let version = programStamp()?.description ?? "0.1.0"

    /// Hex of the GNU build id of the running program, read from its file; "unknown" when the linker left none.
    public static let build: String = programBuildID() ?? "unknown"

    /// `0.1.0 (build 1a2b3c4d5e6f)`
    public static var description: String { "\(version) (build \(build.prefix(12)))" }

    private static func programStamp() -> ReleaseVersion? {
        let descriptor = open("/proc/self/exe", O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        let size = lseek(descriptor, 0, SEEK_END)
        var end = [UInt8](repeating: 0, count: ReleaseStamp.byteCount)
        let start = size - off_t(end.count)
        guard start >= 0 else { return nil }
        let found = end.withUnsafeMutableBytes { pread(descriptor, $0.baseAddress, ReleaseStamp.byteCount, start) }
        return found == ReleaseStamp.byteCount ? ReleaseStamp.version(in: end) : nil
    }

    /// ELF-64: the program headers' PT_NOTE segments hold notes of (name size, description size, type), "GNU", type 3.
    private static func programBuildID() -> String? {
        let descriptor = open("/proc/self/exe", O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        func bytes(at offset: Int, _ count: Int) -> [UInt8]? {
            var block = [UInt8](repeating: 0, count: count)
            let found = block.withUnsafeMutableBytes { pread(descriptor, $0.baseAddress, count, off_t(offset)) }
            return found == count ? block : nil
        }
        func number(_ block: [UInt8], _ offset: Int, _ size: Int) -> Int {
            (0..<size).reversed().reduce(0) { $0 << 8 | Int(block[offset + $1]) }
        }
        guard let header = bytes(at: 0, 64), header[0..<5].elementsEqual([0x7F, 0x45, 0x4C, 0x46, 2]) else { return nil }
        let tableStart = number(header, 32, 7)
        let entrySize = number(header, 54, 2)
        guard entrySize >= 56 else { return nil }
        for index in 0..<number(header, 56, 2) {
            guard let entry = bytes(at: tableStart + index * entrySize, 56) else { return nil }
            guard number(entry, 0, 4) == 4 else { continue }
            guard let notes = bytes(at: number(entry, 8, 7), min(number(entry, 32, 7), 4096)) else { continue }
            var offset = 0
            while offset + 12 <= notes.count {
                let nameSize = number(notes, offset, 4)
                let size = number(notes, offset + 4, 4)
                let start = offset + 12 + (nameSize + 3) & ~3
                guard start + size <= notes.count else { break }
                if number(notes, offset + 8, 4) == 3, nameSize == 4 {
                    return notes[start..<start + size].map { byte in
                        (byte < 16 ? "0" : "") + String(byte, radix: 16)
                    }.joined()
                }
                offset = start + (size + 3) & ~3
            }
        }
        return nil
    }
}

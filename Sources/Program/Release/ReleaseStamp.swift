/// The version of a release in its file: a last line of 64 bytes, put there before the file is hashed and signed.
///
/// A build has the version of its sources. A release is a build under a version that its publisher chose and signed for;
/// the stamp lets the running agent say which release it is. The loader does not look behind an ELF file's end, and a
/// script reads a comment.
public enum ReleaseStamp {
    public static let byteCount = 64
    private static let opening = "\n# cm-agent release "

    public static func bytes(_ version: ReleaseVersion) -> [UInt8] {
        let text = Array((opening + version.description).utf8)
        return text + [UInt8](repeating: 0x20, count: max(0, byteCount - 1 - text.count)) + [0x0A]
    }

    /// - Parameter end: the last 64 bytes of a file. `nil`: it has no stamp.
    public static func version(in end: some Collection<UInt8>) -> ReleaseVersion? {
        let bytes = Array(end)
        let start = Array(opening.utf8)
        guard bytes.count == byteCount, bytes.starts(with: start), bytes.last == 0x0A else { return nil }
        let text = bytes[start.count..<(byteCount - 1)].split(separator: 0x20, maxSplits: 1).first ?? []
        guard let version = ReleaseVersion(String(decoding: text, as: UTF8.self)), Self.bytes(version) == bytes else {
            return nil
        }
        return version
    }
}

import Glibc

/// The variables that this process was started with. (`environ` itself is a mutable global; later `setenv` calls, which we
/// never make, would not show here.)
public enum Environment {
    public static func current() -> [String: String] {
        guard let bytes = try? readSmallFile("/proc/self/environ", limit: 4 << 20) else { return [:] }
        var result: [String: String] = [:]
        for entry in bytes.split(separator: 0) {
            let parts = entry.split(separator: UInt8(ascii: "="), maxSplits: 1, omittingEmptySubsequences: false)
            guard parts.count == 2 else { continue }
            result[String(decoding: parts[0], as: UTF8.self)] = String(decoding: parts[1], as: UTF8.self)
        }
        return result
    }
}

public struct FileReadError: Error, Sendable, Equatable, CustomStringConvertible {
    public let path: String
    public let detail: String
    public var description: String { "\(path): \(detail)" }
}

/// Reads a whole small file at start-up, on the calling thread.
public func readSmallFile(_ path: String, limit: Int) throws(FileReadError) -> [UInt8] {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC)
    guard descriptor >= 0 else { throw FileReadError(path: path, detail: String(cString: strerror(errno))) }
    defer { close(descriptor) }
    var bytes: [UInt8] = []
    var block = [UInt8](repeating: 0, count: 16 << 10)
    while true {
        let count = block.withUnsafeMutableBytes { read(descriptor, $0.baseAddress, $0.count) }
        if count < 0, errno == EINTR { continue }
        guard count >= 0 else { throw FileReadError(path: path, detail: String(cString: strerror(errno))) }
        if count == 0 { return bytes }
        bytes += block[..<count]
        guard bytes.count <= limit else {
            throw FileReadError(path: path, detail: "larger than the \(limit) bytes that are allowed")
        }
    }
}

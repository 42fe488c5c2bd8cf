import AgentProtocol
import Glibc
import System

/// One stream of a program while a holder reads it: from the pipe into a file that only grows.
///
/// What cannot be kept (the output limit, a disk that stays full) is read and dropped, and `dropped` set: the kept bytes
/// are always an exact prefix of what the program wrote.
final class Spool {
    let stream: OutputStream
    /// `nil` after the end.
    private(set) var pipe: Descriptor?
    private(set) var length: UInt64 = 0
    private(set) var dropped = false

    private let path: String
    private var file: Descriptor?
    /// Bytes that a full disk refused; nothing more is read until they are kept or given up.
    private var refused: [UInt8] = []
    private var givesUpAt: UInt64 = 0

    /// How long a program is held back by a full disk before its further output is dropped.
    static let fullDiskMilliseconds: UInt64 = 30_000

    init(_ stream: OutputStream, pipe: consuming Descriptor, path: String) {
        self.stream = stream
        self.pipe = consume pipe
        self.path = path
    }

    var isOpen: Bool { pipe != nil }
    var pipeNumber: Int32 { pipe?.number ?? -1 }
    /// False while a full disk holds the program back.
    var wantsInput: Bool { pipe != nil && refused.isEmpty }
    var isStalled: Bool { !refused.isEmpty }

    /// Reads once. Returns the number of bytes taken from the pipe; `nil` when nothing is there now.
    /// - Parameter allowance: how many bytes may still be kept.
    func readOnce(_ buffer: UnsafeMutableRawBufferPointer, allowance: UInt64, now: UInt64) -> Int? {
        guard let number = pipe?.number else { return nil }
        let count: Int
        while true {
            let result = Glibc.read(number, buffer.baseAddress, buffer.count)
            if result < 0, errno == EINTR { continue }
            if result < 0, errno == EAGAIN { return nil }
            count = max(0, result)
            break
        }
        guard count > 0 else {
            pipe = nil
            return 0
        }
        let kept = dropped ? 0 : min(count, Int(clamping: allowance))
        if kept < count { dropped = true }
        if kept > 0 { keep(UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(buffer)[..<kept]), now) }
        return count
    }

    /// Tries again what a full disk refused.
    func retry(now: UInt64) {
        let bytes = refused
        refused = []
        let deadline = givesUpAt
        bytes.withUnsafeBytes { keep($0, now) }
        guard !refused.isEmpty else { return }
        givesUpAt = deadline
        if now >= deadline {
            refused = []
            dropped = true
        }
    }

    /// Puts everything kept on the disk.
    func sync() throws(SystemError) {
        if !refused.isEmpty { dropped = true }
        try file?.syncData(subject: path)
    }

    private func keep(_ bytes: UnsafeRawBufferPointer, _ now: UInt64) {
        do throws(SystemError) {
            if file == nil { file = try Descriptor.open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND) }
            killPoint("holder.output.write.before")
            if let number = file?.number {
                var done = 0
                while done < bytes.count {
                    let count = Glibc.write(number, bytes.baseAddress.map { $0 + done }, bytes.count - done)
                    if count > 0 {
                        done += count
                        length += UInt64(count)
                    } else if errno != EINTR {
                        let failure = SystemError.last("write", path)
                        refused = Array(bytes[done...])
                        throw failure
                    }
                }
            }
            killPoint("holder.output.write.after")
        } catch {
            if error.isOutOfSpace {
                if refused.isEmpty { refused = Array(bytes) }
                givesUpAt = now + Self.fullDiskMilliseconds
            } else {
                // A disk that fails otherwise does not heal.
                refused = []
                dropped = true
            }
        }
    }
}

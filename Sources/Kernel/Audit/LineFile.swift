import Glibc
import System

/// Reads a file line by line with a bounded buffer.
final class LineFile {
    /// A record about 100,000 clients fits; a longer line is damage.
    static let maximumLine = 8 << 20
    private let file: Descriptor
    private let path: String
    private var buffer: [UInt8] = []
    private var start = 0
    private var offset: UInt64 = 0
    private var ended = false

    init(_ path: String) throws(SystemError) {
        self.path = path
        file = try Descriptor.open(path, O_RDONLY)
    }

    /// The next line without its line feed; `nil` at the end.
    func next() throws(SystemError) -> [UInt8]? {
        var scanned = start
        while true {
            if let end = buffer[scanned...].firstIndex(of: 0x0A) {
                defer { start = end + 1 }
                return Array(buffer[start..<end])
            }
            scanned = buffer.count
            if ended {
                guard start < buffer.count else { return nil }
                defer { start = buffer.count }
                return Array(buffer[start...])
            }
            guard buffer.count - start <= Self.maximumLine else { throw SystemError("read", path, code: EMSGSIZE) }
            scanned -= start
            buffer.removeFirst(start)
            start = 0
            try fill()
        }
    }

    private func fill() throws(SystemError) {
        var failure: SystemError?
        let before = buffer.count
        buffer.append(addingCapacity: 1 << 16) { (output: inout OutputSpan<UInt8>) in
            output.withUnsafeMutableBufferPointer { free, initialized in
                guard let base = free.baseAddress else { return }
                let count = pread(file.number, base + initialized, free.count - initialized, off_t(clamping: offset))
                if count < 0 { failure = .last("pread", path) } else { initialized += count }
            }
        }
        if let failure { throw failure }
        offset += UInt64(buffer.count - before)
        if buffer.count == before { ended = true }
    }
}

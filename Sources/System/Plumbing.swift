import CLinux
import Glibc

/// A pipe; both ends close-on-exec and blocking.
public struct Pipe: ~Copyable, Sendable {
    public let readEnd: Descriptor
    public let writeEnd: Descriptor

    public init() throws(SystemError) {
        var readNumber: Int32 = -1
        var writeNumber: Int32 = -1
        let status = cm_pipe(&readNumber, &writeNumber, 0)
        guard status == 0 else { throw SystemError("pipe2", code: -status) }
        readEnd = Descriptor(owning: readNumber)
        writeEnd = Descriptor(owning: writeNumber)
    }

    /// Closes the writing end.
    public consuming func takeReadEnd() -> Descriptor { readEnd }
}

/// Two connected stream sockets, for a program whose input and output are one; both close-on-exec and blocking.
public struct StreamPair: ~Copyable, Sendable {
    public let ours: Descriptor
    public let theirs: Descriptor

    public init() throws(SystemError) {
        var numbers: [Int32] = [-1, -1]
        let type = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        guard socketpair(AF_UNIX, type, 0, &numbers) == 0 else { throw .last("socketpair") }
        ours = Descriptor(owning: numbers[0])
        theirs = Descriptor(owning: numbers[1])
    }

    /// Closes the program's end.
    public consuming func takeOurs() -> Descriptor { ours }
}

extension Descriptor {
    /// A file in memory that no path leads to.
    public static func memoryFile(_ name: String) throws(SystemError) -> Descriptor {
        let number = cm_memory_file(name, 1)
        guard number >= 0 else { throw SystemError("memfd_create", name, code: -number) }
        return Descriptor(owning: number)
    }

    /// A second descriptor of the same file with access rights of its own, for example read-only.
    public func reopened(_ flags: Int32) throws(SystemError) -> Descriptor {
        try Descriptor.open("/proc/self/fd/\(number)", flags)
    }

    /// Reserves blocks, so that a later write of that length cannot meet a full disk. The length stays.
    public func reserve(_ bytes: Int64, subject: String = "") throws(SystemError) {
        let status = cm_reserve(number, bytes)
        guard status == 0 || status == -EOPNOTSUPP else { throw SystemError("fallocate", subject, code: -status) }
    }

    /// Lets the kernel begin to write these bytes to the disk, so that a sync soon after finds little to do. Only a hint: what
    /// goes wrong is told by the sync.
    public func startWriting(from offset: UInt64, count: Int) {
        _ = cm_start_writing(number, Int64(clamping: offset), Int64(count))
    }

    /// Hands these bytes to the disk and waits until it has taken them, which is not a sync: what it has in its cache can still
    /// be lost. An error is told by the next sync of each other descriptor of the file, as the kernel keeps it for each.
    public func writeOut(from offset: UInt64, count: Int) {
        _ = cm_write_out(number, Int64(clamping: offset), Int64(count))
    }

    /// Reads what is there, up to the buffer's size: 0 at the end, `nil` when nothing has come yet.
    public func readAvailable(_ buffer: UnsafeMutableRawBufferPointer) throws(SystemError) -> Int? {
        while true {
            let count = Glibc.read(number, buffer.baseAddress, buffer.count)
            if count >= 0 { return count }
            if errno == EAGAIN { return nil }
            if errno != EINTR { throw .last("read") }
        }
    }
}

/// Gives the C library's free memory back to the kernel. Takes milliseconds, and each heap is locked for its part of them.
public func releaseFreeMemory() { cm_release_memory() }

/// One heap for all threads: a program with few threads and little to do needs no arena for each. Call it before any
/// other thread starts.
public func limitMemoryArenas() { cm_single_arena() }

/// Keeps up to `bytes` of free memory for what comes next: otherwise each large block is asked of the kernel anew, page by
/// page, which costs a file on its way more than its encryption. Call it before any other thread starts.
public func keepFreeMemory(upTo bytes: Int32) { cm_keep_memory(bytes) }

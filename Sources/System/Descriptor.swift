import Glibc

/// An open file descriptor that belongs to one owner and is closed with it.
///
/// Not tied to a thread; the compiler lets only one place hold it. All descriptors are opened close-on-exec.
public struct Descriptor: ~Copyable, Sendable {
    public let number: Int32

    /// Takes over `number`, which must be open and belong to nobody else.
    public init(owning number: Int32) {
        self.number = number
    }

    deinit {
        _ = Glibc.close(number)
    }

    /// Gives the number away; the caller closes it.
    public consuming func release() -> Int32 {
        let number = number
        discard self
        return number
    }

    /// Opens `path` with `flags` (`O_RDONLY` …); `O_CLOEXEC` is always added. `mode` counts with `O_CREAT`.
    public static func open(_ path: String, _ flags: Int32, mode: mode_t = 0o600) throws(SystemError) -> Descriptor {
        while true {
            let number = Glibc.open(path, flags | O_CLOEXEC, mode)
            if number >= 0 { return Descriptor(owning: number) }
            if errno != EINTR { throw .last("open", path) }
        }
    }

    /// Writes everything at the file's present position; for files and blocking pipes.
    public func write(_ bytes: RawSpan, subject: String = "") throws(SystemError) {
        var failure: SystemError?
        bytes.withUnsafeBytes { buffer in
            guard let start = buffer.baseAddress else { return }
            var done = 0
            while done < buffer.count {
                let count = Glibc.write(number, start + done, buffer.count - done)
                if count > 0 {
                    done += count
                } else if count < 0, errno == EINTR {
                    continue
                } else {
                    failure = .last("write", subject)
                    return
                }
            }
        }
        if let failure { throw failure }
    }

    /// Writes everything at `offset`; the file's position stays.
    public func write(_ bytes: RawSpan, at offset: UInt64, subject: String = "") throws(SystemError) {
        var failure: SystemError?
        bytes.withUnsafeBytes { buffer in
            guard let start = buffer.baseAddress else { return }
            var done = 0
            while done < buffer.count {
                let count = pwrite(number, start + done, buffer.count - done, off_t(clamping: offset) + off_t(done))
                if count > 0 {
                    done += count
                } else if count < 0, errno == EINTR {
                    continue
                } else {
                    failure = .last("pwrite", subject)
                    return
                }
            }
        }
        if let failure { throw failure }
    }

    /// Reads at `offset` into the free space of `output`; returns the count, 0 at the end of the file.
    @discardableResult
    public func read(
        at offset: UInt64, into output: inout OutputRawSpan, subject: String = ""
    ) throws(SystemError) -> Int {
        var failure: SystemError?
        var total = 0
        output.withUnsafeMutableBytes { buffer, initialized in
            guard let start = buffer.baseAddress else { return }
            let free = buffer.count - initialized
            while total < free {
                let count = pread(
                    number, start + initialized + total, free - total, off_t(clamping: offset) + off_t(total))
                if count > 0 {
                    total += count
                } else if count == 0 {
                    break
                } else if errno != EINTR {
                    failure = .last("pread", subject)
                    break
                }
            }
            initialized += total
        }
        if let failure { throw failure }
        return total
    }

    /// Puts the file's bytes and length on the disk (`fdatasync`).
    public func syncData(subject: String = "") throws(SystemError) {
        if fdatasync(number) != 0 { throw .last("fdatasync", subject) }
    }

    /// Puts the file's bytes and all its attributes on the disk (`fsync`). For directories: its entries.
    public func sync(subject: String = "") throws(SystemError) {
        if fsync(number) != 0 { throw .last("fsync", subject) }
    }

    public func truncate(to length: UInt64, subject: String = "") throws(SystemError) {
        if ftruncate(number, off_t(clamping: length)) != 0 { throw .last("ftruncate", subject) }
    }

    public func status(subject: String = "") throws(SystemError) -> FileStatus {
        var status = stat()
        if fstat(number, &status) != 0 { throw .last("fstat", subject) }
        return FileStatus(status)
    }

    /// Takes the whole-file lock (`flock`) without waiting; `wouldBlock` when another open file holds it.
    /// The lock ends when this descriptor and every copy of it is closed.
    public func lock(shared: Bool = false, subject: String = "") throws(SystemError) {
        while flock(number, (shared ? LOCK_SH : LOCK_EX) | LOCK_NB) != 0 {
            if errno != EINTR { throw .last("flock", subject) }
        }
    }

    public func setNonBlocking(_ on: Bool = true) throws(SystemError) {
        let flags = fcntl(number, F_GETFL)
        guard flags >= 0, fcntl(number, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK) == 0 else {
            throw .last("fcntl")
        }
    }
}

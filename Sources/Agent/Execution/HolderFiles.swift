import AgentProtocol
import Glibc
import System

/// What a holder has of its directory. Inherited from the agent: descriptor 3 is the journal, locked (`flock`) from before
/// the holder exists until it ends; descriptor 4 listens at `DIR/socket`.
final class HolderFiles {
    static let journalNumber: Int32 = 3
    static let listenerNumber: Int32 = 4

    let directory: String
    let listener: Descriptor
    let journal: ExecutionJournal
    private let journalFile: Descriptor
    private let exitFile: Descriptor

    /// `nil`: the program has been started before, or its end is recorded; nothing may run.
    init?(directory: String) throws(SystemError) {
        let path = directory + "/journal"
        var inherited = stat()
        let named = try Files.status(path)
        guard fstat(Self.journalNumber, &inherited) == 0, UInt64(inherited.st_ino) == named.inode,
            fcntl(Self.listenerNumber, F_GETFD) >= 0
        else { throw SystemError("hold", directory, code: EINVAL) }
        journalFile = Descriptor(owning: Self.journalNumber)
        listener = Descriptor(owning: Self.listenerNumber)
        _ = fcntl(Self.journalNumber, F_SETFD, FD_CLOEXEC)
        _ = fcntl(Self.listenerNumber, F_SETFD, FD_CLOEXEC)
        self.directory = directory

        do throws(ExecutionJournal.Damage) {
            journal = try ExecutionJournal(parsing: try Self.readJournal(path))
        } catch { throw SystemError("journal", path, code: EBADMSG) }
        if journal.startMark != nil || Files.exists(directory + "/exit") { return nil }

        // Room for the end is taken before the beginning: a full disk cannot keep it from being recorded.
        exitFile = try Descriptor.open(directory + "/exit.new", O_WRONLY | O_CREAT | O_TRUNC)
        try exitFile.reserve(Int64(ExitFile.maximumBytes))
    }

    private static func readJournal(_ path: String) throws(ExecutionJournal.Damage) -> [UInt8] {
        do throws(SystemError) { return try Files.read(path, limit: ExecutionJournal.maximumBytes) } catch {
            throw .unreadableOrder("\(error)")
        }
    }

    /// Durable before the program is started.
    func markStart(at unixMilliseconds: UInt64) throws(SystemError) {
        try append(ExecutionJournal.startMarkRecord(at: unixMilliseconds))
        try journalFile.syncData(subject: directory)
    }

    func markRunning(leader: pid_t) throws(SystemError) {
        try append(ExecutionJournal.runningRecord(leader: leader))
    }

    private func append(_ record: [UInt8]) throws(SystemError) {
        try journalFile.write(record.span.bytes, subject: directory + "/journal")
    }

    /// Durable when this returns.
    func writeExit(_ record: ExitRecord) throws(SystemError) {
        killPoint("holder.exit.write.before")
        try exitFile.write(ExitFile.encode(record).span.bytes, at: 0, subject: directory + "/exit.new")
        try exitFile.sync(subject: directory + "/exit.new")
        killPoint("holder.exit.synced")
        try Files.rename(directory + "/exit.new", to: directory + "/exit")
        killPoint("holder.exit.renamed")
        try Files.syncDirectory(directory)
    }

    /// Until exec the child lived in the holder's memory, and the kernel counts that as the child's. A peak that is not
    /// above the holder's own says nothing about the program: 0, not known. The holder's own is VmHWM, because its
    /// ru_maxrss in turn counts the agent's memory from before the holder's exec.
    static func measured(_ peak: UInt64) -> UInt64 {
        guard let status = try? Files.read("/proc/self/status", limit: 16 << 10) else { return 0 }
        for line in status.split(separator: 0x0A) where line.starts(with: "VmHWM:".utf8) {
            var kibibytes: UInt64 = 0
            for byte in line where byte >= 0x30 && byte <= 0x39 { kibibytes = kibibytes &* 10 &+ UInt64(byte - 0x30) }
            return peak > kibibytes &* 1_024 ? peak : 0
        }
        return 0
    }
}

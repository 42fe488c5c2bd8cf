import Glibc

/// Replaces a small file as a whole: after a crash or power loss there is the old or the new content, never a mix.
public enum AtomicFile {
    /// Writes `bytes` beside `path`, syncs, renames over `path`, syncs the directory. When this returns, the content
    /// is durable; when it throws, the old content is still there. Blocks for the disk (about 0.3 ms, up to 20 ms on
    /// rotating disks). Several writers of one path are safe; the last rename wins.
    /// - Parameter mode: permission bits of the new file, whatever the umask is.
    public static func write(_ bytes: RawSpan, to path: String, mode: mode_t = 0o600) throws(SystemError) {
        let temporary = path + "." + String(UInt64.random(in: 0 ... .max), radix: 36) + ".tmp"
        do throws(SystemError) {
            let file = try Descriptor.open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode: mode)
            if fchmod(file.number, mode) != 0 { throw SystemError.last("fchmod", temporary) }
            try file.write(bytes, subject: temporary)
            try file.sync(subject: temporary)
            killPoint("atomic-file.rename.before")
            try Files.rename(temporary, to: path)
        } catch {
            unlink(temporary)
            throw error
        }
        killPoint("atomic-file.rename.after")
        try Files.syncDirectory(Files.parent(of: path) ?? "/")
        killPoint("atomic-file.synced")
    }

    public static func write(_ bytes: [UInt8], to path: String, mode: mode_t = 0o600) throws(SystemError) {
        try write(bytes.span.bytes, to: path, mode: mode)
    }
}

import CLinux
import Glibc
import System

/// The bytes that were checked, where nobody can change them any more: what the probe and the host load.
///
/// A sealed file in memory; where executing that is forbidden, or a debugger wants names, `DIRECTORY/<sha256>.so` in a
/// directory of mode 0700. The descriptor of the file in memory stays open for the life of the process: the loader knows
/// an image by its path, and a reused `/proc/self/fd/N` would silently be the old one.
enum PrivateCopy {
    /// - Parameter directory: where copies go; with `inMemory` only if the kernel forbids the other way.
    /// - Returns: the path to load, valid for the life of this process.
    static func make(_ file: PluginFile, inMemory: Bool, directory: String) throws(PluginRefusal) -> String {
        if inMemory, mayExecuteMemory, let path = sealed(file) { return path }
        return try copied(file, directory)
    }

    private static func sealed(_ file: PluginFile) -> String? {
        let number = cm_sealable_file("cm-plugin:" + file.note.id)
        guard number >= 0 else { return nil }
        let descriptor = Descriptor(owning: number)
        do throws(SystemError) {
            try descriptor.write(file.bytes.span.bytes, subject: file.path)
        } catch {
            return nil
        }
        guard cm_seal_file(number) == 0 else { return nil }
        return "/proc/self/fd/\(descriptor.release())"
    }

    private static func copied(_ file: PluginFile, _ directory: String) throws(PluginRefusal) -> String {
        let path = "\(directory)/\(file.sha256).so"
        do throws(SystemError) {
            try Files.makeDirectories(directory)
            try Files.changeMode(directory, 0o700)
            // Written anew each time: what stands there may be half of a copy, or somebody else's.
            try AtomicFile.write(file.bytes, to: path, mode: 0o500)
            return path
        } catch {
            throw PluginRefusal(
                "plugin-copy", "no private copy could be made: \(error)", remedy: "make \(directory) writable for the core's user")
        }
    }

    /// Hardened kernels (vm.memfd_noexec, SELinux, a seccomp filter) refuse it.
    private static let mayExecuteMemory: Bool = {
        let number = cm_sealable_file("cm-probe")
        guard number >= 0 else { return false }
        let descriptor = Descriptor(owning: number)
        guard ftruncate(descriptor.number, 4_096) == 0 else { return false }
        let page = mmap(nil, 4_096, PROT_READ | PROT_EXEC, MAP_PRIVATE, descriptor.number, 0)
        guard page != MAP_FAILED else { return false }
        munmap(page, 4_096)
        return true
    }()
}

import CLinux
import Glibc
import Reactor
import Synchronization
import System

/// What stands in the plugin directory, looked at file by file; a file that did not change is not read again.
///
/// Touched only on the control thread.
final class PluginDirectory {
    struct Entry: Sendable {
        let path: String
        let status: FileStatus
        /// Without its bytes.
        let result: Result<PluginFile?, PluginRefusal>
    }

    private let path: String
    private let trustedKeys: [[UInt8]]
    private var known: [String: Entry] = [:]

    init(path: String, trustedKeys: [[UInt8]]) {
        self.path = path
        self.trustedKeys = trustedKeys
    }

    /// Entries by name of file. Throws when nothing of the directory can be trusted.
    func scan() throws(PluginRefusal) -> [Entry] {
        let names: [String]
        do throws(SystemError) {
            names = try Files.list(path, limit: 4_096)
        } catch {
            throw PluginRefusal(
                "plugin-unreadable", "the plugin directory cannot be read: \(error)", remedy: "make it readable for the core's user")
        }
        var entries: [Entry] = []
        var seen: [String: Entry] = [:]
        for name in names.sorted() where name.hasSuffix(".so") {
            let file = path + "/" + name
            guard let status = try? Files.status(file, followLinks: false) else { continue }
            if let entry = known[name], entry.status == status, !isSignatureNewer(file, than: entry) {
                entries.append(entry)
                seen[name] = entry
                continue
            }
            let result: Result<PluginFile?, PluginRefusal>
            do throws(PluginRefusal) {
                result = .success(try PluginFile.read(file, trustedKeys: trustedKeys)?.withoutBytes)
            } catch {
                result = .failure(error)
            }
            let entry = Entry(path: file, status: status, result: result)
            entries.append(entry)
            // A refusal may have causes outside the file (its directory, its owner's name): looked at again each time.
            if case .success = result { seen[name] = entry }
        }
        known = seen
        return entries
    }

    private func isSignatureNewer(_ file: String, than entry: Entry) -> Bool {
        guard case .success(let known) = entry.result else { return true }
        let hasSignature = Files.exists(file + ".sig")
        return hasSignature != (known?.signer != nil)
    }
}

extension PluginFile {
    fileprivate var withoutBytes: PluginFile {
        PluginFile(path: path, note: note, sha256: sha256, signer: signer, needed: needed, bytes: [])
    }
}

/// Tells when something happens in the directory. Added to a loop.
final class DirectoryWatch: Source {
    private let changed: @Sendable () -> Void

    init(_ path: String, changed: @escaping @Sendable () -> Void) throws(SystemError) {
        let number = cm_directory_watch(path)
        guard number >= 0 else { throw SystemError("inotify", path, code: -number) }
        self.changed = changed
        super.init(descriptor: number)
    }

    deinit { close(descriptor) }

    override func ready(_ readiness: Readiness) {
        if cm_directory_watch_drain(descriptor) != 0 { changed() }
    }
}

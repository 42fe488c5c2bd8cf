import Crypto
import Glibc
import JSON
import Kernel
import Synchronization
import System

/// The agent's program that this core hands out: what it is, and its bytes by range. Looked at when somebody asks, and again
/// when the file has changed; never kept in memory.
final class AgentFile: Sendable {
    struct Description: Sendable, Equatable {
        var version: String
        var bytes: UInt64
        var sha256: String
        var glibc: String?
        var libraries: [String]

        var json: [UInt8] {
            var writer = JSONWriter()
            writer.object { writer in
                writer.field("version", version)
                writer.field("bytes", Int64(clamping: bytes))
                writer.field("sha256", sha256)
                writer.field("machine", ELFImage.machineName)
                writer.field("glibc", glibc)
                writer.array("libraries") { writer in for library in libraries { writer.value(library) } }
            }
            return writer.finish()
        }
    }

    private struct Known: Sendable {
        let status: FileStatus
        let description: Description
    }

    static let limit = 256 << 20
    private static let versionMilliseconds: Int32 = 10_000

    private let path: String
    private let known = Mutex<Known?>(nil)

    init(_ path: String) { self.path = path }

    /// Blocks: reads the whole file when it is new.
    func description() throws(Problem) -> Description {
        let status = try status()
        if let known = known.withLock({ $0 }), known.status == status { return known.description }
        let description = try examine()
        // Changed while it was read: the next one to ask looks again.
        if try self.status() == status { known.withLock { $0 = Known(status: status, description: description) } }
        return description
    }

    /// At most `count` bytes from `offset` of the file with this hash.
    func read(_ sha256: String, from offset: UInt64, _ count: Int) throws(Problem) -> [UInt8] {
        guard try description().sha256 == sha256 else {
            throw Problem(410, "agent-file-changed", "\(path) has become another file: ask for `agent` again and begin anew")
        }
        guard let position = off_t(exactly: offset) else { return [] }
        do throws(SystemError) {
            let file = try Descriptor.open(path, O_RDONLY)
            var failure: Int32 = 0
            let bytes = [UInt8](unsafeUninitializedCapacity: count) { memory, filled in
                let got = pread(file.number, memory.baseAddress, memory.count, position)
                failure = got < 0 ? errno : 0
                filled = max(0, got)
            }
            guard failure == 0 else { throw SystemError("pread", path, code: failure) }
            return bytes
        } catch { throw unreadable("\(error)") }
    }

    private func status() throws(Problem) -> FileStatus {
        do throws(SystemError) {
            let status = try Files.status(path)
            guard status.kind == .file else { throw SystemError("stat", path, code: EINVAL) }
            return status
        } catch {
            throw Problem(
                404, "agent-file-missing",
                "there is no agent program at \(path) (\(error.reason)): put it there, or name it in `agents.program`")
        }
    }

    private func unreadable(_ reason: String) -> Problem {
        Problem(500, "agent-file-unreadable", "the agent program \(path) cannot be used: \(reason)")
    }

    private func examine() throws(Problem) -> Description {
        let bytes: [UInt8]
        let image: ELFImage
        do throws(SystemError) { bytes = try Files.read(path, limit: Self.limit) } catch { throw unreadable("\(error)") }
        do throws(PluginRefusal) { image = try ELFImage(bytes) } catch { throw unreadable(error.reason) }
        return Description(
            version: try version(), bytes: UInt64(bytes.count), sha256: SHA256.digest(bytes).hex, glibc: image.glibc,
            libraries: image.needed)
    }

    /// What the program says of itself: `cm-agent VERSION (…)`.
    private func version() throws(Problem) -> String {
        do {
            var spawn = Spawn(program: path, arguments: ["cm-agent", "version"])
            spawn.environment = ["PATH": spawn.searchPath]
            let pipe = try Pipe()
            spawn.descriptors = [-1, pipe.writeEnd.number, -1]
            let child = try spawn.start()
            let readEnd = pipe.takeReadEnd()
            return try Self.answer(of: child, readEnd)
        } catch {
            throw unreadable("it does not say its version (\(error))")
        }
    }

    private static func answer(of child: borrowing ChildProcess, _ output: borrowing Descriptor) throws(SystemError) -> String {
        var ready = pollfd(fd: child.descriptor.number, events: Int16(POLLIN), revents: 0)
        let isOver = poll(&ready, 1, versionMilliseconds) == 1
        if !isOver {
            child.signal(SIGKILL)
            _ = poll(&ready, 1, -1)
        }
        let end = try child.reap()
        guard isOver, case .exited(0)? = end?.how else { throw SystemError("version", code: isOver ? ENOEXEC : ETIMEDOUT) }
        let number = output.number
        let text = [UInt8](unsafeUninitializedCapacity: 256) { memory, filled in
            filled = max(0, Glibc.read(number, memory.baseAddress, memory.count))
        }
        let words = String(decoding: text, as: UTF8.self).split(whereSeparator: \.isWhitespace)
        guard words.count >= 2, words[0] == "cm-agent" else { throw SystemError("version", code: EBADMSG) }
        return String(words[1])
    }
}

import CPluginABI
import Glibc
import JSON
import System

/// Looks at a plugin in a process of its own first: constructors and entry run there, and may crash or hang there.
public enum Probe {
    static let timeoutMilliseconds = 10_000

    /// Runs `PROGRAM plugin probe …` on the private copy and takes its verdict. Blocks the calling thread.
    static func run(_ copy: String, _ file: PluginFile, program: String, libraries: String) throws(PluginRefusal) {
        let output: [UInt8]
        let end: ProcessEnd?
        do {
            var spawn = Spawn(
                program: program, arguments: ["client-manager", "plugin", "probe", "/proc/self/fd/3", libraries])
            spawn.environment = environment()
            let image = try Descriptor.open(copy, O_RDONLY)
            let pipe = try Pipe()
            spawn.descriptors = [-1, pipe.writeEnd.number, -1, image.number]
            spawn.diesWithStarter = true
            spawn.limits = [.coreDump(0)]
            let child = try spawn.start()
            let readEnd = pipe.takeReadEnd()
            (output, end) = try collect(child, readEnd)
        } catch {
            throw PluginRefusal("plugin-probe", "it could not be looked at in a process of its own: \(error)", remedy: "see the reason")
        }
        switch end?.how {
        case nil:
            throw PluginRefusal(
                "plugin-probe", "its constructors or its entry did not return within \(timeoutMilliseconds / 1_000) s",
                remedy: "do nothing there: start threads and open files in load or start")
        case .signaled(let signal):
            throw PluginRefusal(
                "plugin-probe", "it crashed while it was looked at (signal \(signal))",
                remedy: "run it in a debugger: client-manager plugin check \(file.path)")
        case .exited:
            // The status alone proves nothing: a constructor may call exit(0).
            let verdict = try? JSONValue(parsing: output, limits: JSONLimits(bytes: 65_536))
            if verdict?["ok"]?.bool == true { return }
            throw PluginRefusal(
                verdict?["code"]?.string ?? "plugin-probe", verdict?["reason"]?.string ?? "it ended the process that looked at it",
                remedy: verdict?["remedy"]?.string ?? "do not call exit in constructors or in the entry")
        }
    }

    /// What the loader and the Swift runtime of the child need, nothing else.
    private static func environment() -> [String: String] {
        var environment = ["SWIFT_BACKTRACE": "enable=no"]
        for name in ["LD_LIBRARY_PATH", "PATH"] {
            if let value = getenv(name) { environment[name] = String(cString: value) }
        }
        return environment
    }

    /// Output and end of the child; `nil` when it had to be killed.
    private static func collect(_ child: consuming ChildProcess, _ pipe: consuming Descriptor) throws -> ([UInt8], ProcessEnd?) {
        var output: [UInt8] = []
        let deadline = Deadline(milliseconds: timeoutMilliseconds)
        var polls = [pollfd(fd: child.descriptor.number, events: Int16(POLLIN), revents: 0), pollfd(fd: pipe.number, events: Int16(POLLIN), revents: 0)]
        var end: ProcessEnd?
        while end == nil {
            let left = deadline.millisecondsLeft
            if left == 0 {
                child.signalGroup(SIGKILL)
                _ = poll(&polls, 1, -1)
                _ = try child.reap()
                return (output, nil)
            }
            _ = poll(&polls, 2, left)
            if polls[1].revents != 0, output.count < 65_536 {
                withUnsafeTemporaryAllocation(byteCount: 4_096, alignment: 1) { buffer in
                    let count = read(pipe.number, buffer.baseAddress, buffer.count)
                    if count > 0 { output.append(contentsOf: buffer[..<count]) }
                    if count <= 0 { polls[1].fd = -1 }
                }
            }
            if polls[0].revents != 0, polls[1].fd == -1 || polls[1].revents == 0 { end = try child.reap() }
        }
        child.signalGroup(SIGKILL)
        return (output, end)
    }

    /// The child's side: 0 if the plugin can be loaded, else 1 and the refusal as JSON on standard output.
    public static func main(path: String, libraries: String) -> Int32 {
        do throws(PluginRefusal) {
            guard let bytes = try? Files.read(path, limit: PluginFile.maximumBytes) else {
                throw PluginRefusal("plugin-unreadable", "the copy cannot be read", remedy: "see the core's log")
            }
            let image = try ELFImage(bytes)
            let note = try PluginNote(image.note ?? [])
            let file = PluginFile(path: path, note: note, sha256: "", signer: nil, needed: image.needed, bytes: [])
            _ = try PluginImage.load(path, file, libraries: libraries)
            print(#"{"ok":true}"#)
            return 0
        } catch {
            let verdict: JSONValue = [
                "code": .string(error.code), "reason": .string(error.reason), "remedy": .string(error.remedy),
            ]
            print(String(decoding: verdict.serialized(), as: UTF8.self))
            return 1
        }
    }
}

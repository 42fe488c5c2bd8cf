import Glibc
import JSON
import Kernel
import System

/// What tells the outside that the core serves: one line on standard output and the same text in `D/run/ready.json`.
struct ReadyFile {
    let path: String

    init(directory: String) throws(SystemError) {
        try Files.makeDirectories(directory + "/run", mode: 0o755)
        path = directory + "/run/ready.json"
        try remove()
    }

    func announce(url: String, fingerprint: String) throws(SystemError) {
        let event: JSONValue = [
            "event": "ready", "url": .string(url), "fingerprint": .string(fingerprint), "pid": .integer(Int64(getpid())),
        ]
        let line = event.serialized() + [0x0A]
        try AtomicFile.write(line, to: path, mode: 0o644)
        _ = line.withUnsafeBytes { write(STDOUT_FILENO, $0.baseAddress, $0.count) }
    }

    /// A file that is there means a core that serves: it goes before the drain begins.
    func remove() throws(SystemError) {
        if Files.exists(path) { try Files.remove(path) }
    }
}

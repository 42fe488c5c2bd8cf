import Glibc
import System

/// A directory that goes away with its owner.
final class TemporaryDirectory {
    let path: String

    init() throws {
        path = "/tmp/cm-test-" + String(UInt64.random(in: 0 ... .max), radix: 36)
        try Files.makeDirectory(path)
    }

    deinit { try? Files.removeTree(path) }
}

/// Waits for the end of a child (its descriptor becomes readable).
func waitForEnd(_ child: borrowing ChildProcess) throws -> ProcessEnd? {
    var item = pollfd(fd: child.descriptor.number, events: Int16(POLLIN), revents: 0)
    while poll(&item, 1, 60_000) < 0, errno == EINTR {}
    return try child.reap()
}

/// Runs a program to its end and returns its standard output.
func run(_ spawn: Spawn, in directory: TemporaryDirectory) throws -> (end: ProcessEnd?, output: String) {
    let path = directory.path + "/output"
    let file = try Descriptor.open(path, O_RDWR | O_CREAT | O_TRUNC)
    var spawn = spawn
    spawn.descriptors = [-1, file.number, file.number]
    let child = try spawn.start()
    let end = try waitForEnd(child)
    return (end, String(decoding: try Files.read(path, limit: 1 << 20), as: UTF8.self))
}

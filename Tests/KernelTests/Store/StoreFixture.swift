import Glibc
import Kernel

/// A data directory that goes away with the test.
final class TemporaryDirectory: Sendable {
    let path: String

    init() {
        var template = Array("/tmp/cm-store-XXXXXX".utf8CString)
        path = mkdtemp(&template).map { String(cString: $0) } ?? "/tmp"
    }

    deinit { remove(path, depth: 0) }

    private func remove(_ path: String, depth: Int) {
        guard depth < 8, let directory = opendir(path) else { return }
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            guard name != "." && name != ".." else { continue }
            if unlink(path + "/" + name) != 0 { remove(path + "/" + name, depth: depth + 1) }
        }
        closedir(directory)
        rmdir(path)
    }
}

let numbersMigration = Migration(
    area: "numbers", version: 1, sql: "CREATE TABLE numbers (value INTEGER PRIMARY KEY, note TEXT NOT NULL) STRICT")

func openStore(_ directory: TemporaryDirectory, _ change: (inout StoreOptions) -> Void = { _ in }) throws -> Store {
    var options = StoreOptions()
    change(&options)
    return try Store.open(directory: directory.path, migrations: [numbersMigration], options: options)
}

extension Store {
    func insert(_ value: Int, note: String = "x") async throws {
        try await write { (transaction) throws(StoreError) in
            _ = try transaction.run("INSERT INTO numbers VALUES (?, ?)", value, note)
        }
    }

    func numbers() async throws -> [Int] {
        try await read { (reader) throws(StoreError) in
            try reader.all("SELECT value FROM numbers ORDER BY value") { (row) throws(StoreError) in row.int(0) }
        }
    }
}

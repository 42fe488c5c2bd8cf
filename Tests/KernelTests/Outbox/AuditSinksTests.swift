import Glibc
import JSON
import Reactor
import Testing

@testable import Kernel

@Suite(.timeLimit(.minutes(1))) struct AuditSinksTests {
    private func sequences(_ path: String) throws -> [Int64] {
        try read(path).split(separator: "\n").map { try JSONValue(parsing: String($0))["sequence"]?.integer ?? 0 }
    }

    /// Starts the sinks and returns when a sink's position is there, in the file and in the database.
    private func run(_ sinks: AuditSinks, on loop: EventLoop, upTo position: UInt64) async {
        let (positions, copied) = AsyncStream.makeStream(of: UInt64.self)
        sinks.start(on: loop, copied: { copied.yield($0) })
        for await reached in positions where reached >= position { break }
        sinks.stop()
    }

    private func read(_ path: String) -> String {
        guard let file = fopen(path, "r") else { return "" }
        defer { fclose(file) }
        var text: [UInt8] = []
        var byte = fgetc(file)
        while byte != EOF {
            text.append(UInt8(truncatingIfNeeded: byte))
            byte = fgetc(file)
        }
        return String(decoding: text, as: UTF8.self)
    }

    @Test func aFileGetsEveryRecordOnceAlsoOverARestartAndARotation() async throws {
        let directory = TemporaryDirectory()
        let path = directory.path + "/audit.log"
        let loop = try EventLoop.start(name: "sinks-test")
        var store = try Store.open(directory: directory.path, migrations: Outbox.migrations)
        var sinks = AuditSinks(store: store, audit: Audit(store: store, settings: nil), targets: [.file(path)])
        try await writeActs(store, 10)
        await run(sinks, on: loop, upTo: 10)
        #expect(try sequences(path) == Array(1...10))
        store.close()

        store = try Store.open(directory: directory.path, migrations: Outbox.migrations)
        sinks = AuditSinks(store: store, audit: Audit(store: store, settings: nil), targets: [.file(path)])
        rename(path, path + ".1")
        try await writeActs(store, 5)
        await run(sinks, on: loop, upTo: 15)
        #expect(try sequences(path) == Array(11...15))
        store.close()
        loop.stop()
    }

    @Test func syslogGetsOneMessagePerRecord() async throws {
        let directory = TemporaryDirectory()
        let path = directory.path + "/log"
        let receiver = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0)
        defer { close(receiver) }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(path.utf8)) }
        let bound = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(receiver, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
        }
        #expect(bound == 0)
        let store = try openStore(directory)
        try await writeActs(store, 1)
        let lines = try await Audit(store: store, settings: nil).lines(after: 0).lines
        let sink = AuditSyslogSink(path)
        try sink.write(lines)
        var buffer = [UInt8](repeating: 0, count: 65_536)
        let count = recv(receiver, &buffer, buffer.count, 0)
        let text = String(decoding: buffer[..<max(count, 0)], as: UTF8.self)
        #expect(text.hasPrefix("<110>1 - - client-manager - audit - {\"sequence\":1,"))
        store.close()
    }

    @Test func aLongRecordIsShortenedForSyslog() async throws {
        let directory = TemporaryDirectory()
        let store = try openStore(directory)
        try await store.write { (transaction) throws(StoreError) in
            try transaction.audit(AuditRecord(
                principal: Principal(kind: .user, id: "ada"), action: "test.act",
                detail: .string(String(repeating: "x", count: 15_000))))
        }
        let line = try #require(try await Audit(store: store, settings: nil).lines(after: 0).lines.first)
        let message = AuditSyslogSink.message(line)
        #expect(message.count < AuditSyslogSink.maximumMessage)
        #expect(String(decoding: message, as: UTF8.self).contains("left_out_bytes"))
        store.close()
    }
}

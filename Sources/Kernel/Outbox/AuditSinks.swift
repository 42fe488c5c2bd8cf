import Reactor
import Synchronization
import System

/// Copies every audit record to the sinks of the configuration: at least once, in order, each sink from its own durable
/// position, however long it was away.
public final class AuditSinks: Sendable {
    private let store: Store
    private let audit: Audit
    private let targets: [AuditSinkTarget]
    private let stopping = Atomic<Bool>(false)
    private let pool = BlockingPool(name: "audit-sinks", threads: 2, queue: 64)

    /// - Parameter targets: of the configuration. A new one begins with the oldest record that is kept.
    public init(store: Store, audit: Audit, targets: [AuditSinkTarget]) {
        self.store = store
        self.audit = audit
        self.targets = Array(Set(targets))
    }

    /// - Parameter copied: told of each new position of a sink once it is durable.
    public func start(
        on loop: EventLoop, log: @escaping @Sendable (Problem) -> Void = { _ in },
        copied: @escaping @Sendable (UInt64) -> Void = { _ in }
    ) {
        for target in targets {
            let writer: any AuditSinkWriter =
                switch target {
                case .file(let path): AuditFileSink(path)
                case .syslog(let path): AuditSyslogSink(path)
                }
            let sink = Sink(target.name, writer)
            loop.spawn { await self.run(sink, on: loop, copied, log) }
        }
    }

    public func stop() { stopping.store(true, ordering: .relaxed) }

    /// `@unchecked Sendable`: one task drives a sink, one batch at a time, so its writer is never used twice at once.
    private final class Sink: @unchecked Sendable {
        let name: String
        let writer: any AuditSinkWriter
        init(_ name: String, _ writer: any AuditSinkWriter) {
            self.name = name
            self.writer = writer
        }
    }

    private func run(
        _ sink: Sink, on loop: EventLoop, _ copied: @Sendable (UInt64) -> Void, _ log: @Sendable (Problem) -> Void
    ) async {
        var position: UInt64?
        var pause: UInt64 = 500
        while !stopping.load(ordering: .relaxed) {
            do throws(Problem) {
                let known: UInt64
                if let position { known = position } else { known = try await stored(sink.name) }
                position = known
                if audit.newest > known {
                    let reached = try await copy(sink, after: known)
                    position = reached
                    copied(reached)
                    pause = 500
                    continue
                }
            } catch {
                // One line per failure and never more than one a minute in the long run.
                log(error)
                pause = min(pause * 2, 60_000)
            }
            await loop.sleep(milliseconds: pause)
        }
    }

    /// - Returns: the new position; durable, so a restart repeats at most one batch.
    private func copy(_ sink: Sink, after position: UInt64) async throws(Problem) -> UInt64 {
        let page = try await audit.lines(after: position, limit: 500)
        if !page.lines.isEmpty {
            do {
                try await pool.run { () throws(SystemError) in try sink.writer.write(page.lines) }
            } catch {
                throw Problem(500, "audit-sink", "the audit sink \(sink.name) failed: \(error)")
            }
        }
        let (name, reached) = (sink.name, page.reached)
        try await store.write { (transaction) throws(StoreError) in
            _ = try transaction.run("INSERT OR REPLACE INTO audit_sinks VALUES (?, ?)", name, reached)
        }
        return reached
    }

    private func stored(_ name: String) async throws(Problem) -> UInt64 {
        try await store.read { (reader) throws(StoreError) in
            try reader.first("SELECT position FROM audit_sinks WHERE name = ?", name) { (row) throws(StoreError) in
                row.unsigned(0)
            } ?? 0
        }
    }
}

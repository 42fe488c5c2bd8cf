import API
import Glibc
import Kernel
import PluginHost
import Program
import Reactor
import Synchronization
import System

/// Commands over a data directory that need no running core: `audit verify`, `backup`, `restore`.
enum CoreMaintenance {
    static func auditVerify(_ arguments: [String]) -> Int32 {
        run(arguments, [
            Flag.option("data-dir", "DIR", "The live trail of this data directory."),
            Flag.option("file", "FILE", "An exported file of JSON lines."),
        ]) { flags throws(Problem) in
            let report: AuditReport
            switch (flags.value("file"), flags.value("data-dir")) {
            case (let file?, let directory): report = try AuditVerification.verify(file: file, dataDirectory: directory)
            case (nil, let directory?): report = try AuditVerification.verify(dataDirectory: directory)
            case (nil, nil): throw .invalid("give --data-dir DIR or --file FILE (or both: then the file must be of that core)")
            }
            print(report.json)
            guard let fault = report.fault else { return 0 }
            return CoreCommandLine.fail("the audit trail is broken at record \(fault.record): \(fault.reason)", status: 1)
        }
    }

    static func backup(_ arguments: [String]) -> Int32 {
        run(arguments, [
            Flag.option("data-dir", "DIR", "What to copy; a core may run on it."),
            Flag.option("to", "DIR", "A new directory; it will hold the core's private keys."),
        ]) { flags throws(Problem) in
            guard let source = flags.value("data-dir"), let destination = flags.value("to") else {
                throw .invalid("give --data-dir DIR and --to DIR")
            }
            report("backup", try Backup.make(dataDirectory: source, to: destination))
            return 0
        }
    }

    static func restore(_ arguments: [String]) -> Int32 {
        run(arguments, [
            Flag.option("from", "DIR", "A backup."), Flag.option("data-dir", "DIR", "A new data directory."),
        ]) { flags throws(Problem) in
            guard let source = flags.value("from"), let destination = flags.value("data-dir") else {
                throw .invalid("give --from DIR and --data-dir DIR")
            }
            report("restore", try Backup.restore(from: source, dataDirectory: destination))
            return 0
        }
    }

    /// For those who lost the administrator's token: access to the data directory is the proof. The store's lock refuses
    /// while a core runs on it, and the trail tells who asked.
    static func recoverToken(directory: String, _ configuration: Configuration) -> Int32 {
        guard access(directory + "/core.sqlite3", F_OK) == 0 else {
            return CoreCommandLine.fail("\(directory) is no data directory of a core: it has no core.sqlite3", status: 1)
        }
        let outcome = Mutex<Result<String, Problem>?>(nil)
        do throws(ReactorError) {
            let loop = try EventLoop.start(name: "recovery")
            loop.spawn {
                let result: Result<String, Problem>
                do throws(Problem) { result = .success(try await recover(directory, configuration)) } catch {
                    result = .failure(error)
                }
                outcome.withLock { $0 = result }
                loop.stop()
            }
            loop.join()
        } catch { return CoreCommandLine.fail("\(error)", status: 1) }
        switch outcome.withLock({ $0 }) {
        case .success(let id):
            print("{\"event\":\"token-recovered\",\"id\":\"\(id)\",\"file\":\"\(directory)/admin-token\"}")
            return 0
        case .failure(let problem): return CoreCommandLine.fail(problem.detail, status: 1)
        case nil: return CoreCommandLine.fail("the token could not be made", status: 1)
        }
    }

    private static func recover(_ directory: String, _ configuration: Configuration) async throws(Problem) -> String {
        let safe = try CoreSecrets.safe(configuration)
        let store = try Store.open(directory: directory, migrations: Kernel.migrations + PluginHost.migrations, safe: safe)
        // Closing joins the store's threads, which a loop must not wait for.
        let pool = BlockingPool(name: "closing", threads: 1, queue: 1)
        let result: Result<String, Problem>
        do throws(Problem) {
            let security = try await Security.load(
                store: store, directory: directory, safe: safe, options: try CoreSecrets.options(configuration))
            let user = UInt32(getuid())
            result = .success(try await security.recoverAdministrator(directory: directory, user: "uid \(user)"))
        } catch { result = .failure(error) }
        _ = try? await pool.run { store.close() }
        return try result.get()
    }

    private static func report(_ event: String, _ summary: Backup.Summary) {
        print("{\"event\":\"\(event)\",\"files\":\(summary.files),\"bytes\":\(summary.bytes)}")
    }

    private static func run(
        _ arguments: [String], _ allowed: [Flag], _ body: (Flags) throws(Problem) -> Int32
    ) -> Int32 {
        let flags: Flags
        do { flags = try Flags(parsing: arguments, allowed: allowed) } catch {
            return CoreCommandLine.fail("\(error)", status: 2)
        }
        if let word = flags.words.first {
            return CoreCommandLine.fail("unexpected word \"\(word)\"; see client-manager help", status: 2)
        }
        do throws(Problem) { return try body(flags) } catch {
            return CoreCommandLine.fail(error.detail, status: error.status == 400 ? 2 : 1)
        }
    }
}

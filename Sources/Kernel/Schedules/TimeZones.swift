import Reactor
import Synchronization
import System

/// The time zones of this machine, read from its TZif files when they are first asked for. Any thread; `rules` on a loop.
public final class TimeZones: Sendable {
    public static let systemDirectory = "/usr/share/zoneinfo"

    private struct Loaded: Sendable {
        var rules: ZoneRules
        /// Unix milliseconds.
        var at: UInt64
    }
    private let directory: String
    private let now: @Sendable () -> UInt64
    private let loaded = Mutex<[String: Loaded]>([:])
    private let pool = BlockingPool(name: "zones", threads: 1, queue: 64)

    /// After this the file is read again: an update of the machine's zones needs no restart.
    static let maximumAge: UInt64 = 3_600_000
    static let maximumLoaded = 256

    public init(
        directory: String = TimeZones.systemDirectory, now: @escaping @Sendable () -> UInt64 = { unixMilliseconds() }
    ) {
        self.directory = directory
        self.now = now
    }

    /// - Parameter name: `Europe/Berlin`, `UTC`, … (`UTC` needs no file).
    /// - Throws: 400 for a name that this machine does not know; 503 while too many are being read.
    public func rules(_ name: String) async throws(Problem) -> ZoneRules {
        if name == "UTC" { return .utc }
        let now = now()
        if let known = loaded.withLock({ $0[name] }), known.at + Self.maximumAge > now { return known.rules }
        guard Self.isName(name) else { throw unknown(name, "a name has letters, digits, _, +, - and /") }
        let path = directory + "/" + name
        let bytes: [UInt8]
        do {
            bytes = try await pool.run { () throws(SystemError) in
                try Files.read(path, limit: ZoneRules.maximumBytes)
            }
        } catch {
            switch error {
            case .full: throw Problem(503, "busy", "time zones are being read: try again", retryAfter: 1)
            case .failed(let failure): throw unknown(name, failure.isMissing ? "there is no file \(path)" : "\(failure)")
            }
        }
        do throws(ZoneFault) {
            let rules = try ZoneRules(tzif: bytes)
            loaded.withLock { loaded in
                if loaded.count >= Self.maximumLoaded { loaded = [:] }
                loaded[name] = Loaded(rules: rules, at: now)
            }
            return rules
        } catch {
            throw unknown(name, "\(path) cannot be used: \(error.reason)")
        }
    }

    private func unknown(_ name: String, _ reason: String) -> Problem {
        .invalid(
            "\"\(name.prefix(64))\" is no time zone of this machine: \(reason); write one such as \"Europe/Berlin\" or \"UTC\"",
            pointer: "/zone")
    }

    /// Nothing that could lead out of the directory.
    private static func isName(_ name: String) -> Bool {
        guard (1...64).contains(name.utf8.count) else { return false }
        return name.split(separator: "/", omittingEmptySubsequences: false).allSatisfy { part in
            !part.isEmpty
                && part.utf8.allSatisfy {
                    (0x30...0x39).contains($0) || (0x41...0x5A).contains($0 & 0xDF) || $0 == 0x5F || $0 == 0x2B || $0 == 0x2D
                }
        }
    }
}

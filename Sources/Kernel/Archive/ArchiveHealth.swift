import JSON

/// What keeps an archive from going on.
struct ArchiveTrouble: Sendable, Equatable {
    var code: String
    var text: String
    var isAbsent: Bool
    /// Log and events have it.
    var isTold: Bool
    var sinceMilliseconds: UInt64
    var nextMilliseconds: UInt64

    func json(attempts: Int) -> JSONValue {
        [
            "code": .string(code), "text": .string(text), "since_ms": .integer(Int64(clamping: sinceMilliseconds)),
            "next_ms": .integer(Int64(clamping: nextMilliseconds)), "attempts": .integer(Int64(attempts)),
        ]
    }
}

/// How the last attempts of an archive went, when the next one is, and what is news in that. A value; no clock of its own.
struct ArchiveHealth: Sendable {
    /// How long a store may be away before that is news.
    static let graceMilliseconds: UInt64 = 15_000
    private let grace: UInt64
    private(set) var pace = ArchivePace()
    private(set) var trouble: ArchiveTrouble?

    init(graceMilliseconds: UInt64 = ArchiveHealth.graceMilliseconds) { grace = graceMilliseconds }

    /// - Returns: whether the trouble that is over was told.
    mutating func succeeded() -> Bool {
        defer {
            trouble = nil
            pace.succeeded()
        }
        return trouble?.isTold == true
    }

    /// - Returns: the pause before the next attempt, and whether log and events do not have it yet.
    mutating func failed(_ failure: ArchiveFailure, now: UInt64) -> (pause: UInt64, isNews: Bool) {
        let isAbsent = failure.isAbsent
        let before = trouble.flatMap { $0.isAbsent == isAbsent ? $0 : nil }
        // Who is not there yet has not failed: plugins come after the core, and tell by `storeChanged`. So nothing is said at first.
        let since = min(before?.sinceMilliseconds ?? now, now)
        let isTold = !isAbsent || before?.isTold == true || now - since >= grace
        let pause = !isAbsent ? pace.failed() : isTold ? 60_000 : since + grace - now
        let (code, text) = failure.told
        trouble = ArchiveTrouble(
            code: code, text: text, isAbsent: isAbsent, isTold: isTold, sinceMilliseconds: since, nextMilliseconds: now + pause)
        return (pause, isTold && before?.isTold != true)
    }
}

/// Why an attempt failed.
enum ArchiveFailure: Error {
    case store(ObjectStoreError)
    case core(Problem)

    static func ofCore<Value>(_ body: () async throws(Problem) -> Value) async throws(ArchiveFailure) -> Value {
        do throws(Problem) { return try await body() } catch { throw .core(error) }
    }

    /// Says which object it is about.
    static func ofStore<Value>(_ key: String, _ body: () async throws(ArchiveFailure) -> Value) async throws(ArchiveFailure) -> Value {
        do throws(ArchiveFailure) {
            return try await body()
        } catch {
            guard case .store(var reason) = error else { throw error }
            reason.text = "\(key): \(reason.text)"
            throw .store(reason)
        }
    }

    var isAbsent: Bool {
        if case .store(let error) = self { return error.kind == .absent }
        return false
    }

    var told: (code: String, text: String) {
        switch self {
        case .store(let error): (error.code, error.text)
        case .core(let problem): (problem.code, problem.detail)
        }
    }
}

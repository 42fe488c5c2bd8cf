import JSON
import Synchronization

public enum LogLevel: Int, Sendable, CaseIterable, Comparable {
    case debug, info, warning, error

    public var name: String { String(describing: self) }
    public init?(name: String) {
        guard let level = LogLevel.allCases.first(where: { $0.name == name }) else { return nil }
        self = level
    }
    public static func < (left: LogLevel, right: LogLevel) -> Bool { left.rawValue < right.rawValue }
}

/// Writes one JSON object per line: `time`, `level`, `event`, then fields. A handle that is passed in; any thread may use it,
/// and no call ever blocks.
///
///     log.info("client.online", ["client": .string(id)])
public struct Log: Sendable {
    private final class Shared: Sendable {
        let level: Atomic<Int>
        let write: @Sendable ([UInt8]) -> Void
        let clock: @Sendable () -> Timestamp
        init(_ level: LogLevel, _ clock: @escaping @Sendable () -> Timestamp, _ write: @escaping @Sendable ([UInt8]) -> Void) {
            self.level = Atomic(level.rawValue)
            self.clock = clock
            self.write = write
        }
    }

    /// A longer string in a field is cut.
    static let longestString = 2 << 10
    /// A longer line loses its fields and says so.
    static let longestLine = 16 << 10

    private let shared: Shared
    private let context: JSONObject

    /// - Parameter write: gets whole lines with their newline, on the caller's thread; must not block.
    public init(
        level: LogLevel = .info, clock: @escaping @Sendable () -> Timestamp = Timestamp.now,
        write: @escaping @Sendable ([UInt8]) -> Void
    ) {
        shared = Shared(level, clock, write)
        context = [:]
    }

    private init(_ shared: Shared, _ context: JSONObject) {
        self.shared = shared
        self.context = context
    }

    /// For tests and short-lived tools.
    public static let silent = Log(level: .error) { _ in }

    /// The same log with fields that each line gets, such as the correlation id of a request.
    public func with(_ fields: JSONObject) -> Log {
        var merged = context
        for field in fields { merged[field.key] = field.value }
        return Log(shared, merged)
    }

    /// Shared by all handles made from the same log; takes effect at once.
    public var level: LogLevel {
        get { LogLevel(rawValue: shared.level.load(ordering: .relaxed)) ?? .info }
        nonmutating set { shared.level.store(newValue.rawValue, ordering: .relaxed) }
    }

    public func debug(_ event: StaticString, _ fields: @autoclosure () -> JSONObject = [:]) { line(.debug, event, fields) }
    public func info(_ event: StaticString, _ fields: @autoclosure () -> JSONObject = [:]) { line(.info, event, fields) }
    public func warning(_ event: StaticString, _ fields: @autoclosure () -> JSONObject = [:]) {
        line(.warning, event, fields)
    }
    public func error(_ event: StaticString, _ fields: @autoclosure () -> JSONObject = [:]) { line(.error, event, fields) }

    private func line(_ level: LogLevel, _ event: StaticString, _ fields: () -> JSONObject) {
        guard level.rawValue >= shared.level.load(ordering: .relaxed) else { return }
        let bytes = Self.compose(shared.clock(), level, event, [context, fields()])
        shared.write(bytes)
    }

    static func compose(_ time: Timestamp, _ level: LogLevel, _ event: StaticString, _ fields: [JSONObject]) -> [UInt8] {
        var writer = JSONWriter(reserving: 256)
        func head(_ writer: inout JSONWriter) {
            writer.field("time", time.description)
            writer.field("level", level.name)
            writer.field("event", event.description)
        }
        writer.object { writer in
            head(&writer)
            var seen: Set<String> = ["time", "level", "event"]
            for object in fields.reversed() {
                for field in object where seen.insert(field.key).inserted {
                    writer.member(field.key, shortened(field.value))
                    if writer.byteCount > longestLine { return }
                }
            }
        }
        if writer.byteCount > longestLine {
            writer.restart()
            writer.object { writer in
                head(&writer)
                writer.field("truncated", true)
            }
        }
        writer.newline()
        return writer.finish()
    }

    private static func shortened(_ value: JSONValue) -> JSONValue {
        guard let text = value.string, text.utf8.count > longestString else { return value }
        return .string(String(decoding: text.utf8.prefix(longestString), as: UTF8.self) + "…")
    }
}

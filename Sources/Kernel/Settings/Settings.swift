import JSON
import Reactor
import Synchronization

/// The run-time settings: durable, typed, each change audited and told as the event `settings.changed`. Any thread.
public final class Settings: Sendable {
    public typealias Observer = @Sendable (JSONValue) -> Void

    public static let migrations = [
        Migration(area: "settings", version: 1, sql: """
            CREATE TABLE settings (
                name TEXT PRIMARY KEY, value TEXT NOT NULL, changed_ms INTEGER NOT NULL, changed_by TEXT NOT NULL
            ) STRICT, WITHOUT ROWID
            """)
    ]

    private struct Current: Sendable {
        var value: JSONValue
        var isChanged = false
        var changedMilliseconds: UInt64 = 0
        var changedBy = ""
        /// Audit sequence of the change: the newer of two racing changes stays, here as in the database.
        var revision: UInt64 = 0
    }
    private struct State: ~Copyable {
        var values: [String: Current] = [:]
        var observers: [String: [Observer]] = [:]
    }
    private let declared: [Setting]
    private let store: Store
    private let events: Events
    private let state = Mutex(State())

    /// - Parameter declared: names must differ. What the database holds beside them, or what is no longer allowed, is
    ///   left alone and counts as unset.
    public static func load(
        _ declared: [Setting] = Setting.common, store: Store, events: Events
    ) async throws(Problem) -> Settings {
        let rows = try await store.read { (reader) throws(StoreError) in
            try reader.all("SELECT name, value, changed_ms, changed_by FROM settings") { (row) throws(StoreError) in
                (row.text(0), row.text(1), row.unsigned(2), row.text(3))
            }
        }
        let settings = Settings(declared, store: store, events: events)
        for (name, text, milliseconds, actor) in rows {
            guard let setting = settings.find(name), let value = setting.valid(text) else { continue }
            settings.state.withLock {
                $0.values[name] = Current(
                    value: value, isChanged: true, changedMilliseconds: milliseconds, changedBy: actor)
            }
        }
        return settings
    }

    private init(_ declared: [Setting], store: Store, events: Events) {
        self.declared = declared
        self.store = store
        self.events = events
        state.withLock { state in
            for setting in declared { state.values[setting.name] = Current(value: setting.initial) }
        }
    }

    // MARK: Reading

    public func value(_ setting: Setting) -> JSONValue {
        state.withLock { $0.values[setting.name]?.value } ?? setting.initial
    }
    public func integer(_ setting: Setting) -> Int { Int(value(setting).integer ?? setting.initial.integer ?? 0) }
    public func bool(_ setting: Setting) -> Bool { value(setting).bool ?? setting.initial.bool ?? false }
    public func text(_ setting: Setting) -> String { value(setting).string ?? setting.initial.string ?? "" }
    public func strings(_ setting: Setting) -> [String] {
        (value(setting).array ?? setting.initial.array ?? []).compactMap(\.string)
    }

    /// Every setting as the API shows it.
    public func list() -> [JSONValue] { declared.map(show) }

    public func show(_ name: String) throws(Problem) -> JSONValue { show(try require(name)) }

    private func show(_ setting: Setting) -> JSONValue {
        let current = state.withLock { $0.values[setting.name] } ?? Current(value: setting.initial)
        var object: JSONObject = [
            "name": .string(setting.name), "value": current.value, "default": setting.initial,
            "type": .string(setting.schemaKind), "summary": .string(setting.summary),
            "changed": .bool(current.isChanged),
        ]
        switch setting.kind {
        case .integer(let range):
            object["minimum"] = .integer(Int64(range.lowerBound))
            object["maximum"] = .integer(Int64(range.upperBound))
        case .choice(let choices): object["choices"] = .array(choices.map { .string($0) })
        case .bool, .strings, .text: break
        }
        if current.isChanged {
            object["changed_ms"] = .integer(Int64(clamping: current.changedMilliseconds))
            object["changed_by"] = .string(current.changedBy)
        }
        return .object(object)
    }

    /// Calls `observer` after each change, on the thread of whoever changed it; it must not wait.
    public func observe(_ setting: Setting, _ observer: @escaping Observer) {
        state.withLock { $0.observers[setting.name, default: []].append(observer) }
    }

    // MARK: Changing

    /// - Parameter value: `nil` goes back to the default.
    /// - Throws: 404 for an unknown name, 400 with what is allowed.
    public func set(_ name: String, to value: JSONValue?, by principal: Principal) async throws(Problem) {
        let setting = try require(name)
        if let value, let fault = setting.fault(of: value) {
            throw .invalid("\(name) \(fault)", pointer: "/value")
        }
        let now = unixMilliseconds()
        let text = value.map { String(decoding: $0.serialized(), as: UTF8.self) }
        let before = self.value(setting)
        let record = AuditRecord(
            principal: principal, action: "settings.change", target: name,
            detail: ["from": before, "to": value ?? setting.initial])
        let revision = try await store.write { (transaction) throws(StoreError) in
            if let text {
                try transaction.run(
                    "INSERT OR REPLACE INTO settings VALUES (?, ?, ?, ?)", name, text, now, principal.id)
            } else {
                try transaction.run("DELETE FROM settings WHERE name = ?", name)
            }
            return try transaction.audit(record)
        }
        let current = Current(
            value: value ?? setting.initial, isChanged: value != nil, changedMilliseconds: now,
            changedBy: principal.id, revision: revision)
        let observers: [Observer]? = state.withLock { state in
            guard state.values[name]?.revision ?? 0 < revision else { return nil }
            state.values[name] = current
            return state.observers[name] ?? []
        }
        guard let observers else { return }
        for observer in observers { observer(current.value) }
        events.publish(Event(
            kind: "settings.changed", subject: name, data: ["value": current.value, "by": .string(principal.id)]))
    }

    private func find(_ name: String) -> Setting? { declared.first { $0.name == name } }

    private func require(_ name: String) throws(Problem) -> Setting {
        guard let setting = find(name) else {
            throw .notFound("there is no setting \"\(name)\"; there are \(declared.map(\.name).joined(separator: ", "))")
        }
        return setting
    }
}

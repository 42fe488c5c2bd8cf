import JSON
import Synchronization

/// The built-in catalogue and the operators' own templates. A stored template never changes: a change is a new version.
public final class Templates: Sendable {
    private let store: Store
    private let builtIn: [String: Template]
    /// The newest versions of the operators' templates, by name.
    private let own: Mutex<[String: Template]>

    /// Operators' templates in all.
    static let limit = 2_000

    public static let migrations = [
        Migration(
            area: "templates", version: 1,
            sql: """
                CREATE TABLE templates (
                    name TEXT NOT NULL, version INTEGER NOT NULL, hash TEXT NOT NULL, text BLOB NOT NULL,
                    made_ms INTEGER NOT NULL, principal TEXT NOT NULL, PRIMARY KEY (name, version)
                ) STRICT, WITHOUT ROWID;
                CREATE TABLE template_removals (name TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
                """)
    ]

    public static func open(_ store: Store) async throws(Problem) -> Templates {
        let rows = try await store.read { (reader) throws(StoreError) in
            try reader.all(
                """
                SELECT t.name, t.version, t.text FROM templates t
                WHERE version = (SELECT max(version) FROM templates n WHERE n.name = t.name)
                AND name NOT IN (SELECT name FROM template_removals)
                """
            ) { (row) throws(StoreError) in (row.text(0), row.int(1), row.bytes(2)) }
        }
        var own: [String: Template] = [:]
        for (name, version, text) in rows {
            own[name] = try Template(name: name, version: version, reading: text)
        }
        return Templates(store, own)
    }

    private init(_ store: Store, _ own: [String: Template]) {
        self.store = store
        builtIn = Dictionary(uniqueKeysWithValues: TemplateCatalogue.all.map { ($0.name, $0) })
        self.own = Mutex(own)
    }

    /// All newest versions, by name.
    public func list() -> [Template] {
        (Array(builtIn.values) + own.withLock { Array($0.values) }).sorted { $0.name < $1.name }
    }

    /// - Throws: 404 `template-unknown`.
    public func get(_ name: String, version: Int?) async throws(Problem) -> Template {
        if let template = builtIn[name] ?? own.withLock({ $0[name] }), version == nil || version == template.version {
            return template
        }
        if let version, builtIn[name] == nil {
            let text = try await store.read { (reader) throws(StoreError) in
                try reader.first("SELECT text FROM templates WHERE name = ? AND version = ?", name, version) {
                    (row) throws(StoreError) in row.bytes(0)
                }
            }
            if let text { return try Template(name: name, version: version, reading: text) }
        }
        throw Problem(
            404, "template-unknown",
            "there is no template \"\(CommandRequest.clipped(name))\"\(version.map { " in version \($0)" } ?? "")")
    }

    /// Stores a new version, unless the newest one is the same already.
    /// - Throws: 400, 409 `template-built-in`, 422 `too-many-templates`.
    public func put(_ name: String, _ text: [UInt8], _ principal: Principal, now: UInt64) async throws(Problem) -> Template {
        guard builtIn[name] == nil else {
            throw .conflict("template-built-in", "\(name) belongs to the built-in catalogue: choose another name")
        }
        let (newest, count) = own.withLock { ($0[name], $0.count) }
        guard newest != nil || count < Self.limit else {
            throw Problem(422, "too-many-templates", "there are \(count) templates already, at most \(Self.limit) are allowed")
        }
        let draft = try Template(name: name, version: 0, reading: text)
        if let newest, newest.hash == draft.hash { return newest }
        let canonical = draft.text(withHead: false)
        let hash = draft.hash
        let version = try await store.write(bytes: canonical.count + 512) { (transaction) throws(StoreError) -> Int in
            let version = 1 + (try transaction.count("SELECT coalesce(max(version), 0) FROM templates WHERE name = ?", name))
            try transaction.run(
                "INSERT INTO templates VALUES (?, ?, ?, ?, ?, ?)", name, version, hash, canonical, now, principal.id)
            try transaction.run("DELETE FROM template_removals WHERE name = ?", name)
            try transaction.audit(
                AuditRecord(
                    principal: principal, action: "template.put", target: name,
                    detail: .object(["version": .integer(Int64(version)), "hash": .string(hash)])))
            return version
        }
        var template = draft
        template.version = version
        let stored = template
        own.withLock { own in
            if own[name].map({ $0.version < version }) ?? true { own[name] = stored }
        }
        return template
    }

    /// Takes a template out of use; its versions stay for the history.
    public func remove(_ name: String, _ principal: Principal) async throws(Problem) {
        guard builtIn[name] == nil else {
            throw .conflict("template-built-in", "\(name) belongs to the built-in catalogue and cannot be removed")
        }
        _ = try await get(name, version: nil)
        try await store.write { (transaction) throws(StoreError) in
            try transaction.run("INSERT OR IGNORE INTO template_removals VALUES (?)", name)
            try transaction.audit(AuditRecord(principal: principal, action: "template.remove", target: name))
        }
        own.withLock { $0[name] = nil }
    }
}

import AgentProtocol
import Program

public enum ReleaseItself: Sendable {}
public typealias ReleaseID = Identifier<ReleaseItself>

extension Right {
    /// Releases of the agent that this core may hand out.
    public static let readReleases: Right = "release.read"
    public static let writeReleases: Right = "release.write"
    /// Upgrades of those clients on which one has the right.
    public static let readUpgrades: Right = "upgrade.read"
    public static let runUpgrades: Right = "upgrade.run"
}

/// An agent release that this core holds: a signed manifest and a file of the managed store with the bytes that it names.
/// The core cannot tell a good signature from another; agents can.
public struct Release: Sendable {
    public let id: ReleaseID
    public let manifest: ReleaseManifest
    public let signed: SignedRelease
    public let file: FileID
    public let addedBy: String
    /// Unix milliseconds.
    public let addedAt: UInt64

    var holder: String { "release \(id)" }
}

/// Releases as rows.
enum ReleaseRows {
    private static let columns = "id, manifest, signature, key, file, added_by, added_ms"

    static func select() -> StoreQuery { StoreQuery("SELECT \(columns) FROM releases") }

    static func release(_ row: borrowing Row) throws(StoreError) -> Release {
        let signed = SignedRelease(manifest: row.text(1), signature: row.text(2), key: row.text(3))
        guard let id = row.identifier(0, ReleaseItself.self), let file = row.identifier(4, StoredFileTag.self),
            let manifest = try? ReleaseManifest(parsing: signed.manifest)
        else { throw .failed(code: 0, message: "a row of the table releases is damaged") }
        return Release(
            id: id, manifest: manifest, signed: signed, file: file, addedBy: row.text(5), addedAt: row.unsigned(6))
    }

    static func load(
        _ id: ReleaseID, _ store: borrowing some StoreReading & ~Copyable
    ) throws(StoreError) -> Release? {
        var query = select()
        query.and("id = ?", .bytes(id.bytes))
        return try store.all(query) { (row) throws(StoreError) in try release(row) }.first
    }
}

/// What operators do with releases.
extension Upgrades {
    static let maximumReleases = 1_000

    /// Makes a file of the store a release, and keeps it as long as the release is there.
    /// - Throws: 400 for what is no signed release, or not that of this file; 404 `file-unknown`; 409 `release-exists`,
    ///   `file-unfinished`; 507 `too-many-releases`.
    public func addRelease(_ signed: SignedRelease, file id: FileID, by principal: Principal) async throws(Problem) -> Release {
        let manifest: ReleaseManifest
        do throws(ReleaseError) { manifest = try ReleaseManifest(parsing: signed.manifest) } catch {
            throw .invalid(error.description, pointer: "/manifest")
        }
        let file = try await files.get(id, for: principal, "file.read")
        guard let digest = file.digest else { throw .conflict("file-unfinished", "file \(id) is not whole yet") }
        guard digest.hex == manifest.sha256, file.durable == manifest.size else {
            throw .invalid(
                "file \(id) has \(file.durable) bytes with the SHA-256 \(digest.hex), the manifest names others", pointer: "/file")
        }
        let now = now()
        let release = Release(
            id: ReleaseID(milliseconds: now, random: random()), manifest: manifest, signed: signed, file: id,
            addedBy: principal.id, addedAt: now)
        let audit = AuditRecord(
            principal: principal, action: "release.add", target: release.id.description,
            detail: [
                "version": .string(manifest.version.description), "platform": .string(manifest.platform),
                "sha256": .string(manifest.sha256), "key": .string(signed.key),
            ])
        try await store.write(bytes: 4_096) { (transaction) throws(StoreError) in
            let (version, platform) = (manifest.version.description, manifest.platform)
            if try transaction.exists("SELECT 1 FROM releases WHERE version = ? AND platform = ?", version, platform) {
                throw .refused(
                    .conflict("release-exists", "there is a release \(version) for \(platform): remove it, or take a new version"))
            }
            if try transaction.count("SELECT count(*) FROM releases") >= Self.maximumReleases {
                throw .refused(Problem(507, "too-many-releases", "there are \(Self.maximumReleases) releases: remove some"))
            }
            try FileStore.hold(id, for: release.holder, transaction)
            try transaction.run(
                "INSERT INTO releases VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", release.id, version, platform, signed.manifest,
                signed.signature, signed.key, id, release.addedBy, now)
            _ = try transaction.audit(audit)
        }
        events.publish(
            Event(
                kind: "release.added", subject: release.id.description,
                data: ["version": .string(manifest.version.description), "platform": .string(manifest.platform)]))
        return release
    }

    /// Newest first.
    public func releases(before: ReleaseID?, limit: Int) async throws(Problem) -> [Release] {
        try await store.read { (reader) throws(StoreError) in
            var query = ReleaseRows.select()
            if let before { query.and("id < ?", .bytes(before.bytes)) }
            query.append(" ORDER BY id DESC LIMIT ?", .integer(Int64(limit)))
            return try reader.all(query) { (row) throws(StoreError) in try ReleaseRows.release(row) }
        }
    }

    /// - Throws: 404 `release-unknown`.
    public func release(_ id: ReleaseID) async throws(Problem) -> Release {
        let found = try await store.read { (reader) throws(StoreError) in try ReleaseRows.load(id, reader) }
        guard let found else { throw Self.unknown(id) }
        return found
    }

    /// The file stays in the store, and is no longer kept for the release.
    /// - Throws: 404 `release-unknown`; 409 `release-in-use` while an upgrade hands it out.
    public func removeRelease(_ id: ReleaseID, by principal: Principal) async throws(Problem) {
        try await store.write { (transaction) throws(StoreError) in
            guard let release = try ReleaseRows.load(id, transaction) else { throw .refused(Self.unknown(id)) }
            if try transaction.exists("SELECT 1 FROM upgrades WHERE release = ? AND finished_ms IS NULL", id) {
                throw .refused(.conflict("release-in-use", "an upgrade hands release \(id) out: cancel it first, or wait"))
            }
            try FileStore.release(holder: release.holder, transaction)
            try transaction.run("DELETE FROM releases WHERE id = ?", id)
            _ = try transaction.audit(
                AuditRecord(
                    principal: principal, action: "release.remove", target: id.description,
                    detail: ["version": .string(release.manifest.version.description)]))
        }
        events.publish(Event(kind: "release.removed", subject: id.description))
    }

    static func unknown(_ id: ReleaseID) -> Problem { Problem(404, "release-unknown", "there is no release \(id)") }
}

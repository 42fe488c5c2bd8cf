import JSON
import Kernel
import Program
import Web

/// `/api/v1/upgrades/releases`: the agent releases that this core can hand out.
func releaseRoutes(_ upgrades: Upgrades) -> [Route] {
    [
        Route(
            .get, "/api/v1/upgrades/releases", right: .readReleases, "Releases, newest first.",
            query: [Reading.limit, Reading.cursor],
            answers: [Route.Answer(200, "A page.", CommandWriting.pageSchema(ReleaseWriting.schema))]
        ) { (request) async throws(Problem) in
            var before: ReleaseID?
            if let cursor = request.query["cursor"] {
                before = ReleaseID(cursor)
                if before == nil { throw .invalid("this is no cursor of this list") }
            }
            let limit = Reading.limit(request)
            let page = try await upgrades.releases(before: before, limit: limit)
            return .json(
                .page(page.map(ReleaseWriting.json), next: page.count == limit ? page.last?.id.description : nil))
        },
        Route(
            .post, "/api/v1/upgrades/releases", right: .writeReleases,
            "Makes a file of the store an agent release: its bytes have to be those of the signed manifest.",
            body: .json(
                Schema.object([
                    .required("manifest", .string("As cmctl upgrades sign wrote it.", length: 1...ReleaseManifest.maximumBytes)),
                    .required("signature", .string("Base 64 (URL form), of the release key.", length: 1...128)),
                    .optional("key", .string("Fingerprint of that key, for people.", length: 0...64)),
                    .required("file", .string("A whole file of the store.", length: 26...26)),
                ])),
            answers: [Route.Answer(201, "Durable; the file is kept as long as the release.", ReleaseWriting.schema)]
        ) { (request) async throws(Problem) in
            let signed: SignedRelease
            do throws(ReleaseError) { signed = try SignedRelease(request.json) } catch { throw .invalid(error.description) }
            guard let file = FileID(request.json["file"]?.string ?? "") else {
                throw .invalid("\"file\" is no file id (26 characters, the first 0 to 7)", pointer: "/file")
            }
            let release = try await upgrades.addRelease(signed, file: file, by: request.principal)
            return .created(ReleaseWriting.json(release), at: "/api/v1/upgrades/releases/\(release.id)")
        },
        Route(
            .get, "/api/v1/upgrades/releases/{release}", right: .readReleases, "One release.",
            answers: [Route.Answer(200, "The release.", ReleaseWriting.schema)]
        ) { (request) async throws(Problem) in
            .json(ReleaseWriting.json(try await upgrades.release(try ReleaseWriting.id(request))))
        },
        Route(
            .delete, "/api/v1/upgrades/releases/{release}", right: .writeReleases,
            "Removes a release that no upgrade hands out. Its file stays in the store.",
            answers: [Route.Answer(204, "Gone.")]
        ) { (request) async throws(Problem) in
            try await upgrades.removeRelease(try ReleaseWriting.id(request), by: request.principal)
            return .empty
        },
    ]
}

private enum ReleaseWriting {
    static func id(_ request: Request) throws(Problem) -> ReleaseID {
        guard let id = ReleaseID(request["release"]) else {
            throw .invalid("'\(request["release"].prefix(64))' is no release id (26 characters, the first 0 to 7)")
        }
        return id
    }

    static func json(_ release: Release) -> JSONValue {
        [
            "id": .string(release.id.description), "version": .string(release.manifest.version.description),
            "platform": .string(release.manifest.platform), "sha256": .string(release.manifest.sha256),
            "size": .milliseconds(release.manifest.size), "created_ms": .milliseconds(release.manifest.created * 1_000),
            "key": .string(release.signed.key), "file": .string(release.file.description),
            "added_by": .string(release.addedBy), "added_ms": .milliseconds(release.addedAt),
        ]
    }

    static let schema = Schema.object([
        .required("id", .string()), .required("version", .string()), .required("platform", .string()),
        .required("sha256", .string()), .required("size", .integer("Bytes.")),
        .required("created_ms", .integer("When it was signed, by its manifest.")),
        .required("key", .string("Fingerprint of the key that is said to have signed it; agents check with their own.")),
        .required("file", .string("Of the store.")), .required("added_by", .string()), .required("added_ms", .integer()),
    ])
}

import JSON
import PluginKit

/// The remotes and their credentials, durable; and the stores behind them, with their kept connections.
final class Remotes: Sendable {
    private struct Opened {
        let record: [UInt8]
        let secret: [UInt8]
        let store: any ObjectStore
    }

    private let cloud: Cloud
    private let opened = Monitor<[String: Opened]>([:])
    private static let most = 1_000

    init(_ cloud: Cloud) { self.cloud = cloud }

    private static func recordKey(_ name: String) -> String { "remote/" + name }
    private static func secretKey(_ name: String) -> String { "secret/" + name }
    /// What sealed credentials are bound to: those of one remote open under no other name.
    private static func label(_ name: String) -> String { "remote/" + name }

    func all() throws(CloudError) -> [Remote] {
        let page = try CloudError.kept { () throws(PluginError) in try cloud.store.list(prefix: "remote/", limit: Self.most) }
        var remotes: [Remote] = []
        for key in page.items {
            if let remote = try find(String(key.dropFirst("remote/".count))) { remotes.append(remote) }
        }
        return remotes
    }

    func find(_ name: String) throws(CloudError) -> Remote? {
        guard Remote.isName(name) else { return nil }
        let bytes = try CloudError.kept { () throws(PluginError) in try cloud.store.get(Self.recordKey(name)) }
        guard let bytes else { return nil }
        return try Self.remote(bytes, name)
    }

    private static func remote(_ record: [UInt8], _ name: String) throws(CloudError) -> Remote {
        guard let json = (try? JSONValue(parsing: record))?.object else { throw CloudError(.internal, "the record of remote \"\(name)\" is damaged") }
        return try Remote(json, name: name)
    }

    /// The store behind a remote. Opened anew when the remote or its credentials have changed.
    func open(_ name: String) throws(CloudError) -> any ObjectStore {
        let (record, secret) = try CloudError.kept { () throws(PluginError) in
            (try cloud.store.get(Self.recordKey(name)), try cloud.store.get(Self.secretKey(name)))
        }
        guard let record, let secret else { throw CloudError(.notFound, "there is no remote \"\(name)\"") }
        if let known = opened.update({ $0[name] }), known.record == record, known.secret == secret { return known.store }
        let store = try make(try Self.remote(record, name), try credentials(secret, name))
        opened.update { $0[name] = Opened(record: record, secret: secret, store: store) }
        return store
    }

    private func credentials(_ sealed: [UInt8], _ name: String) throws(CloudError) -> Credentials {
        let plain = try CloudError.kept { () throws(PluginError) in try cloud.crypto.unseal(sealed, label: Self.label(name)) }
        guard let json = (try? JSONValue(parsing: plain))?.object else { throw CloudError(.internal, "the credentials of remote \"\(name)\" are damaged") }
        return try Credentials(json)
    }

    private func make(_ remote: Remote, _ credentials: Credentials) throws(CloudError) -> any ObjectStore {
        guard let address = Address(remote.endpoint) else { throw .invalid("\"\(remote.endpoint)\" is no address") }
        let web = WebClient(remote.web)
        let cloud = cloud
        switch remote.kind {
        case .s3:
            let signer = Signer(
                accessKey: credentials.accessKey, secretKey: credentials.secretKey, sessionToken: credentials.sessionToken, region: remote.region)
            let client = S3Client(remote: remote, signer: signer, web: web, address: address, now: { cloud.executor.now })
            return S3Store(client: client, parts: cloud.parts, budget: cloud.budget)
        case .webdav:
            return WebDAVStore(remote: remote, credentials: credentials, web: web, address: address, random: { cloud.random() })
        }
    }

    // MARK: Changes, on the plugin's own thread

    /// Durable when it returns. Without credentials those that are there stay, as long as they go to the same place.
    func save(_ remote: Remote, _ credentials: Credentials?, isNew: Bool) throws(CloudError) {
        let former = try find(remote.name)
        if isNew, former != nil { throw CloudError(.conflict, "there is a remote \"\(remote.name)\" already") }
        if isNew, try all().count >= Self.most { throw CloudError(.conflict, "there are \(Self.most) remotes, which is the most that may be") }
        if credentials == nil {
            guard let former else { throw CloudError.invalid("a new remote needs its credentials") }
            let stays = former.kind == remote.kind && former.endpoint == remote.endpoint && former.isPlainAllowed == remote.isPlainAllowed
                && former.web.proxy == remote.web.proxy && former.web.authorities == remote.web.authorities
            guard stays else { throw CloudError.invalid("credentials are not taken along to another endpoint, authority or proxy; give them again") }
        }
        try credentials?.judge(for: remote.kind)
        try CloudError.kept { () throws(PluginError) in
            let sealed = try credentials.map { (credentials) throws(PluginError) in
                try cloud.crypto.seal(JSONValue.object(credentials.json).serialized(), label: Self.label(remote.name))
            }
            try cloud.store.transaction { (transaction) throws(PluginError) in
                try transaction.put(Self.recordKey(remote.name), JSONValue.object(remote.json).serialized())
                if let sealed { try transaction.put(Self.secretKey(remote.name), sealed) }
            }
        }
    }

    func remove(_ name: String) throws(CloudError) {
        try CloudError.kept { () throws(PluginError) in
            try cloud.store.transaction { (transaction) throws(PluginError) in
                try transaction.remove(Self.recordKey(name))
                try transaction.remove(Self.secretKey(name))
            }
        }
        opened.update { $0[name] = nil }
    }
}

import JSON
import PluginKit

/// Jobs of this plugin are put in by its own routes, which know who asks. What a route has let through carries a code that only
/// this core can make, so that nobody gets around the rights on remotes by `POST /api/v1/jobs`.
struct Grants: Sendable {
    private let key: [UInt8]
    private let cloud: Cloud
    private static let name = "key/grants"

    init(_ cloud: Cloud) throws(PluginError) {
        self.cloud = cloud
        if let sealed = try cloud.store.get(Self.name) {
            key = try cloud.crypto.unseal(sealed, label: Self.name)
        } else {
            let fresh = try cloud.crypto.random(32)
            let sealed = try cloud.crypto.seal(fresh, label: Self.name)
            try cloud.store.transaction { (transaction) throws(PluginError) in
                try transaction.expect(Self.name, nil)
                try transaction.put(Self.name, sealed)
            }
            key = fresh
        }
    }

    private func code(_ arguments: JSONObject) -> String {
        // The order of members is not kept on the way.
        Text.hex(Digest.hmac(key: key, String(decoding: Self.sorted(.object(arguments)).serialized(), as: UTF8.self)))
    }

    private static func sorted(_ value: JSONValue) -> JSONValue {
        switch value {
        case .object(let object): .object(JSONObject(object.map { ($0.key, sorted($0.value)) }.sorted { $0.0 < $1.0 }))
        case .array(let items): .array(items.map(sorted))
        default: value
        }
    }

    func sealed(_ arguments: JSONObject, for actor: String) -> JSONObject {
        var arguments = arguments
        arguments["by"] = .string(actor)
        arguments["grant"] = .string(code(arguments))
        return arguments
    }

    /// Throws unless a route let exactly this through for the job's owner.
    func check(_ attempt: JobAttempt) throws(CloudError) -> JSONObject {
        guard var arguments = attempt.arguments.object, let said = arguments["grant"]?.string else { throw Self.refusal }
        arguments["grant"] = nil
        guard said == code(arguments) else { throw Self.refusal }
        let job = try CloudError.kept { () throws(PluginError) in try cloud.host.jobs().get(attempt.id) }
        guard let owner = job["owner"]?["id"]?.string ?? job["owner"]?.string, owner == arguments["by"]?.string else { throw Self.refusal }
        return arguments
    }

    private static var refusal: CloudError { CloudError(.denied, "put this job in by the plugin's own route: POST /api/v1/cloud/sync or copy") }
}

import CPluginABI
import JSON
import Kernel

let enrollmentTable = HostTable(
    cm_enrollment(
        head: head(of: cm_enrollment.self), core: enrollmentCore, token_create: enrollmentTokenCreate,
        token_revoke: enrollmentTokenRevoke, agent: enrollmentAgent, agent_read: enrollmentAgentRead))

/// What a created token's description fits into; said in the header.
private let tokenBytes: UInt64 = 1_024
private let requestBytes = 65_536
private let pieceBytes = 8 << 20

private func enrollmentCore(
    _ host: OpaquePointer, _ json: UnsafeMutablePointer<cm_buffer>, _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    hostCall(host, .any, "enrollment.core", error: error) { instance in
        var writer = JSONWriter()
        writer.object {
            $0.field("url", instance.environment.agentsURL)
            $0.field("fingerprint", instance.environment.kernel.identity.fingerprint)
        }
        return error.fill(json, writer.finish())
    }
}

private let tokenForm: JSONValue = [
    "type": "object", "additionalProperties": false,
    "properties": [
        "ttl_s": ["type": "integer"], "uses": ["type": "integer"], "description": ["type": "string", "maxLength": 255],
        "labels": ["type": "object", "additionalProperties": ["type": "string"]],
    ],
]

private func enrollmentTokenCreate(
    _ host: OpaquePointer, _ handle: cm_handle, _ request: cm_text, _ json: UnsafeMutablePointer<cm_buffer>,
    _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    hostCall(host, .wait, "enrollment.token_create", error: error) { instance in
        // Its text is given once: nothing is made that could not be handed over.
        if let status = requireRoom(json, tokenBytes, error) { return status }
        return answering(error) { () throws(Problem) in
            guard let text = request.bytes(limit: requestBytes) else { throw .text("request", atMost: requestBytes) }
            let wish = try JobBody.checked(text, tokenForm, "request")
            let actor = try instance.actor(handle)
            let kernel = instance.environment.kernel
            try actor.require("enrollment-token.create", kernel)
            var labels: [String: String] = [:]
            for label in wish["labels"]?.object ?? [:] { labels[label.key] = label.value.string }
            let lifetime = Int(clamping: wish["ttl_s"]?.integer ?? 3_600)
            let uses = Int(clamping: wish["uses"]?.integer ?? 1)
            let (record, token) = try instance.waitForKernel { [labels] () async throws(Problem) in
                try await kernel.enrollment.tokens.create(
                    description: wish["description"]?.string ?? "", labels: labels, lifetime: lifetime, uses: uses,
                    by: actor.principal)
            }
            var writer = JSONWriter()
            writer.object {
                $0.field("id", record.id.description)
                $0.field("token", token)
                $0.field("expires_ms", Int64(clamping: record.expiresAt))
            }
            return error.fill(json, writer.finish())
        }
    }
}

private func enrollmentTokenRevoke(
    _ host: OpaquePointer, _ handle: cm_handle, _ id: cm_text, _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    hostCall(host, .wait, "enrollment.token_revoke", error: error) { instance in
        answering(error) { () throws(Problem) in
            guard let text = id.string(limit: 64), let id = EnrollmentTokenID(text) else {
                throw Problem(400, "plugin-argument", "`id` is no token id (26 characters, the first 0 to 7)")
            }
            let actor = try instance.actor(handle)
            let kernel = instance.environment.kernel
            try actor.require("enrollment-token.revoke", kernel)
            try instance.waitForKernel { () async throws(Problem) in
                let tokens = kernel.enrollment.tokens
                if actor.isPlugin, let record = try await tokens.get(id), record.createdBy != actor.principal.id {
                    throw .forbidden("token \(id) was made by \(record.createdBy): in its own name a plugin ends its own")
                }
                try await tokens.revoke(id, by: actor.principal)
            }
            return CM_OK
        }
    }
}

private func enrollmentAgent(
    _ host: OpaquePointer, _ json: UnsafeMutablePointer<cm_buffer>, _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    hostCall(host, .wait, "enrollment.agent", error: error) { instance in
        answering(error) { () throws(Problem) in
            error.fill(json, try instance.environment.agentFile.description().json)
        }
    }
}

private func enrollmentAgentRead(
    _ host: OpaquePointer, _ sha256: cm_text, _ offset: UInt64, _ bytes: UnsafeMutablePointer<cm_buffer>,
    _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    hostCall(host, .wait, "enrollment.agent_read", error: error) { instance in
        answering(error) { () throws(Problem) in
            guard let hash = sha256.string(limit: 64) else { throw .text("sha256", atMost: 64) }
            let room = min(pieceBytes, Int(clamping: bytes.pointee.capacity))
            guard room > 0 else { throw Problem(400, "plugin-argument", "`bytes` has no room") }
            return error.fill(bytes, try instance.environment.agentFile.read(hash, from: offset, room))
        }
    }
}

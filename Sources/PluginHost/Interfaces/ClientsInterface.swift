import CPluginABI
import JSON
import Kernel

let clientsTable = HostTable(
    cm_clients(
        head: head(of: cm_clients.self), get: clientsGet, select: clientsSelect, is_online: clientsIsOnline,
        set_labels: clientsSetLabels, select_asserted: clientsSelectAsserted))

func clientID(_ text: cm_text) throws(Problem) -> ClientID {
    guard let text = text.string(limit: 64), let id = ClientID(text) else {
        throw Problem(400, "plugin-argument", "`client` is no client id (26 characters, the first 0 to 7)")
    }
    return id
}

private func clientsGet(
    _ host: OpaquePointer, _ actor: cm_handle, _ client: cm_text, _ json: UnsafeMutablePointer<cm_buffer>,
    _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    hostCall(host, .wait, "clients.get", error: error) { instance in
        answering(error) { () throws(Problem) in
            let actor = try instance.actor(actor)
            let id = try clientID(client)
            let (kernel, forms) = (instance.environment.kernel, instance.environment.forms)
            let bytes = try instance.waitForKernel { () async throws(Problem) in
                try await actor.require(.seeClients, on: id, kernel)
                guard let detail = try await kernel.clients.detail(id) else { throw .notFound("there is no client \(id)") }
                return forms.client(detail)
            }
            return error.fill(json, bytes)
        }
    }
}

private func clientsSelect(
    _ host: OpaquePointer, _ actor: cm_handle, _ selector: cm_text, _ after: cm_text, _ limit: UInt32,
    _ json: UnsafeMutablePointer<cm_buffer>, _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status { select("clients.select", host, actor, selector, after, limit, json, error) { (_) throws(Problem) in } }

private func clientsSelectAsserted(
    _ host: OpaquePointer, _ actor: cm_handle, _ selector: cm_text, _ after: cm_text, _ limit: UInt32,
    _ json: UnsafeMutablePointer<cm_buffer>, _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    select("clients.select_asserted", host, actor, selector, after, limit, json, error) { (selector) throws(Problem) in
        guard let asked = selector.firstUnasserted else { return }
        throw Problem(
            400, "selector-not-asserted",
            "the selector asks for \"\(asked)\"; only labels and ids decide here, which operators assert, and nothing that a machine says about itself")
    }
}

private func select(
    _ function: StaticString, _ host: OpaquePointer, _ actor: cm_handle, _ selector: cm_text, _ after: cm_text, _ limit: UInt32,
    _ json: UnsafeMutablePointer<cm_buffer>, _ error: UnsafeMutablePointer<cm_error>?,
    _ check: (Selector) throws(Problem) -> Void
) -> cm_status {
    hostCall(host, .any, function, error: error) { instance in
        answering(error) { () throws(Problem) in
            let actor = try instance.actor(actor)
            guard (1...10_000).contains(limit) else { throw Problem(400, "plugin-argument", "`limit` is \(limit); 1 to 10,000 are allowed") }
            guard let text = selector.string(limit: 4_096) else { throw .text("selector", atMost: 4_096) }
            guard let position = after.string(limit: 26) else { throw .text("after", atMost: 26) }
            let first = position.isEmpty ? nil : ClientID(position)
            guard position.isEmpty || first != nil else { throw Problem(400, "plugin-argument", "`after` is no \"next\" of an earlier call") }
            let kernel = instance.environment.kernel
            let scope = kernel.security.scope(of: actor.principal, for: .seeClients)
            let selector = try text.isEmpty ? .everything : Selector(parsing: text)
            try check(selector)
            let found = try kernel.clients.select(selector, allowed: scope.allowed, denied: scope.denied)
            let rest = first.map { first in found.drop { $0 <= first } } ?? found[...]
            let page = rest.prefix(Int(limit))
            var writer = JSONWriter(reserving: 64 + 29 * page.count)
            writer.object { writer in
                writer.array("items") { writer in for id in page { writer.value(id.description) } }
                writer.field("next", rest.count > page.count ? page.last?.description : nil)
            }
            return error.fill(json, writer.finish())
        }
    }
}

private func clientsIsOnline(_ host: OpaquePointer, _ client: cm_text) -> Int32 {
    var answer: Int32 = 0
    _ = hostCall(host, .any, "clients.is_online") { instance in
        guard let id = try? clientID(client) else { return CM_E_INVALID }
        let state = instance.environment.kernel.clients.state(of: id)
        // `stale` is connected, too: a heartbeat is late.
        answer = state == .online || state == .stale ? 1 : 0
        return CM_OK
    }
    return answer
}

private func clientsSetLabels(
    _ host: OpaquePointer, _ actor: cm_handle, _ client: cm_text, _ labels: cm_text, _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    hostCall(host, .wait, "clients.set_labels", error: error) { instance in
        answering(error) { () throws(Problem) in
            guard instance.grants.contains(.clientsWrite) else {
                throw Problem(403, "plugin-not-granted", "setting labels needs the capability \"\(Capability.clientsWrite.rawValue)\"")
            }
            let actor = try instance.actor(actor)
            let id = try clientID(client)
            let changes = try labelChanges(labels)
            let kernel = instance.environment.kernel
            try instance.waitForKernel { () async throws(Problem) in
                try await actor.require("client.label", on: id, kernel)
                _ = try await kernel.clients.label([id], changes, by: actor.principal, selector: id.description)
            }
            return CM_OK
        }
    }
}

/// `{"key": "value"}`; null removes.
private func labelChanges(_ text: cm_text) throws(Problem) -> [String: String?] {
    guard let bytes = text.bytes(limit: 65_536), let object = (try? JSONValue(parsing: bytes))?.object, (1...64).contains(object.count) else {
        throw Problem(400, "plugin-argument", "`labels` is a JSON object of 1 to 64 labels, each a text or null")
    }
    var changes: [String: String?] = [:]
    for member in object {
        switch member.value {
        case .string(let value): changes[member.key] = .some(value)
        case .null: changes[member.key] = .some(nil)
        default: throw Problem(400, "plugin-argument", "the label \"\(member.key.prefix(64))\" is neither a text nor null")
        }
    }
    return changes
}

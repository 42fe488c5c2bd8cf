import CPluginABI
import JSON

/// `cm.clients/1`.
public struct Clients: Sendable {
    let table: HostTable<cm_clients>

    /// One client as GET /api/v1/clients/{id} shows it.
    public func get(_ client: String, as actor: Actor = .plugin) throws(PluginError) -> JSONValue {
        guard let get = table.functions.get else { throw .missing("cm.clients/1 get") }
        return try readJSON("cm.clients/1 get") { buffer, error in
            client.withText { get(table.context, actor.handle, $0, buffer, error) }
        }
    }

    /// Ids of the clients that a selector finds, at most `limit` (1 to 10,000); `next` goes on after them.
    public func select(
        _ selector: String, after: String = "", limit: Int = 1000, as actor: Actor = .plugin
    ) throws(PluginError) -> Page {
        guard let select = table.functions.select else { throw .missing("cm.clients/1 select") }
        return Page(
            try readJSON("cm.clients/1 select") { buffer, error in
                selector.withText { selector in
                    after.withText {
                        select(table.context, actor.handle, selector, $0, UInt32(clamping: limit), buffer, error)
                    }
                }
            })
    }

    /// The same for what must not be decided by what a machine says about itself: throws `.invalid` (selector-not-asserted) for a
    /// selector that asks for more than labels and ids.
    public func selectAsserted(
        _ selector: String, after: String = "", limit: Int = 1000, as actor: Actor = .plugin
    ) throws(PluginError) -> Page {
        guard let select = table.functions.select_asserted else { throw .missing("cm.clients/1 select_asserted") }
        return Page(
            try readJSON("cm.clients/1 select_asserted") { buffer, error in
                selector.withText { selector in
                    after.withText {
                        select(table.context, actor.handle, selector, $0, UInt32(clamping: limit), buffer, error)
                    }
                }
            })
    }

    public func isOnline(_ client: String) -> Bool {
        guard let isOnline = table.functions.is_online else { return false }
        return client.withText { isOnline(table.context, $0) } == 1
    }

    /// Sets labels, `nil` removes one; audited; returns when it is durable.
    public func setLabels(
        _ client: String, _ labels: [(String, String?)], as actor: Actor = .plugin
    ) throws(PluginError) {
        guard let set = table.functions.set_labels else { throw .missing("cm.clients/1 set_labels") }
        var writer = JSONWriter()
        writer.object { for (key, value) in labels { $0.member(key, value) } }
        let text = writer.finish()
        try attempt("cm.clients/1 set_labels") { error in
            client.withText { client in text.withText { set(table.context, actor.handle, client, $0, error) } }
        }
    }
}

/// Part of a list; `next` is `nil` at its end.
public struct Page: Sendable, Equatable {
    public var items: [String]
    public var next: String?

    init(_ value: JSONValue) {
        items = value["items"]?.array?.compactMap(\.string) ?? []
        next = value["next"]?.string
    }
}

extension Host {
    public func clients() throws(PluginError) -> Clients {
        Clients(table: try interface(CM_INTERFACE_CLIENTS, cm_clients()))
    }
}

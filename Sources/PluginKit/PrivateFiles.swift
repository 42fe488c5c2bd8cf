import CPluginABI
import JSON

/// `cm.private_files/1`: secret content in a client's memory. The core keeps nothing of it.
public struct PrivateFiles: Sendable {
    let table: HostTable<cm_private_files>

    /// A file to place.
    public struct Specification: Sendable, Equatable {
        public var name: String
        public var owner: String?
        public var group: String?
        /// Bits of 0660.
        public var mode: Int
        public var lifetimeSeconds: Int?
        /// What the client does after a change if its own policy allows exactly that; empty: nothing.
        public var hook: [String]

        public init(
            name: String, owner: String? = nil, group: String? = nil, mode: Int = 0o400, lifetimeSeconds: Int? = nil,
            hook: [String] = []
        ) {
            self.name = name
            self.owner = owner
            self.group = group
            self.mode = mode
            self.lifetimeSeconds = lifetimeSeconds
            self.hook = hook
        }

        var text: [UInt8] {
            var writer = JSONWriter(reserving: 256)
            writer.object {
                $0.field("name", name)
                $0.field("owner", ifPresent: owner)
                $0.field("group", ifPresent: group)
                $0.field("mode", mode)
                $0.field("ttl_s", ifPresent: lifetimeSeconds)
                if !hook.isEmpty { $0.array("hook") { for word in hook { $0.value(word) } } }
            }
            return writer.finish()
        }
    }

    /// A file as it is on the client now.
    public struct File: Sendable, Equatable {
        public var name: String
        public var path: String
        public var bytes: Int
        /// Of what was read when the client was asked, 64 hexadecimal digits: into no log and no event.
        public var sha256: String
        public var owner: String
        public var mode: Int
        public var expiresInMilliseconds: Int?
        /// Why the hook of the last change did not do its work.
        public var hookFault: String?

        init(_ value: JSONValue) {
            name = value["name"]?.string ?? ""
            path = value["path"]?.string ?? ""
            bytes = Int(value["bytes"]?.integer ?? 0)
            sha256 = value["sha256"]?.string ?? ""
            owner = value["owner"]?.string ?? ""
            mode = Int(value["mode"]?.integer ?? 0)
            expiresInMilliseconds = value["expires_in_ms"]?.integer.map { Int($0) }
            hookFault = value["hook_fault"]?.string
        }
    }

    /// Places a file, or replaces it as a whole. `done`, on the plugin's own thread, hears once how that ended. Throws
    /// `.busy` where too much is under way: go on when something is done.
    public func put(
        _ specification: Specification, content: [UInt8], on client: String, as actor: Actor = .plugin,
        done: @escaping (Result<(file: File, isChanged: Bool), PluginError>) -> Void
    ) throws(PluginError) {
        guard let put = table.functions.put else { throw .missing("cm.private_files/1 put") }
        try begin("cm.private_files/1 put", { result in
            done(result.map { (File($0["file"] ?? .null), $0["changed"]?.bool ?? false) })
        }) { callbacks, context, error in
            client.withText { client in
                specification.text.withText { specification in
                    content.withBytes { put(table.context, actor.handle, client, specification, $0, callbacks, context, error) }
                }
            }
        }
    }

    /// Removes a file of this plugin, also where there is none; `done` hears whether there was one.
    public func remove(
        _ name: String, on client: String, as actor: Actor = .plugin,
        done: @escaping (Result<Bool, PluginError>) -> Void
    ) throws(PluginError) {
        guard let remove = table.functions.remove else { throw .missing("cm.private_files/1 remove") }
        try begin("cm.private_files/1 remove", { done($0.map { $0["changed"]?.bool ?? false }) }) { callbacks, context, error in
            client.withText { client in
                name.withText { remove(table.context, actor.handle, client, $0, callbacks, context, error) }
            }
        }
    }

    /// What this plugin has placed on the client and is there now.
    public func list(
        on client: String, as actor: Actor = .plugin, done: @escaping (Result<[File], PluginError>) -> Void
    ) throws(PluginError) {
        guard let list = table.functions.list else { throw .missing("cm.private_files/1 list") }
        try begin("cm.private_files/1 list", { done($0.map { ($0["items"]?.array ?? []).map { File($0) } }) }) { callbacks, context, error in
            client.withText { list(table.context, actor.handle, $0, callbacks, context, error) }
        }
    }

    private func begin(
        _ function: String, _ done: @escaping (Result<JSONValue, PluginError>) -> Void,
        _ call: (
            UnsafePointer<cm_private_file_callbacks>, UnsafeMutableRawPointer, UnsafeMutablePointer<cm_error>
        ) -> cm_status
    ) throws(PluginError) {
        var callbacks = cm_private_file_callbacks()
        callbacks.head = cm_head(size: UInt32(MemoryLayout<cm_private_file_callbacks>.size), revision: 1)
        callbacks.done = answerCame
        callbacks.destroy = releaseContext
        let context = Unmanaged.passRetained(AnswerContext(function, done)).toOpaque()
        try attempt(function) { error in call(&callbacks, context, error) }
    }
}

extension Host {
    public func privateFiles() throws(PluginError) -> PrivateFiles {
        PrivateFiles(table: try interface(CM_INTERFACE_PRIVATE_FILES, cm_private_files()))
    }
}

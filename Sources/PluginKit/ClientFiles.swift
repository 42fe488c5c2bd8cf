import CPluginABI
import JSON

/// The part of `cm.files/1` about the file systems of clients. No call waits: `done` hears once, on the plugin's own thread, how it
/// ended. A client looks only where its own policy allows it; an error's `code` is the client's word ("path-not-allowed"). Throws
/// `.busy` where too much is under way, and `.unsupported` on a core before ABI 1.3.
extension Files {
    /// One thing in a client's file system.
    public struct Entry: Sendable, Equatable {
        /// The last part of its path; from `status` and `hash` the path that was asked for.
        public var name: String
        /// "file", "directory", "link" or "other".
        public var kind: String
        public var size: UInt64
        public var mode: Int
        public var modifiedNanoseconds: Int64
        public var owner: Int
        public var group: Int
        /// Where a link leads.
        public var target: String?

        init(_ value: JSONValue) {
            name = value["name"]?.string ?? ""
            kind = value["kind"]?.string ?? "other"
            size = UInt64(clamping: value["size"]?.integer ?? 0)
            mode = Int(clamping: value["mode"]?.integer ?? 0)
            modifiedNanoseconds = value["modified_ns"]?.integer ?? 0
            owner = Int(clamping: value["owner"]?.integer ?? 0)
            group = Int(clamping: value["group"]?.integer ?? 0)
            target = value["target"]?.string
        }
    }

    /// A client hashes with these.
    public enum Hash: String, Sendable, CaseIterable {
        case sha256, md5
    }

    /// Entries of a directory in the order of their names' bytes, after a name; with the name that the next page goes on after.
    public func clientList(
        _ client: String, _ path: String, after: String = "", limit: Int = 1_000, as actor: Actor = .plugin,
        done: @escaping (Result<(entries: [Entry], next: String?), PluginError>) -> Void
    ) throws(PluginError) {
        guard let list = table.functions.client_list else { throw .missing("cm.files/1 client_list") }
        try ask("cm.files/1 client_list", client, path, { result in
            done(result.map { page in ((page["items"]?.array ?? []).map { Entry($0) }, page["next"]?.string) })
        }) { client, path, callbacks, context, error in
            after.withText {
                list(table.context, actor.handle, client, path, $0, UInt32(clamping: limit), callbacks, context, error)
            }
        }
    }

    /// - Parameter follows: of what a link leads to, or of the link.
    public func clientStatus(
        _ client: String, _ path: String, follows: Bool = true, as actor: Actor = .plugin,
        done: @escaping (Result<Entry, PluginError>) -> Void
    ) throws(PluginError) {
        guard let status = table.functions.client_status else { throw .missing("cm.files/1 client_status") }
        try ask("cm.files/1 client_status", client, path, { done($0.map { Entry($0) }) }) { client, path, callbacks, context, error in
            status(table.context, actor.handle, client, path, follows ? 1 : 0, callbacks, context, error)
        }
    }

    /// The hash of a regular file, in lower-case hexadecimal digits, and the file as it was hashed. Ten minutes at most.
    public func clientHash(
        _ client: String, _ path: String, _ algorithm: Hash, as actor: Actor = .plugin,
        done: @escaping (Result<(hash: String, entry: Entry), PluginError>) -> Void
    ) throws(PluginError) {
        guard let hash = table.functions.client_hash else { throw .missing("cm.files/1 client_hash") }
        try ask("cm.files/1 client_hash", client, path, { result in
            done(result.map { ($0["hash"]?.string ?? "", Entry($0)) })
        }) { client, path, callbacks, context, error in
            algorithm.rawValue.withText { hash(table.context, actor.handle, client, path, $0, callbacks, context, error) }
        }
    }

    /// - Parameter parents: those above too, and one that is there is no error.
    public func clientMakeDirectory(
        _ client: String, _ path: String, parents: Bool = false, mode: Int = 0o755, as actor: Actor = .plugin,
        done: @escaping (Result<Void, PluginError>) -> Void
    ) throws(PluginError) {
        guard let make = table.functions.client_make_directory else { throw .missing("cm.files/1 client_make_directory") }
        try ask("cm.files/1 client_make_directory", client, path, { done($0.map { _ in }) }) { client, path, callbacks, context, error in
            make(table.context, actor.handle, client, path, parents ? 1 : 0, UInt32(clamping: mode), callbacks, context, error)
        }
    }

    /// Within one file system of the client.
    public func clientRename(
        _ client: String, _ path: String, to target: String, replaces: Bool = false, as actor: Actor = .plugin,
        done: @escaping (Result<Void, PluginError>) -> Void
    ) throws(PluginError) {
        guard let rename = table.functions.client_rename else { throw .missing("cm.files/1 client_rename") }
        try ask("cm.files/1 client_rename", client, path, { done($0.map { _ in }) }) { client, path, callbacks, context, error in
            target.withText { rename(table.context, actor.handle, client, path, $0, replaces ? 1 : 0, callbacks, context, error) }
        }
    }

    /// A file, a link or an empty directory; with `recursive` a directory with all that is in it.
    public func clientRemove(
        _ client: String, _ path: String, recursive: Bool = false, as actor: Actor = .plugin,
        done: @escaping (Result<Void, PluginError>) -> Void
    ) throws(PluginError) {
        guard let remove = table.functions.client_remove else { throw .missing("cm.files/1 client_remove") }
        try ask("cm.files/1 client_remove", client, path, { done($0.map { _ in }) }) { client, path, callbacks, context, error in
            remove(table.context, actor.handle, client, path, recursive ? 1 : 0, callbacks, context, error)
        }
    }

    private func ask(
        _ function: String, _ client: String, _ path: String, _ done: @escaping (Result<JSONValue, PluginError>) -> Void,
        _ call: (
            cm_text, cm_text, UnsafePointer<cm_client_file_callbacks>, UnsafeMutableRawPointer, UnsafeMutablePointer<cm_error>
        ) -> cm_status
    ) throws(PluginError) {
        var callbacks = cm_client_file_callbacks()
        callbacks.head = cm_head(size: UInt32(MemoryLayout<cm_client_file_callbacks>.size), revision: 1)
        callbacks.done = answerCame
        callbacks.destroy = releaseContext
        let context = Unmanaged.passRetained(AnswerContext(function, done)).toOpaque()
        try attempt(function) { error in
            client.withText { client in path.withText { call(client, $0, &callbacks, context, error) } }
        }
    }
}

import CPluginABI
import JSON
import Kernel
import Synchronization

// The third part of cm.files/1: what clients have in their file systems, as the routes below /api/v1/clients/{id}/files do it.

private let pathBytes = 4_096
private let most = 64

extension Right {
    fileprivate static let readFiles: Right = "file.read"
    fileprivate static let writeFiles: Right = "file.write"
}

/// What a plugin asks of a client: checked as far as that goes without waiting.
private struct ClientFileOrder: Sendable {
    let request: FileRequest
    /// `nil` for a change, which the kernel records by itself.
    let read: String?

    var right: Right { read == nil ? .writeFiles : .readFiles }

    func run(_ kernel: Kernel, _ actor: Actor, _ client: ClientID) async throws(Problem) -> [UInt8] {
        try await actor.require(right, on: client, kernel)
        guard let read else {
            try await kernel.transfers.change(request, on: client, by: actor.principal)
            return Array("{}".utf8)
        }
        let answer = try await kernel.transfers.look(request, on: client, as: read, by: actor.principal)
        guard case .list = request else {
            guard let entry = answer.entries.first else { throw .notFound("the client knows of no such file") }
            var json = entry.json
            if let hash = answer.hash { json["hash"] = .string(hash) }
            return JSONValue.object(json).serialized()
        }
        let page: JSONObject = [
            "items": .array(answer.entries.map { .object($0.json) }),
            "next": answer.hasMore ? answer.entries.last.map { .string($0.name) } ?? .null : .null,
        ]
        return JSONValue.object(page).serialized()
    }
}

private func text(_ value: cm_text, _ name: String, atMost bytes: Int = pathBytes) throws(Problem) -> String {
    guard let text = value.string(limit: bytes) else { throw .text(name, atMost: bytes) }
    return text
}

/// What the six functions have in common.
private func begin(
    _ host: OpaquePointer, _ function: StaticString, _ actor: cm_handle, _ client: cm_text,
    _ callbacks: UnsafePointer<cm_client_file_callbacks>, _ context: UnsafeMutableRawPointer?,
    _ error: UnsafeMutablePointer<cm_error>?, _ prepare: () throws(Problem) -> ClientFileOrder
) -> cm_status {
    let table = adopt(callbacks, empty: cm_client_file_callbacks())
    let ends = CallbackContext(context, destroy: table?.destroy)
    let status = hostCall(host, .any, function, error: error) { instance in
        answering(error) { () throws(Problem) in
            guard let table else { throw Problem(400, "plugin-argument", "the head of the callbacks is not filled in") }
            let actor = try instance.actor(actor)
            let id = try clientID(client)
            let order = try prepare()
            guard instance.clientFileCalls.wrappingAdd(1, ordering: .relaxed).newValue <= most else {
                instance.clientFileCalls.wrappingSubtract(1, ordering: .relaxed)
                throw Problem(429, "plugin-too-many", "\(most) requests about files of clients are under way")
            }
            let call = OwedAnswer("files.client_done", table.done, ends, instance)
            let kernel = instance.environment.kernel
            instance.environment.loop.spawn {
                let result: Result<[UInt8], Problem>
                do throws(Problem) { result = .success(try await order.run(kernel, actor, id)) } catch { result = .failure(error) }
                instance.clientFileCalls.wrappingSubtract(1, ordering: .relaxed)
                call.end(result)
            }
            return CM_OK
        }
    }
    if status != CM_OK { ends.endNow() }
    return status
}

func filesClientList(
    _ host: OpaquePointer, _ actor: cm_handle, _ client: cm_text, _ path: cm_text, _ after: cm_text, _ limit: UInt32,
    _ callbacks: UnsafePointer<cm_client_file_callbacks>, _ context: UnsafeMutableRawPointer?,
    _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    begin(host, "files.client_list", actor, client, callbacks, context, error) { () throws(Problem) in
        guard (1...1_000).contains(limit) else { throw Problem(400, "plugin-argument", "`limit` is \(limit); 1 to 1,000 are allowed") }
        return ClientFileOrder(request: .list(path: try text(path, "path"), after: try text(after, "after"), limit: Int(limit)), read: "file.list")
    }
}

func filesClientStatus(
    _ host: OpaquePointer, _ actor: cm_handle, _ client: cm_text, _ path: cm_text, _ follow: UInt32,
    _ callbacks: UnsafePointer<cm_client_file_callbacks>, _ context: UnsafeMutableRawPointer?,
    _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    begin(host, "files.client_status", actor, client, callbacks, context, error) { () throws(Problem) in
        ClientFileOrder(request: .status(path: try text(path, "path"), follows: follow != 0), read: "file.status")
    }
}

func filesClientHash(
    _ host: OpaquePointer, _ actor: cm_handle, _ client: cm_text, _ path: cm_text, _ algorithm: cm_text,
    _ callbacks: UnsafePointer<cm_client_file_callbacks>, _ context: UnsafeMutableRawPointer?,
    _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    begin(host, "files.client_hash", actor, client, callbacks, context, error) { () throws(Problem) in
        guard let algorithm = FileHash(rawValue: try text(algorithm, "algorithm", atMost: 16)) else {
            throw Problem(400, "plugin-argument", "`algorithm` is \(FileHash.allCases.map(\.rawValue).joined(separator: " or "))")
        }
        return ClientFileOrder(request: .hash(path: try text(path, "path"), algorithm), read: "file.hash")
    }
}

func filesClientMakeDirectory(
    _ host: OpaquePointer, _ actor: cm_handle, _ client: cm_text, _ path: cm_text, _ parents: UInt32, _ mode: UInt32,
    _ callbacks: UnsafePointer<cm_client_file_callbacks>, _ context: UnsafeMutableRawPointer?,
    _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    begin(host, "files.client_make_directory", actor, client, callbacks, context, error) { () throws(Problem) in
        guard mode <= 0o7777 else { throw Problem(400, "plugin-argument", "`mode` is \(mode); 0 to 4,095 are allowed") }
        return ClientFileOrder(request: .makeDirectory(path: try text(path, "path"), parents: parents != 0, mode: UInt16(mode)), read: nil)
    }
}

func filesClientRename(
    _ host: OpaquePointer, _ actor: cm_handle, _ client: cm_text, _ path: cm_text, _ target: cm_text, _ replace: UInt32,
    _ callbacks: UnsafePointer<cm_client_file_callbacks>, _ context: UnsafeMutableRawPointer?,
    _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    begin(host, "files.client_rename", actor, client, callbacks, context, error) { () throws(Problem) in
        ClientFileOrder(request: .rename(path: try text(path, "path"), target: try text(target, "target"), replaces: replace != 0), read: nil)
    }
}

func filesClientRemove(
    _ host: OpaquePointer, _ actor: cm_handle, _ client: cm_text, _ path: cm_text, _ recursive: UInt32,
    _ callbacks: UnsafePointer<cm_client_file_callbacks>, _ context: UnsafeMutableRawPointer?,
    _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    begin(host, "files.client_remove", actor, client, callbacks, context, error) { () throws(Problem) in
        ClientFileOrder(request: .remove(path: try text(path, "path"), recursive: recursive != 0), read: nil)
    }
}

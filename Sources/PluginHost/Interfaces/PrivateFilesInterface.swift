import CPluginABI
import JSON
import Kernel
import Synchronization

let privateFilesTable = HostTable(
    cm_private_files(
        head: head(of: cm_private_files.self), put: privateFilesPut, remove: privateFilesRemove, list: privateFilesList))

private let specificationBytes = 16_384
private let contentBytes = 1_040_384

/// What one version of a plugin has under way: the bound that keeps contents in the core few.
final class PrivateFilesUnderWay: Sendable {
    static let most = 1_024
    static let mostBytes = 32 << 20
    private let state = Mutex((count: 0, bytes: 0))

    func take(_ bytes: Int) -> Bool {
        state.withLock { state in
            guard state.count < Self.most, state.bytes + bytes <= Self.mostBytes else { return false }
            state = (state.count + 1, state.bytes + bytes)
            return true
        }
    }

    func give(_ bytes: Int) { state.withLock { $0 = ($0.count - 1, $0.bytes - bytes) } }
}

/// What the three functions have in common: everything is checked at once, and the work goes on by itself.
private func begin(
    _ host: OpaquePointer, _ function: StaticString, _ actor: cm_handle, _ client: cm_text, bytes: UInt64,
    _ callbacks: UnsafePointer<cm_private_file_callbacks>, _ context: UnsafeMutableRawPointer?,
    _ error: UnsafeMutablePointer<cm_error>?,
    _ prepare: (PluginInstance) throws(Problem) -> @Sendable (PrivateFiles, ClientID, Principal) async throws(Problem) -> [UInt8]
) -> cm_status {
    let table = adopt(callbacks, empty: cm_private_file_callbacks())
    let ends = CallbackContext(context, destroy: table?.destroy)
    let status = hostCall(host, .any, function, error: error) { instance in
        answering(error) { () throws(Problem) in
            guard let table else { throw Problem(400, "plugin-argument", "the head of the callbacks is not filled in") }
            let actor = try instance.actor(actor)
            let id = try clientID(client)
            let work = try prepare(instance)
            guard instance.privateFiles.take(Int(bytes)) else {
                throw Problem(
                    429, "plugin-too-many",
                    "\(PrivateFilesUnderWay.most) calls or \(PrivateFilesUnderWay.mostBytes) bytes of private files are under way")
            }
            let call = OwedAnswer("private_files.done", table.done, ends, instance)
            let files = instance.environment.kernel.privateFiles
            instance.environment.loop.spawn {
                let result: Result<[UInt8], Problem>
                do throws(Problem) { result = .success(try await work(files, id, actor.principal)) } catch { result = .failure(error) }
                instance.privateFiles.give(Int(bytes))
                call.end(result)
            }
            return CM_OK
        }
    }
    if status != CM_OK { ends.endNow() }
    return status
}

private func privateFilesPut(
    _ host: OpaquePointer, _ actor: cm_handle, _ client: cm_text, _ specification: cm_text, _ content: cm_bytes,
    _ callbacks: UnsafePointer<cm_private_file_callbacks>, _ context: UnsafeMutableRawPointer?,
    _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    begin(host, "private_files.put", actor, client, bytes: min(content.size, UInt64(contentBytes)), callbacks, context, error) {
        (instance) throws(Problem) in
        guard let text = specification.bytes(limit: specificationBytes) else {
            throw Problem(413, "plugin-argument", "`specification` has more than \(specificationBytes) bytes")
        }
        guard let bytes = content.array(limit: contentBytes) else {
            throw Problem(413, "plugin-argument", "`content` has \(content.size) bytes; at most \(contentBytes) are allowed")
        }
        let order = try PrivateFiles.order(text, keeper: instance.id)
        return { (files, client, principal) async throws(Problem) in
            let (file, isChanged) = try await files.put(order, content: bytes, on: client, principal)
            return PrivateFiles.text(file, isChanged: isChanged)
        }
    }
}

private func privateFilesRemove(
    _ host: OpaquePointer, _ actor: cm_handle, _ client: cm_text, _ name: cm_text,
    _ callbacks: UnsafePointer<cm_private_file_callbacks>, _ context: UnsafeMutableRawPointer?,
    _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    begin(host, "private_files.remove", actor, client, bytes: 0, callbacks, context, error) { (instance) throws(Problem) in
        guard let name = name.string(limit: 64) else { throw .text("name", atMost: 64) }
        let keeper = instance.id
        return { (files, client, principal) async throws(Problem) in
            let isChanged = try await files.remove(name, keeper: keeper, on: client, principal)
            return JSONValue.object(["changed": .bool(isChanged)]).serialized()
        }
    }
}

private func privateFilesList(
    _ host: OpaquePointer, _ actor: cm_handle, _ client: cm_text, _ callbacks: UnsafePointer<cm_private_file_callbacks>,
    _ context: UnsafeMutableRawPointer?, _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    begin(host, "private_files.list", actor, client, bytes: 0, callbacks, context, error) { (instance) throws(Problem) in
        let keeper = instance.id
        return { (files, client, principal) async throws(Problem) in
            PrivateFiles.text(try await files.list(keeper: keeper, on: client, principal))
        }
    }
}

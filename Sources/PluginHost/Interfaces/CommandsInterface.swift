import CPluginABI
import JSON
import Kernel
import Synchronization

let commandsTable = HostTable(
    cm_commands(
        head: head(of: cm_commands.self), run: commandsRun, watch: commandsWatch, unwatch: commandsUnwatch,
        cancel: commandsCancel, output: commandsOutput, run_with_secrets: commandsRunWithSecrets,
        filter_add: commandsFilterAdd, filter_remove: commandsFilterRemove))

private let specificationBytes = 4 << 20
private let watchedPerPlugin = 256
/// An id as text.
let idBytes: UInt64 = 26

/// A call with an effect looks first whether its result will fit.
func requireRoom(_ buffer: UnsafeMutablePointer<cm_buffer>, _ bytes: UInt64, _ error: UnsafeMutablePointer<cm_error>?) -> cm_status? {
    buffer.pointee.size = bytes
    guard buffer.pointee.capacity < bytes || buffer.pointee.data == nil else { return nil }
    return error.set(CM_E_TOO_SMALL, "plugin-buffer", "`id` needs room for \(bytes) bytes; nothing was done")
}

// MARK: Watching

/// Follows a command for a plugin; ends by itself with the command.
private final class WatchedCommand: PluginResource {
    private let callbacks: cm_command_callbacks
    private let context: CallbackContext
    private let handover = Handover()

    init(_ callbacks: cm_command_callbacks, _ context: CallbackContext) {
        self.callbacks = callbacks
        self.context = context
    }

    /// - Parameter visible: of its targets only these; `nil`: all.
    func begin(_ watch: CommandWatch, _ visible: Set<ClientID>?, _ id: CommandID, _ handle: cm_handle, on instance: PluginInstance) {
        instance.environment.loop.spawn { [self] in await run(watch, visible, id, handle, instance) }
    }

    private func run(
        _ watch: CommandWatch, _ visible: Set<ClientID>?, _ id: CommandID, _ handle: cm_handle, _ instance: PluginInstance
    ) async {
        let (kernel, forms, loop) = (instance.environment.kernel, instance.environment.forms, instance.environment.loop)
        var watch = watch
        while !handover.isClosed {
            let items: [CommandWatch.Item]
            do throws(Problem) {
                items = try await watch.next(waitMilliseconds: 2_000)
            } catch {
                guard error.status != 404 else { break }
                // The store is busy: later.
                await loop.sleep(milliseconds: 500)
                continue
            }
            var ended: [[UInt8]] = []
            for case .target(let view) in items where view.end != nil && visible?.contains(view.client) ?? true {
                ended.append(forms.target(view))
            }
            let targets = ended
            if !targets.isEmpty { await surely(instance) { [self] in tell(targets, handle) } }
            guard watch.isEnded else { continue }
            guard let detail = try? await kernel.commands.get(id) else { break }
            let result = forms.command(detail.summary)
            await surely(instance) { [self] in
                if let function = callbacks.ended { withText(result) { function(context.foreign.pointer, handle, $0) } }
            }
            break
        }
        if instance.take(handle, WatchedCommand.self) != nil { retire(handle, of: instance) }
    }

    /// An end is told once, however full the plugin's queue is at the moment.
    private func surely(_ instance: PluginInstance, _ work: @escaping @Sendable () -> Void) async {
        while !handover.isClosed, !(await handover.run("command", on: instance, work)) {
            await instance.environment.loop.sleep(milliseconds: 50)
        }
    }

    private func tell(_ targets: [[UInt8]], _ handle: cm_handle) {
        guard let function = callbacks.target_ended else { return }
        for target in targets where !handover.isClosed { withText(target) { function(context.foreign.pointer, handle, $0) } }
    }

    func retire(_: cm_handle, of instance: PluginInstance) {
        handover.close()
        context.end(on: instance)
    }
}

/// Which of a command's targets the actor may see with this right; `nil`: all.
/// - Throws: 404 when there is none, as if there were no such command.
private func visible(
    _ detail: CommandDetail, _ right: Right, to actor: Actor, _ kernel: Kernel
) async throws(Problem) -> Set<ClientID>? {
    let scope = kernel.security.scope(of: actor.principal, for: right)
    if scope.isEverything { return nil }
    var permitted: Set<ClientID> = []
    var from = 0
    while from < detail.summary.targetCount {
        let page = try await kernel.commands.targets(detail, from: from, limit: Commands.pageTargets, withOutput: false)
        guard !page.isEmpty else { break }
        from += page.count
        permitted.formUnion(try kernel.clients.narrow(page.map(\.client), allowed: scope.allowed, denied: scope.denied).permitted)
    }
    guard !permitted.isEmpty else { throw Problem(404, "command-unknown", "there is no command \(detail.summary.id)") }
    return permitted
}

private func commandID(_ text: cm_text) throws(Problem) -> CommandID {
    guard let text = text.string(limit: 64), let id = CommandID(text) else {
        throw Problem(400, "plugin-argument", "`id` is no command id (26 characters, the first 0 to 7)")
    }
    return id
}

private func requirePlace(_ instance: PluginInstance) throws(Problem) {
    guard instance.count(of: WatchedCommand.self) < watchedPerPlugin else {
        throw Problem(429, "plugin-too-many", "the plugin watches \(watchedPerPlugin) commands already")
    }
}

// MARK: Functions

private func commandsRun(
    _ host: OpaquePointer, _ actor: cm_handle, _ specification: cm_text, _ callbacks: UnsafePointer<cm_command_callbacks>?,
    _ context: UnsafeMutableRawPointer?, _ command: UnsafeMutablePointer<cm_handle>, _ id: UnsafeMutablePointer<cm_buffer>,
    _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    run(host, "commands.run", actor, specification, nil, callbacks, context, command, id, error)
}

private func commandsRunWithSecrets(
    _ host: OpaquePointer, _ actor: cm_handle, _ specification: cm_text, _ variables: cm_bytes,
    _ callbacks: UnsafePointer<cm_command_callbacks>?, _ context: UnsafeMutableRawPointer?,
    _ command: UnsafeMutablePointer<cm_handle>, _ id: UnsafeMutablePointer<cm_buffer>, _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    run(host, "commands.run_with_secrets", actor, specification, variables, callbacks, context, command, id, error)
}

/// `NAME=VALUE` and a NUL each. No text of a refusal holds a value.
private func secretVariables(_ bytes: cm_bytes) throws(Problem) -> [String: String] {
    guard let bytes = bytes.array(limit: 65_536) else {
        throw Problem(413, "plugin-argument", "`variables` have more than 65,536 bytes")
    }
    guard bytes.last == 0 else { throw Problem(400, "plugin-argument", "each of `variables` is NAME=VALUE, ended by a NUL byte") }
    var variables: [String: String] = [:]
    for part in bytes.dropLast().split(separator: 0, omittingEmptySubsequences: false) {
        guard let mark = part.firstIndex(of: UInt8(ascii: "=")), let name = String(validating: part[..<mark], as: UTF8.self),
            let value = String(validating: part[(mark + 1)...], as: UTF8.self), variables.updateValue(value, forKey: name) == nil
        else { throw Problem(400, "plugin-argument", "each of `variables` is NAME=VALUE in UTF-8, and each name comes once") }
    }
    return variables
}

/// - Parameter variables: the secret ones; `nil` for a command without.
private func run(
    _ host: OpaquePointer, _ function: StaticString, _ actor: cm_handle, _ specification: cm_text, _ variables: cm_bytes?,
    _ callbacks: UnsafePointer<cm_command_callbacks>?, _ context: UnsafeMutableRawPointer?,
    _ command: UnsafeMutablePointer<cm_handle>, _ id: UnsafeMutablePointer<cm_buffer>, _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    let table = callbacks.map { adopt($0, empty: cm_command_callbacks()) } ?? cm_command_callbacks()
    let ends = CallbackContext(context, destroy: table?.destroy)
    command.pointee = CM_NO_HANDLE
    var isWatched = false
    let status = hostCall(host, .wait, function, error: error) { instance in
        if let status = instance.lacking(.commands, for: function, error) ?? requireRoom(id, idBytes, error) { return status }
        return answering(error) { () throws(Problem) in
            guard let table else { throw Problem(400, "plugin-argument", "the head of the callbacks is not filled in") }
            guard let body = specification.bytes(limit: specificationBytes) else {
                throw Problem(413, "plugin-argument", "`specification` has more than \(specificationBytes) bytes")
            }
            let actor = try instance.actor(actor)
            let wantsWatch = callbacks != nil
            if wantsWatch { try requirePlace(instance) }
            let secrets = try variables.map { (bytes) throws(Problem) in try secretVariables(bytes) } ?? [:]
            let (kernel, forms) = (instance.environment.kernel, instance.environment.forms)
            let (number, watch) = try instance.waitForKernel { () async throws(Problem) -> (CommandID, CommandWatch?) in
                var request = try forms.commandRequest(body)
                request.secretEnvironment = secrets
                guard request.waitMilliseconds == 0 else {
                    throw Problem(400, "plugin-argument", "\"wait_s\" is for the API; here `callbacks` tell of the end")
                }
                try actor.require("command.run", kernel)
                let accepted = try await kernel.commands.submit(request, actor.principal)
                guard wantsWatch else { return (accepted.id, nil) }
                // It is accepted, whatever becomes of the watch.
                return (accepted.id, try? await kernel.commands.watch(accepted.id, withOutput: false))
            }
            _ = id.fill(number.description)
            if let watch {
                let made = WatchedCommand(table, ends)
                let handle = instance.keep(made)
                command.pointee = handle
                isWatched = true
                made.begin(watch, nil, number, handle, on: instance)
            }
            return CM_OK
        }
    }
    if !isWatched { ends.endNow() }
    return status
}

private func commandsWatch(
    _ host: OpaquePointer, _ actor: cm_handle, _ id: cm_text, _ callbacks: UnsafePointer<cm_command_callbacks>,
    _ context: UnsafeMutableRawPointer?, _ command: UnsafeMutablePointer<cm_handle>, _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    let table = adopt(callbacks, empty: cm_command_callbacks())
    let ends = CallbackContext(context, destroy: table?.destroy)
    let status = hostCall(host, .wait, "commands.watch", error: error) { instance in
        if let status = instance.lacking(.commands, for: "commands.watch", error) { return status }
        return answering(error) { () throws(Problem) in
            guard let table else { throw Problem(400, "plugin-argument", "the head of the callbacks is not filled in") }
            let actor = try instance.actor(actor)
            let number = try commandID(id)
            try requirePlace(instance)
            let kernel = instance.environment.kernel
            let (watch, seen) = try instance.waitForKernel { () async throws(Problem) -> (CommandWatch, Set<ClientID>?) in
                let seen = try await visible(try await kernel.commands.get(number), "command.read", to: actor, kernel)
                return (try await kernel.commands.watch(number, withOutput: false), seen)
            }
            let made = WatchedCommand(table, ends)
            let handle = instance.keep(made)
            command.pointee = handle
            made.begin(watch, seen, number, handle, on: instance)
            return CM_OK
        }
    }
    if status != CM_OK { ends.endNow() }
    return status
}

private func commandsUnwatch(_ host: OpaquePointer, _ handle: cm_handle) -> cm_status {
    hostCall(host, .any, "commands.unwatch") { instance in
        guard let watched = instance.take(handle, WatchedCommand.self) else { return CM_E_NOT_FOUND }
        watched.retire(handle, of: instance)
        return CM_OK
    }
}

private func commandsCancel(
    _ host: OpaquePointer, _ actor: cm_handle, _ id: cm_text, _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    hostCall(host, .wait, "commands.cancel", error: error) { instance in
        if let status = instance.lacking(.commands, for: "commands.cancel", error) { return status }
        return answering(error) { () throws(Problem) in
            let actor = try instance.actor(actor)
            let number = try commandID(id)
            let kernel = instance.environment.kernel
            try instance.waitForKernel { () async throws(Problem) in
                try actor.require("command.cancel", kernel)
                let permitted = try await visible(try await kernel.commands.get(number), "command.cancel", to: actor, kernel)
                _ = try await kernel.commands.cancel(number, clients: permitted.map { Array($0) }, actor.principal)
            }
            return CM_OK
        }
    }
}

private func commandsOutput(
    _ host: OpaquePointer, _ actor: cm_handle, _ id: cm_text, _ client: cm_text, _ stream: UInt32, _ offset: UInt64,
    _ buffer: UnsafeMutablePointer<cm_buffer>, _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    hostCall(host, .wait, "commands.output", error: error) { instance in
        if let status = instance.lacking(.commands, for: "commands.output", error) { return status }
        return answering(error) { () throws(Problem) in
            let actor = try instance.actor(actor)
            let number = try commandID(id)
            let client = try clientID(client)
            guard stream == 1 || stream == 2 else { throw Problem(400, "plugin-argument", "`stream` is \(stream); 1 is the output, 2 the errors") }
            guard buffer.pointee.capacity > 0, buffer.pointee.data != nil else { throw Problem(400, "plugin-argument", "the buffer has no room") }
            let count = Int(clamping: min(buffer.pointee.capacity, UInt64(OutputStore.readBytes)))
            let kernel = instance.environment.kernel
            let piece = try instance.waitForKernel { () async throws(Problem) -> OutputPiece in
                try await actor.require("output.read", on: client, kernel)
                let record = AuditRecord(
                    principal: actor.principal, action: "output.read", clients: [client], target: number.description,
                    detail: ["offset": .integer(Int64(clamping: offset))])
                let piece = try await kernel.commands.readOutput(
                    number, of: client, stream == 1 ? .standardOutput : .standardError, at: offset, count: count)
                try await kernel.store.write { (transaction) throws(StoreError) in _ = try transaction.audit(record) }
                return piece
            }
            guard !piece.bytes.isEmpty || piece.isComplete else {
                throw Problem(503, "output-not-yet", "there are \(piece.length) bytes so far, and the command is still running")
            }
            return error.fill(buffer, piece.bytes)
        }
    }
}

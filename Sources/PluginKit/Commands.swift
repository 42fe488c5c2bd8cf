import CPluginABI
import JSON

/// `cm.commands/1`.
public struct Commands: Sendable {
    let table: HostTable<cm_commands>

    public enum Stream: UInt32, Sendable {
        case output = 1
        case errors
    }

    /// `specification` is the body of POST /api/v1/commands without "wait_s". Returns the command's id when it is durably
    /// accepted. The closures, on the plugin's own thread, hear of each target's final state and of the whole command's.
    @discardableResult
    public func run(
        _ specification: JSONObject, as actor: Actor = .plugin,
        targetEnded: @escaping (JSONValue) -> Void = { _ in }, ended: @escaping (JSONValue) -> Void = { _ in }
    ) throws(PluginError) -> String {
        guard let run = table.functions.run else { throw .missing("cm.commands/1 run") }
        let text = JSONValue.object(specification).serialized()
        var callbacks = commandCallbacks()
        let context = Unmanaged.passRetained(CommandContext(targetEnded, ended)).toOpaque()
        var handle = CM_NO_HANDLE
        // An id has a fixed size: asking twice would run twice.
        var id = [UInt8](repeating: 0, count: 128)
        let size = try id.filled("cm.commands/1 run") { buffer, error in
            text.withText { run(table.context, actor.handle, $0, &callbacks, context, &handle, buffer, error) }
        }
        return String(decoding: id[..<size], as: UTF8.self)
    }

    /// As `run`, with variables of the environment that stay secret: at most 64, 16 KiB with their names. They are masked in the
    /// stored output where they have 8 bytes or more.
    @discardableResult
    public func run(
        _ specification: JSONObject, secrets: [(name: String, value: String)], as actor: Actor = .plugin,
        targetEnded: @escaping (JSONValue) -> Void = { _ in }, ended: @escaping (JSONValue) -> Void = { _ in }
    ) throws(PluginError) -> String {
        guard let run = table.functions.run_with_secrets else { throw .missing("cm.commands/1 run_with_secrets") }
        let text = JSONValue.object(specification).serialized()
        var variables: [UInt8] = []
        for (name, value) in secrets { variables += Array(name.utf8) + [UInt8(ascii: "=")] + Array(value.utf8) + [0] }
        var callbacks = commandCallbacks()
        let context = Unmanaged.passRetained(CommandContext(targetEnded, ended)).toOpaque()
        var handle = CM_NO_HANDLE
        var id = [UInt8](repeating: 0, count: 128)
        let size = try id.filled("cm.commands/1 run_with_secrets") { buffer, error in
            text.withText { text in
                variables.withBytes {
                    run(table.context, actor.handle, text, $0, &callbacks, context, &handle, buffer, error)
                }
            }
        }
        return String(decoding: id[..<size], as: UTF8.self)
    }

    /// Watches a command that runs already.
    public func watch(
        _ id: String, as actor: Actor = .plugin,
        targetEnded: @escaping (JSONValue) -> Void = { _ in }, ended: @escaping (JSONValue) -> Void
    ) throws(PluginError) -> Registration {
        guard let watch = table.functions.watch else { throw .missing("cm.commands/1 watch") }
        var callbacks = commandCallbacks()
        let context = Unmanaged.passRetained(CommandContext(targetEnded, ended)).toOpaque()
        var handle = CM_NO_HANDLE
        try attempt("cm.commands/1 watch") { error in
            id.withText { watch(table.context, actor.handle, $0, &callbacks, context, &handle, error) }
        }
        return Registration(handle: handle)
    }

    /// Stops watching; the command goes on.
    public func unwatch(_ watch: Registration) { _ = table.functions.unwatch?(table.context, watch.handle) }

    public func cancel(_ id: String, as actor: Actor = .plugin) throws(PluginError) {
        guard let cancel = table.functions.cancel else { throw .missing("cm.commands/1 cancel") }
        try attempt("cm.commands/1 cancel") { error in id.withText { cancel(table.context, actor.handle, $0, error) } }
    }

    /// What a client printed, at most `limit` bytes from `offset`; empty at the end. Throws `.unavailable` where there is
    /// nothing more yet because the command still runs. Audited.
    public func output(
        _ id: String, of client: String, _ stream: Stream = .output, from offset: UInt64 = 0, limit: Int = 65_536,
        as actor: Actor = .plugin
    ) throws(PluginError) -> [UInt8] {
        guard let output = table.functions.output else { throw .missing("cm.commands/1 output") }
        return try readResult("cm.commands/1 output", expecting: limit) { buffer, error in
            id.withText { id in
                client.withText { output(table.context, actor.handle, id, $0, stream.rawValue, offset, buffer, error) }
            }
        }
    }
}

extension Host {
    public func commands() throws(PluginError) -> Commands {
        Commands(table: try interface(CM_INTERFACE_COMMANDS, cm_commands()))
    }
}

private final class CommandContext {
    let targetEnded: (JSONValue) -> Void
    let ended: (JSONValue) -> Void

    init(_ targetEnded: @escaping (JSONValue) -> Void, _ ended: @escaping (JSONValue) -> Void) {
        self.targetEnded = targetEnded
        self.ended = ended
    }
}

private func commandCallbacks() -> cm_command_callbacks {
    var callbacks = cm_command_callbacks()
    callbacks.head = cm_head(size: UInt32(MemoryLayout<cm_command_callbacks>.size), revision: 1)
    callbacks.target_ended = commandTargetEnded
    callbacks.ended = commandEnded
    callbacks.destroy = releaseContext
    return callbacks
}

private func commandTargetEnded(_ context: UnsafeMutableRawPointer?, _ command: UInt64, _ target: cm_text) {
    withContext(context, as: CommandContext.self) { $0.targetEnded((try? JSONValue(parsing: String(target))) ?? .null) }
}

private func commandEnded(_ context: UnsafeMutableRawPointer?, _ command: UInt64, _ result: cm_text) {
    withContext(context, as: CommandContext.self) { $0.ended((try? JSONValue(parsing: String(result))) ?? .null) }
}

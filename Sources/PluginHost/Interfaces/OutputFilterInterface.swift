import CPluginABI
import Kernel
import Reactor
import Synchronization

// The part of cm.commands/1 that sees output on its way to the store.

/// A plugin's filter. Called on the loops of clients' links, at the same time for different ones.
final class PluginOutputFilter: PluginResource, OutputFilter {
    /// Bytes before and after the window that must be the same afterwards.
    private static let guardBytes = 64
    private static let guardByte: UInt8 = 0xA7

    private let callbacks: cm_output_filter_callbacks
    private let context: CallbackContext
    private let instance: PluginInstance
    private struct State: ~Copyable {
        var calls = 0
        /// No call begins any more.
        var isWithdrawn = false
        /// The context ends with the last call that runs.
        var isOver = false
    }
    private let state = Mutex(State())

    init(_ callbacks: cm_output_filter_callbacks, _ context: CallbackContext, _ instance: PluginInstance) {
        self.callbacks = callbacks
        self.context = context
        self.instance = instance
    }

    func begin() { instance.environment.kernel.commands.filters.add(self, of: instance.id) }

    /// Output that has to pass it becomes asterisks from now on. Before the plugin's `stop`, which then waits for the calls that
    /// run: each counts as under way before this returns, or does not begin.
    func withdraw() {
        instance.environment.kernel.commands.filters.remove(self, of: instance.id)
        state.withLock { $0.isWithdrawn = true }
    }

    func retire(_: cm_handle, of _: PluginInstance) {
        withdraw()
        let endsNow = state.withLock { state in
            defer { state.isOver = true }
            return !state.isOver && state.calls == 0
        }
        if endsNow { context.end(on: instance) }
    }

    private func enter() -> Bool {
        state.withLock { state in
            guard !state.isWithdrawn else { return false }
            state.calls += 1
            instance.underway.add(1, ordering: .acquiringAndReleasing)
            return true
        }
    }

    private func leave() {
        let ends = state.withLock { state in
            state.calls -= 1
            instance.underway.subtract(1, ordering: .acquiringAndReleasing)
            return state.isOver && state.calls == 0
        }
        if ends { context.end(on: instance) }
    }

    func filter(_ piece: OutputFilterPiece, _ window: inout MutableSpan<UInt8>) -> Int? {
        guard let loop = EventLoop.current, let function = callbacks.filter, enter() else { return nil }
        defer { leave() }
        // A copy: what the plugin keeps a pointer to, or writes beside, is no output of anybody's.
        let count = window.count
        let margin = Self.guardBytes
        var room = [UInt8](repeating: Self.guardByte, count: margin + count + margin)
        for place in 0..<count { room[margin + place] = window[place] }
        var answer: Int64?
        let isCalled = room.withUnsafeMutableBufferPointer { room in
            withText(piece.command.description) { command in
                withText(piece.client.description) { client in
                    var shown = cm_output_piece(
                        head: head(of: cm_output_piece.self), command: command, client: client,
                        stream: UInt32(piece.stream.rawValue), flags: piece.isLast ? CM_OUTPUT_LAST : 0, offset: piece.offset)
                    return instance.callInline("filter", on: loop) {
                        answer = function(context.foreign.pointer, &shown, room.baseAddress.map { $0 + margin }, UInt64(count))
                    }
                }
            }
        }
        guard isCalled, let answer else { return nil }
        guard room[..<margin].allSatisfy({ $0 == Self.guardByte }), room[(margin + count)...].allSatisfy({ $0 == Self.guardByte })
        else {
            instance.misuse("filter", "it wrote outside of the bytes that it was given")
            return nil
        }
        guard answer >= 0, answer <= Int64(min(count, OutputFilters.heldBytes)) else {
            if answer >= 0 { instance.misuse("filter", "it answered more bytes to hold back than there are, or than CM_OUTPUT_HELD") }
            return nil
        }
        for place in 0..<count { window[place] = room[margin + place] }
        return Int(answer)
    }
}

extension PluginInstance {
    /// The plugin is about to stop, or is given up: no output waits for it.
    func withdrawOutputFilter() {
        for filter in resources(of: PluginOutputFilter.self) { filter.withdraw() }
    }
}

func commandsFilterAdd(
    _ host: OpaquePointer, _ callbacks: UnsafePointer<cm_output_filter_callbacks>, _ context: UnsafeMutableRawPointer?,
    _ filter: UnsafeMutablePointer<cm_handle>, _ error: UnsafeMutablePointer<cm_error>?
) -> cm_status {
    let table = adopt(callbacks, empty: cm_output_filter_callbacks())
    let ends = CallbackContext(context, destroy: table?.destroy)
    filter.pointee = CM_NO_HANDLE
    let status = hostCall(host, .own, "commands.filter_add", error: error) { instance in
        for needed in [Capability.outputFilter, .inline] {
            if let status = instance.lacking(needed, for: "commands.filter_add", error) { return status }
        }
        guard let table, table.filter != nil else {
            return error.set(CM_E_INVALID, "plugin-argument", "`filter` is not set, or the head of the callbacks is not filled in")
        }
        guard instance.count(of: PluginOutputFilter.self) == 0 else {
            return error.set(CM_E_EXISTS, "plugin-too-many", "the plugin has a filter already")
        }
        let made = PluginOutputFilter(table, ends, instance)
        filter.pointee = instance.keep(made)
        made.begin()
        instance.environment.log.info(
            "plugin.output-filter", ["plugin": .string(instance.id), "version": .string(instance.note.version.description)])
        return CM_OK
    }
    if status != CM_OK { ends.endNow() }
    return status
}

func commandsFilterRemove(_ host: OpaquePointer, _ handle: cm_handle) -> cm_status {
    hostCall(host, .any, "commands.filter_remove") { instance in
        guard let filter = instance.take(handle, PluginOutputFilter.self) else { return CM_E_NOT_FOUND }
        filter.retire(handle, of: instance)
        return CM_OK
    }
}

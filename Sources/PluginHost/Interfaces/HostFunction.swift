import CPluginABI
import Reactor

/// Where a host function may be called, as its tag in the header says.
enum CallTag {
    /// [own]
    case own
    /// [any]
    case any
    /// [wait]: not on a loop of the core
    case wait
}

/// The first lines of every host function: which plugin calls, whether it may still call, and whether here.
///
/// The pointer comes from the plugin, but it can only be the one that it was given; a plugin that invents another has
/// already left the rules of one address space.
@inline(__always)
func hostCall(
    _ host: OpaquePointer, _ tag: CallTag, _ function: StaticString, error: UnsafeMutablePointer<cm_error>? = nil,
    _ body: (PluginInstance) -> cm_status
) -> cm_status {
    Unmanaged<PluginInstance>.fromOpaque(UnsafeRawPointer(host))._withUnsafeGuaranteedRef { instance in
        if instance.isOver {
            instance.misuse(function, "called after stop")
            return error.set(CM_E_GONE, "plugin-stopped", "the plugin has stopped: no call into the core may follow")
        }
        switch tag {
        case .any: break
        case .own where instance.thread.isCurrent: break
        case .wait where EventLoop.current == nil: break
        case .own, .wait:
            instance.misuse(function, tag == .own ? "called on another thread than the plugin's own" : "called inside an inline callback")
            return error.set(CM_E_THREAD, "plugin-thread", "\(function) must not be called on this thread; see its tag in client_manager_plugin.h")
        }
        let status = body(instance)
        if status < 0 { instance.accounting.errors.wrappingAdd(1, ordering: .relaxed) }
        return status
    }
}

/// One of the host's tables, at one address for the life of the process.
///
/// `@unchecked Sendable`: written once before anybody sees it.
struct HostTable<Table>: @unchecked Sendable {
    let pointer: UnsafePointer<Table>

    init(_ table: Table) {
        let memory = UnsafeMutablePointer<Table>.allocate(capacity: 1)
        memory.initialize(to: table)
        pointer = UnsafePointer(memory)
    }
}

func head<Table>(of _: Table.Type, revision: UInt32 = 1) -> cm_head {
    cm_head(size: UInt32(MemoryLayout<Table>.size), revision: revision)
}

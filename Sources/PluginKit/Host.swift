import CPluginABI

/// One table of the core, copied when it came in: what a smaller (older) one does not have is NULL here, what a larger
/// (newer) one has besides is left alone.
///
/// Unchecked: nothing changes after `init`, the functions of the core's tables are made for calls from every thread, and
/// the context lives as long as the process.
final class HostTable<Functions>: @unchecked Sendable {
    let context: OpaquePointer
    let functions: Functions

    init(context: OpaquePointer, functions: Functions) {
        self.context = context
        self.functions = functions
    }

    /// `table` begins with a `cm_head`. `empty` is the zeroed struct.
    init(context: OpaquePointer, copying table: UnsafeRawPointer, into empty: Functions) {
        self.context = context
        let theirs = Int(table.load(as: cm_head.self).size)
        var mine = empty
        withUnsafeMutableBytes(of: &mine) { mine in
            mine.copyMemory(from: UnsafeRawBufferPointer(start: table, count: min(theirs, mine.count)))
        }
        functions = mine
    }
}

/// The core, as a plugin sees it. May be kept and used until the end of `stop`.
///
/// An interface is asked for when it is used: `try host.http()`. It throws where this core does not have it, or where its
/// capability was not granted.
public struct Host: Sendable {
    typealias InterfaceGet = @convention(c) (
        OpaquePointer, cm_text, UInt32, UnsafeMutablePointer<UnsafeRawPointer?>, UnsafeMutablePointer<cm_error>?
    ) -> cm_status

    private let entry: HostTable<InterfaceGet>
    /// Lines of the core's structured log; needs no capability.
    public let log: Log
    public let abiMajor: UInt32
    public let abiMinor: UInt32

    init(_ host: UnsafePointer<cm_host>) throws(PluginError) {
        guard host.pointee.head.size >= MemoryLayout<cm_host>.size, let get = host.pointee.interface_get else {
            throw .missing("interface_get")
        }
        entry = HostTable(context: host.pointee.context, functions: get)
        abiMajor = host.pointee.abi_major
        abiMinor = host.pointee.abi_minor
        log = Log(table: try Self.interface(entry, CM_INTERFACE_LOG, cm_log()))
    }

    func interface<Functions>(_ identifier: String, _ empty: Functions) throws(PluginError) -> HostTable<Functions> {
        try Self.interface(entry, identifier, empty)
    }

    private static func interface<Functions>(
        _ entry: HostTable<InterfaceGet>, _ identifier: String, _ empty: Functions
    ) throws(PluginError) -> HostTable<Functions> {
        var found: UnsafeRawPointer?
        try attempt(identifier) { error in
            identifier.withText { entry.functions(entry.context, $0, 0, &found, error) }
        }
        guard let found else { throw .missing(identifier) }
        return HostTable(context: entry.context, copying: found, into: empty)
    }
}

/// Something that the plugin registered with the core, until it is taken back or the plugin stops.
public struct Registration: Sendable, Equatable {
    public let handle: UInt64
}

/// In whose name the core acts: a live request, WebSocket or job attempt stands for its principal, whose rights are
/// checked; `.plugin` is the plugin itself.
public struct Actor: Sendable {
    let handle: UInt64

    public static let plugin = Actor(handle: CM_NO_HANDLE)
    public static func request(_ request: Request) -> Actor { Actor(handle: request.handle) }
    public static func webSocket(_ socket: WebSocket) -> Actor { Actor(handle: socket.handle) }
    public static func job(_ attempt: JobAttempt) -> Actor { Actor(handle: attempt.handle) }
}

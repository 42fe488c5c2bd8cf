import CLinux
import CPluginABI
import Glibc
import System

/// A plugin's code in this process, for good: nothing is ever unmapped.
///
/// `@unchecked Sendable`: the pointers are of an image that stays mapped, and the table is only read.
struct PluginImage: @unchecked Sendable {
    /// The plugin's table as far as the plugin filled it in; what it did not is zero.
    let table: cm_plugin
    /// Where the code lies, for blaming a fault by its address.
    let range: Range<UInt64>

    /// Loads the libraries that it needs, then the image, and asks for its table. Blocks.
    /// - Parameter libraries: directory of the libraries that the core brings along.
    static func load(_ path: String, _ file: PluginFile, libraries: String) throws(PluginRefusal) -> PluginImage {
        try LibraryLoader.loadNeeded(file.needed, from: libraries)
        guard let library = cm_library_open(path) else {
            throw PluginRefusal(
                "plugin-not-loadable", "the loader refuses it: \(String(cString: cm_library_error()))",
                remedy: "link it with -Wl,-z,defs so that a missing symbol shows when it is built")
        }
        guard let symbol = cm_library_symbol(library, "cm_plugin_entry") else {
            throw PluginRefusal(
                "plugin-entry", "it exports no function cm_plugin_entry", remedy: "mark the function CM_EXPORT (in Swift: @c public)")
        }
        var start: UInt64 = 0
        var end: UInt64 = 0
        let found = cm_library_range(symbol, &start, &end) == 0
        let entry = unsafeBitCast(symbol, to: Entry.self)
        guard let pointer = entry(UInt32(CM_ABI_MAJOR), UInt32(CM_ABI_MINOR)) else {
            throw PluginRefusal(
                "plugin-abi", "its entry refuses version \(CM_ABI_MAJOR) of the plugin ABI",
                remedy: "build it against the SDK of this core (make sdk)")
        }
        let table = try copy(pointer)
        guard String(cString: table.id) == file.note.id, String(cString: table.version) == file.note.version.description else {
            throw PluginRefusal(
                "plugin-identity",
                "its note says \(file.note.id) \(file.note.version), its table \(String(cString: table.id).prefix(64)) \(String(cString: table.version).prefix(32))",
                remedy: "make both say the same")
        }
        guard table.load != nil, table.start != nil, table.stop != nil else {
            throw PluginRefusal("plugin-entry", "its table lacks load, start or stop", remedy: "set all three")
        }
        return PluginImage(table: table, range: found ? start..<end : 0..<0)
    }

    private typealias Entry = @convention(c) (UInt32, UInt32) -> UnsafePointer<cm_plugin>?

    /// Reads only as far as the plugin says that its table goes: an older plugin's is shorter, a newer one's longer.
    private static func copy(_ pointer: UnsafePointer<cm_plugin>) throws(PluginRefusal) -> cm_plugin {
        let head = UnsafeRawPointer(pointer).load(as: cm_head.self)
        let needed = MemoryLayout<cm_plugin>.offset(of: \cm_plugin.start).map { $0 + MemoryLayout<UInt>.size } ?? 0
        guard Int(head.size) >= needed, head.size <= 65_536 else {
            throw PluginRefusal(
                "plugin-entry", "its table says that it has \(head.size) bytes; at least \(needed) are needed",
                remedy: "fill in head with CM_HEAD(cm_plugin, 1)")
        }
        let size = min(Int(head.size), MemoryLayout<cm_plugin>.size)
        let memory = UnsafeMutableRawPointer.allocate(byteCount: MemoryLayout<cm_plugin>.size, alignment: 8)
        defer { memory.deallocate() }
        memset(memory, 0, MemoryLayout<cm_plugin>.size)
        memcpy(memory, pointer, size)
        // A null id or version would be undefined as a nonnull pointer: looked at before the struct is formed.
        for offset in [16 as Int, 24] where memory.load(fromByteOffset: offset, as: UInt.self) == 0 {
            throw PluginRefusal("plugin-entry", "its table has no id or version", remedy: "set both as in the note")
        }
        return memory.load(as: cm_plugin.self)
    }
}

/// Libraries that a plugin needs. `$ORIGIN` means nothing in a private copy and the core's own search path does not pass on:
/// so each is loaded first, by absolute path from the core's directory, else from where the system has it.
enum LibraryLoader {
    static func loadNeeded(_ names: [String], from directory: String) throws(PluginRefusal) {
        for name in names where cm_library_is_loaded(name) == 0 {
            let own = directory + "/" + name
            let path = !name.contains("/") && !directory.isEmpty && Files.exists(own) ? own : name
            if cm_library_open(path) == nil {
                throw PluginRefusal(
                    "plugin-library", "it needs \(name), which cannot be loaded: \(String(cString: cm_library_error()))",
                    remedy: "install the package that has \(name), or put it into \(directory)")
            }
        }
    }
}

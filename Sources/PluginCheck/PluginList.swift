import Glibc
import PluginHost

/// `client-manager plugin list DIR`: what the files of a directory say of themselves. None of their code runs, and no core
/// is asked; what a running core made of them is `cmctl plugins`.
public enum PluginList {
    public static let usage = "client-manager plugin list DIR"

    public static func main(_ arguments: [String]) -> Int32 {
        guard arguments.count == 1, let directory = arguments.first, !directory.hasPrefix("-") else {
            return fail("usage: \(usage)", 2)
        }
        guard access(directory, R_OK | X_OK) == 0 else {
            return fail("\(directory) cannot be read: \(String(cString: strerror(errno)))", 1)
        }
        var isWell = true
        for name in fileNames(directory) where name.hasSuffix(".so") && !name.hasPrefix(".") {
            do throws(PluginRefusal) {
                let note = try PluginNote(try ELFImage(try readFile("\(directory)/\(name)")).note ?? [])
                let asks = note.capabilities.isEmpty ? "nothing" : note.capabilities.joined(separator: ", ")
                print("\(name)  \(note.id) \(note.version)  asks for \(asks)\(note.summary.isEmpty ? "" : "  \(note.summary)")")
            } catch {
                isWell = false
                print("\(name)  \(error)")
            }
        }
        return isWell ? 0 : 1
    }
}

/// Names in a directory, sorted, without the two that stand in every one.
func fileNames(_ directory: String) -> [String] {
    guard let handle = opendir(directory) else { return [] }
    defer { closedir(handle) }
    var names: [String] = []
    while let entry = readdir(handle) {
        let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
            pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
        }
        if name != ".", name != ".." { names.append(name) }
    }
    return names.sorted()
}

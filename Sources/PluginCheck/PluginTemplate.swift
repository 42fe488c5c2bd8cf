import Glibc
import JSON
import PluginHost

/// `client-manager plugin new --lang c|cpp|rust|swift NAME`: a folder that builds a plugin with `make`, outside our tree.
/// The templates are the kit's examples; the new name takes the place of theirs.
public enum PluginTemplate {
    public static let usage = "client-manager plugin new --lang c|cpp|rust|swift NAME [--sdk DIR]"

    public static func main(_ arguments: [String]) -> Int32 {
        var language: String?
        var kit: String?
        var name: String?
        var rest = arguments[...]
        while let word = rest.popFirst() {
            switch word {
            case "--lang": language = rest.popFirst()
            case "--sdk": kit = rest.popFirst()
            default:
                guard name == nil, !word.hasPrefix("-") else { return wrong("unexpected word \"\(word)\"") }
                name = word
            }
        }
        guard let language, ["c", "cpp", "rust", "swift"].contains(language) else { return wrong("--lang takes c, cpp, rust or swift") }
        guard let name, isName(name) else {
            return wrong("NAME is a lower-case letter and up to 30 letters and digits: it becomes NAME.so, com.example.NAME and /api/v1/NAME")
        }
        do throws(PluginRefusal) {
            let kit = try kitDirectory(kit)
            try make(name, from: "\(kit)/templates/\(language)", kit: kit)
            print("\(name)/ builds \(name).so with `make`, and checks it with `make test`; begin with \(name)/README.md")
            return 0
        } catch {
            return fail(error.description, 1)
        }
    }

    private static func isName(_ text: String) -> Bool {
        (1...31).contains(text.utf8.count) && text.utf8.allSatisfy { (0x61...0x7A).contains($0) || (0x30...0x39).contains($0) }
            && (0x61...0x7A).contains(text.utf8.first ?? 0)
    }

    /// `--sdk`, else `../sdk` beside the program, as an absolute path.
    private static func kitDirectory(_ given: String?) throws(PluginRefusal) -> String {
        var beside = "../sdk"
        var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
        let count = readlink("/proc/self/exe", &buffer, buffer.count - 1)
        if count > 0 {
            let path = String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
            beside = path.split(separator: "/", omittingEmptySubsequences: false).dropLast(2).joined(separator: "/") + "/sdk"
        }
        let path = given ?? beside
        guard let resolved = realpath(path, nil) else {
            throw PluginRefusal("sdk-missing", "the plugin kit is not at \(path)", remedy: "run make sdk, or give --sdk DIR")
        }
        defer { free(resolved) }
        let absolute = String(cString: resolved)
        guard access(absolute + "/plugin.mk", R_OK) == 0 else {
            throw PluginRefusal("sdk-missing", "\(absolute) is no plugin kit: plugin.mk is missing", remedy: "run make sdk, or give --sdk DIR")
        }
        return absolute
    }

    private static func make(_ name: String, from template: String, kit: String) throws(PluginRefusal) {
        let makefile = String(decoding: try readFile(template + "/Makefile"), as: UTF8.self)
        guard let line = makefile.split(separator: "\n").first(where: { $0.hasPrefix("PLUGIN := ") }) else {
            throw PluginRefusal("sdk-damaged", "\(template)/Makefile names no PLUGIN", remedy: "make the kit again: make sdk")
        }
        let old = String(line.dropFirst("PLUGIN := ".count))
        guard mkdir(name, 0o755) == 0 else {
            throw PluginRefusal("plugin-folder", "\(name) cannot be made: \(String(cString: strerror(errno)))", remedy: "take another name, or move what is there away")
        }
        try copy(template, to: name, replacing: [(old.uppercased(), name.uppercased()), (old, name)], kit: kit)
    }

    private static func copy(
        _ source: String, to target: String, replacing names: [(String, String)], kit: String
    ) throws(PluginRefusal) {
        for entry in fileNames(source) {
            let new = renamed(entry, names)
            var status = stat()
            guard stat("\(source)/\(entry)", &status) == 0 else { continue }
            if status.st_mode & S_IFMT == S_IFDIR {
                guard mkdir("\(target)/\(new)", 0o755) == 0 else { throw cannotWrite("\(target)/\(new)") }
                try copy("\(source)/\(entry)", to: "\(target)/\(new)", replacing: names, kit: kit)
                continue
            }
            var text = renamed(String(decoding: try readFile("\(source)/\(entry)"), as: UTF8.self), names)
            if entry == "Makefile" {
                text = text.split(separator: "\n", omittingEmptySubsequences: false)
                    .map { $0.hasPrefix("SDK ?= ") ? "SDK ?= \(kit)" : String($0) }.joined(separator: "\n")
            }
            try write(text, to: "\(target)/\(new)")
        }
    }

    private static func write(_ text: String, to path: String) throws(PluginRefusal) {
        guard let file = fopen(path, "wx") else { throw cannotWrite(path) }
        let bytes = Array(text.utf8)
        let written = fwrite(bytes, 1, bytes.count, file)
        guard fclose(file) == 0, written == bytes.count else { throw cannotWrite(path) }
    }

    private static func cannotWrite(_ path: String) -> PluginRefusal {
        PluginRefusal("plugin-folder", "\(path) cannot be written: \(String(cString: strerror(errno)))", remedy: "see the reason")
    }

    private static func renamed(_ text: String, _ names: [(String, String)]) -> String {
        var text = Array(text.utf8)
        for (old, new) in names {
            var result: [UInt8] = []
            var index = 0
            while index < text.count {
                if text[index...].starts(with: old.utf8) {
                    result.append(contentsOf: new.utf8)
                    index += old.utf8.count
                } else {
                    result.append(text[index])
                    index += 1
                }
            }
            text = result
        }
        return String(decoding: text, as: UTF8.self)
    }

    private static func wrong(_ text: String) -> Int32 { fail("\(text)\nusage: \(usage)", 2) }
}

/// One line to standard error, and the exit status.
func fail(_ text: String, _ status: Int32) -> Int32 {
    let line = Array("client-manager: \(text)\n".utf8)
    _ = line.withUnsafeBytes { write(STDERR_FILENO, $0.baseAddress, $0.count) }
    return status
}

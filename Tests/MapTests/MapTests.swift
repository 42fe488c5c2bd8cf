import Glibc
import Testing

/// The map of Docs/architecture.md as data: what each target may import of ours.
private let map: [String: Set<String>] = [
    "JSON": [],
    "Program": ["JSON"],
    "Crypto": ["COpenSSL"],
    "Reactor": ["CLinux"],
    "System": ["CLinux", "Reactor"],
    "Transport": ["Reactor", "System", "Crypto", "COpenSSL", "Program"],
    "AgentProtocol": ["JSON", "Crypto", "Program"],
    "Kernel": ["AgentProtocol", "Transport", "System", "Crypto", "JSON", "Reactor", "CSQLite", "Program"],
    "Web": ["Kernel", "Transport", "JSON", "Reactor", "Program"],
    "PluginHost": [
        "Web", "Kernel", "Transport", "System", "Crypto", "JSON", "Reactor", "CLinux", "CPluginABI", "Program",
    ],
    "PluginCheck": ["PluginHost", "CPluginABI", "JSON"],
    "PluginKit": ["CPluginABI", "JSON"],
    "API": ["Web", "Kernel", "PluginHost", "JSON", "Program"],
    "Agent": ["AgentProtocol", "Transport", "System", "Crypto", "JSON", "Reactor", "Program"],
    "OperatorClient": ["Transport", "System", "Crypto", "JSON", "Reactor", "Program"],
    "client-manager": [
        "API", "PluginHost", "PluginCheck", "Web", "Kernel", "Transport", "System", "Crypto", "Reactor", "JSON", "Program",
    ],
    "cm-agent": ["Agent", "Reactor", "JSON", "Program"],
    "cm-swarm": ["Agent", "Reactor", "JSON", "Program"],
    "cmctl": ["OperatorClient", "Program"],
]
private let platform: Set<String> = ["Glibc", "Synchronization"]

@Suite struct MapTests {
    private let root = #filePath.split(separator: "/").dropLast(3).map(String.init)
    private var sources: String { "/" + root.joined(separator: "/") + "/Sources" }

    @Test func everyImportIsOnTheMap() throws {
        var read = 0
        for (target, allowed) in map {
            for file in swiftFiles(sources + "/" + target) {
                for line in lines(file) {
                    guard let module = imported(line) else { continue }
                    read += 1
                    #expect(
                        allowed.contains(module) || platform.contains(module),
                        "\(target) imports \(module) in \(file); allowed are \(allowed.sorted())")
                }
            }
        }
        #expect(read > 50)
    }

    @Test func everyTargetIsOnTheMap() {
        let unmapped: Set<String> = ["COpenSSL", "CSQLite", "CLinux", "CPluginABI", "CFloor", "cm-bench"]
        for target in entries(sources) where !unmapped.contains(target) {
            #expect(map[target] != nil, "Sources/\(target) is not on the map")
        }
    }

    /// A bare task would leave the loop, where a request costs twice as much.
    @Test func tasksStartOnlyThroughTheLoop() {
        for target in map.keys where target != "Reactor" {
            for file in swiftFiles(sources + "/" + target) {
                for line in lines(file) {
                    let code = line.prefix { $0 != "/" }
                    #expect(!code.contains("Task {") && !code.contains("Task.detached"), "\(file): \(line)")
                }
            }
        }
    }

    /// `Problem(404, "code"` and `.conflict("code"` in the sources against Docs/errors.md.
    /// `Mutex<() -> Void>`: each `withLock` wraps the closure once more (Swift 6.2), so that calling it after some thousand
    /// looks overflows the stack. It belongs into a struct.
    @Test func noClosureIsTheWholeValueOfALock() {
        for target in map.keys {
            for file in swiftFiles(sources + "/" + target) {
                for line in lines(file) {
                    for opening in ["Mutex<(@", "Mutex<@", "Mutex<(("] {
                        #expect(!line.contains(opening), "\(file): \(line)")
                    }
                }
            }
        }
    }

    @Test func everyErrorCodeIsDocumented() {
        let document = lines("/" + root.joined(separator: "/") + "/Docs/errors.md").joined(separator: "\n")
        var found = 0
        for target in map.keys {
            for file in swiftFiles(sources + "/" + target) {
                let text = lines(file).map { $0.drop { $0 == " " } }.joined()
                for opening in ["Problem(", ".conflict("] {
                    for piece in text.split(separator: opening).dropFirst() {
                        guard let code = code(at: piece) else { continue }
                        found += 1
                        #expect(document.contains("`\(code)`"), "Docs/errors.md lacks \(code) (\(file))")
                    }
                }
            }
        }
        #expect(found > 80)
    }

    /// A fault of the replaced system without a test is a promise without proof.
    @Test func everyOldFaultNamesTestsThatExist() {
        let home = "/" + root.joined(separator: "/")
        var known = Set(entries(home + "/Tests/Show"))
        for target in entries(home + "/Tests") {
            for file in swiftFiles(home + "/Tests/" + target) {
                var isTest = false
                for line in lines(file) {
                    isTest = isTest || line.contains("@Test")
                    guard isTest, let name = line.split(separator: "func ", maxSplits: 1).dropFirst().first else { continue }
                    known.insert(String(name.prefix { $0 != "(" }))
                    isTest = false
                }
            }
        }
        var rows = 0
        for line in lines(home + "/Docs/old-faults.md") where line.hasPrefix("| ") && line.contains("`") {
            let cells = line.split(separator: "|")
            let named = (cells.last.map { $0.split(separator: "`") } ?? []).filter { !$0.contains(" ") && !$0.contains(",") }
            rows += 1
            #expect(cells.count == 3 && !named.isEmpty, "Docs/old-faults.md: \(line)")
            for name in named { #expect(known.contains(String(name)), "Docs/old-faults.md names \(name), which is no test") }
        }
        #expect(rows > 30)
    }

    /// The first literal of an argument list that begins with it, or with a status and it.
    private func code(at text: Substring) -> String? {
        let rest = text.drop { $0.isNumber || $0 == "," || $0 == " " }
        guard rest.first == "\"" else { return nil }
        let code = rest.dropFirst().prefix { $0 != "\"" }
        return code.allSatisfy { $0.isLowercase || $0.isNumber || $0 == "-" } && !code.isEmpty ? String(code) : nil
    }

    private func imported(_ line: String) -> String? {
        let words = line.split(separator: " ").map(String.init)
        guard let index = words.firstIndex(of: "import"), index <= 1, words.count > index + 1,
            index == 0 || ["public", "internal", "private", "package", "@_exported"].contains(words[0])
        else { return nil }
        return words[index + 1]
    }

    private func swiftFiles(_ directory: String) -> [String] {
        entries(directory).flatMap { name in
            let path = directory + "/" + name
            return name.hasSuffix(".swift") ? [path] : swiftFiles(path)
        }
    }

    private func entries(_ directory: String) -> [String] {
        guard let handle = opendir(directory) else { return [] }
        defer { closedir(handle) }
        var names: [String] = []
        while let entry = readdir(handle) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if !name.hasPrefix(".") { names.append(name) }
        }
        return names
    }

    private func lines(_ path: String) -> [String] {
        guard let file = fopen(path, "r") else { return [] }
        defer { fclose(file) }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while case let count = fread(&buffer, 1, buffer.count, file), count > 0 { bytes.append(contentsOf: buffer[..<count]) }
        return String(decoding: bytes, as: UTF8.self).split(separator: "\n").map(String.init)
    }
}

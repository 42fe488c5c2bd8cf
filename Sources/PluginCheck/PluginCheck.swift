import Glibc
import PluginHost

/// `client-manager plugin check FILE`: what a plugin must hold, each part in a process of its own, against a core that is
/// only played. Exit status: 0 all well, 1 something is wrong, 2 usage.
public enum PluginCheck {
    public static let usage = "client-manager plugin check FILE [--with FILE]… [--timeout SECONDS] [--only PART]"

    public static func main(_ arguments: [String]) -> Int32 {
        var path: String?
        var timeout = 10
        var only: String?
        var others: [String] = []
        var rest = arguments[...]
        while let word = rest.popFirst() {
            switch word {
            case "--timeout":
                guard let value = rest.popFirst().flatMap(Int.init), (1...600).contains(value) else { return wrong("--timeout takes 1 to 600 seconds") }
                timeout = value
            case "--with":
                guard let value = rest.popFirst() else { return wrong("--with takes a NAME.so whose services the plugin uses") }
                others.append(value.contains("/") ? value : "./" + value)
            case "--only":
                guard let value = rest.popFirst() else { return wrong("--only takes a part: entry, life, again, larger, smaller-N, fault-N, null-N") }
                only = value
            default:
                guard path == nil, !word.hasPrefix("-") else { return wrong("unexpected word \"\(word)\"") }
                path = word
            }
        }
        guard let path else { return wrong("FILE is missing: the NAME.so to check") }
        return Checker(path: path, others: others, timeout: timeout).run(only: only)
    }

    /// The child that `main` starts.
    public static func part(_ arguments: [String]) -> Int32 {
        guard arguments.count >= 2, let part = CheckPart(arguments[1]) else { return wrong("FILE PART") }
        return CheckChild.run(path: arguments[0], part: part, others: Array(arguments.dropFirst(2)))
    }

    private static func wrong(_ text: String) -> Int32 {
        let line = Array("client-manager: \(text)\nusage: \(usage)\n".utf8)
        _ = line.withUnsafeBytes { write(STDERR_FILENO, $0.baseAddress, $0.count) }
        return 2
    }
}

/// Runs the parts one after the other and prints a verdict for each.
private final class Checker {
    private let path: String
    private let others: [String]
    private let timeout: Int
    private var failed = 0
    private var passed = 0

    init(path: String, others: [String], timeout: Int) {
        self.path = path.contains("/") ? path : "./" + path
        self.others = others
        self.timeout = timeout
    }

    func run(only: String?) -> Int32 {
        if let only {
            guard let part = CheckPart(only) else {
                print("no part \(only)")
                return 2
            }
            _ = play(part)
            return finish()
        }
        guard looksRight() else { return finish() }
        guard play(.entry) != nil, let calls = play(.life) else { return finish() }
        for part in [.again, .larger, .smaller(0), .smaller(1), .smaller(2), .smaller(4), .smaller(8)] as [CheckPart] { _ = play(part) }
        // Each call of load and start that can fail does so once. Bounded: a plugin that calls more is checked so far.
        for number in stride(from: 1, through: min(calls, 64), by: 1) {
            _ = play(.fault(number))
            _ = play(.faultWithoutError(number))
        }
        return finish()
    }

    private func finish() -> Int32 {
        print("\(path): \(passed) checks passed, \(failed) failed")
        return failed == 0 ? 0 : 1
    }

    // MARK: Without running any of it

    private func looksRight() -> Bool {
        let image: ELFImage
        do throws(PluginRefusal) {
            image = try ELFImage(try readFile(path))
            let note = try PluginNote(image.note ?? [])
            verdict("note: \(note.id) \(note.version), well formed", [], [])
        } catch {
            verdict("file and note", ["\(error)"], [])
            return false
        }
        var faults: [String] = []
        if !image.exported.contains("cm_plugin_entry") {
            faults.append("it does not export cm_plugin_entry (CM_EXPORT in C, @c public in Swift, #[no_mangle] in Rust)")
        }
        let others = image.exported.filter { $0 != "cm_plugin_entry" }
        if !others.isEmpty {
            let foreign = others.filter { $0.hasPrefix("_ZNSt") || $0.hasPrefix("__cxa") || $0.hasPrefix("SSL_") || $0.hasPrefix("EVP_") || $0.hasPrefix("OPENSSL_") }
            faults.append(
                "it exports \(others.count) more symbols (\(others.prefix(5).joined(separator: ", "))\(others.count > 5 ? ", …" : "")), which may bind to those of the core or of another plugin; link with --version-script of the kit")
            if !foreign.isEmpty { faults.append("among them symbols of OpenSSL or of the C++ runtime: \(foreign.prefix(3).joined(separator: ", "))") }
        }
        verdict("exports: cm_plugin_entry and nothing else", faults, [])
        return image.exported.contains("cm_plugin_entry")
    }

    // MARK: One part in a process of its own

    /// - Returns: the number of calls that could have failed; `nil` when the part failed.
    private func play(_ part: CheckPart) -> Int? {
        let end = CheckProcess.run(path: path, part: part, others: others, seconds: timeout)
        var faults: [String] = []
        var warnings: [String] = []
        var last = "start of the check"
        var calls = 0
        var injected: String?
        for line in end.lines {
            let words = line.split(separator: " ", maxSplits: 1).map(String.init)
            let rest = words.count > 1 ? words[1] : ""
            switch words.first {
            case "at": last = rest
            case "fault": faults.append(rest)
            case "warning": warnings.append(rest)
            case "calls": calls = max(calls, Int(rest) ?? 0)
            case "failed": injected = rest
            default: break
            }
        }
        switch end.how {
        case .exited(0), .exited(1): break
        case .exited(let status): faults.append("it ended the process with status \(status) in: \(last)")
        case .signaled(let signal): faults.append("it crashed (signal \(signal)) in: \(last)")
        case .hung: faults.append("it hung for \(timeout) s in: \(last)")
        case .notStarted(let reason): faults.append("the check could not be started: \(reason)")
        }
        verdict(part.title + (injected.map { " (\($0))" } ?? ""), faults, warnings)
        return faults.isEmpty ? calls : nil
    }

    private func verdict(_ title: String, _ faults: [String], _ warnings: [String]) {
        if faults.isEmpty { passed += 1 } else { failed += 1 }
        print("\(faults.isEmpty ? "PASS" : "FAIL")  \(title)")
        for fault in faults { print("      \(fault)") }
        for warning in warnings { print("      warning: \(warning)") }
        fflush(nil)
    }
}

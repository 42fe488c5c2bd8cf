/// One option of a command line.
public struct Flag: Sendable {
    /// Without the leading dashes.
    public let name: String
    /// What the value stands for in the usage text (`URL`, `N`); `nil` for a switch that takes none.
    public let value: String?
    public let isRepeated: Bool
    public let summary: String
    /// One-letter form, `-o` for `o`.
    public let letter: Character?

    public static func option(
        _ name: String, _ value: String, _ summary: String, letter: Character? = nil, repeated: Bool = false
    ) -> Flag {
        Flag(name: name, value: value, isRepeated: repeated, summary: summary, letter: letter)
    }

    public static func toggle(_ name: String, _ summary: String, letter: Character? = nil) -> Flag {
        Flag(name: name, value: nil, isRepeated: false, summary: summary, letter: letter)
    }
}

/// A command line that cannot be understood; `detail` is one sentence for people.
public struct FlagError: Error, Sendable, Equatable, CustomStringConvertible {
    public let detail: String
    public init(_ detail: String) { self.detail = detail }
    public var description: String { detail }
}

/// A parsed command line: `--name value`, `--name=value`, `-n value`, switches, plain words, and everything after `--`.
public struct Flags: Sendable {
    /// Words that belong to no flag, in order.
    public let words: [String]
    /// What stands after `--`; `nil` when there was none.
    public let rest: [String]?
    private let values: [String: [String]]

    /// - Parameter stopsAtFirstWord: leaves everything from the first plain word on in `words`, unparsed: for a program whose
    ///   first word chooses a command with flags of its own.
    public init(
        parsing arguments: [String], allowed: [Flag], stopsAtFirstWord: Bool = false
    ) throws(FlagError) {
        var words: [String] = []
        var rest: [String]?
        var values: [String: [String]] = [:]
        var index = 0
        while index < arguments.count {
            let argument = arguments[index]
            index += 1
            if argument == "--" {
                rest = Array(arguments[index...])
                break
            }
            guard argument.hasPrefix("-"), argument.utf8.count > 1 else {
                words.append(argument)
                if stopsAtFirstWord {
                    words += arguments[index...]
                    break
                }
                continue
            }
            let (flag, attached) = try Self.find(argument, allowed)
            let shown = "--" + flag.name
            if values[flag.name] != nil, !flag.isRepeated { throw FlagError("\(shown) is given twice") }
            guard let placeholder = flag.value else {
                guard attached == nil else { throw FlagError("\(shown) takes no value, found \(argument)") }
                values[flag.name] = [""]
                continue
            }
            if let attached {
                values[flag.name, default: []].append(attached)
            } else {
                guard index < arguments.count, arguments[index] != "--" else {
                    throw FlagError("\(shown) needs a value: \(shown) \(placeholder)")
                }
                values[flag.name, default: []].append(arguments[index])
                index += 1
            }
        }
        self.words = words
        self.rest = rest
        self.values = values
    }

    private static func find(_ argument: String, _ allowed: [Flag]) throws(FlagError) -> (Flag, String?) {
        if argument.hasPrefix("--") {
            let parts = argument.dropFirst(2).split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            let name = String(parts[0])
            guard let flag = allowed.first(where: { $0.name == name }) else {
                let near = nearest(to: name, among: allowed.map(\.name))
                throw FlagError("unknown flag --\(name)" + (near.map { "; did you mean --\($0)?" } ?? ""))
            }
            return (flag, parts.count > 1 ? String(parts[1]) : nil)
        }
        let letters = argument.dropFirst()
        guard let letter = letters.first, let flag = allowed.first(where: { $0.letter == letter }) else {
            throw FlagError("unknown flag \(argument)")
        }
        return (flag, letters.count > 1 ? String(letters.dropFirst()) : nil)
    }

    public func has(_ name: String) -> Bool { values[name] != nil }
    /// The value of a flag that may stand once.
    public func value(_ name: String) -> String? { values[name]?.last }
    public func values(_ name: String) -> [String] { values[name] ?? [] }

    /// The value as a whole number within bounds; `nil` when the flag is absent.
    public func integer(_ name: String, in range: ClosedRange<Int>) throws(FlagError) -> Int? {
        guard let text = value(name) else { return nil }
        guard let number = Int(text), range.contains(number) else {
            throw FlagError("--\(name) \(text): expected a whole number from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    /// The lines of a usage text, aligned.
    public static func help(_ flags: [Flag]) -> String {
        let heads = flags.map { flag in
            (flag.letter.map { "-\($0), " } ?? "") + "--" + flag.name + (flag.value.map { " " + $0 } ?? "")
        }
        let width = heads.map(\.count).max() ?? 0
        return zip(flags, heads).map { flag, head in
            "  " + head + String(repeating: " ", count: width - head.count + 2) + flag.summary
        }.joined(separator: "\n")
    }
}

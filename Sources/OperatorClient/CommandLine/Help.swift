import Program

/// Usage texts, all made from the table of verbs.
enum Help {
    static let globalFlags: [Flag] =
        ServerChoice.flags + [
            .option("output", "table|json", "How to show answers; table by default.", letter: "o"),
            .option("limit", "N", "Most items that a list shows; 1000 by default."),
            .toggle("help", "What a verb does and takes.", letter: "h"),
        ]

    static func overview(_ verbs: [Verb]) -> String {
        var text = "Usage: cmctl VERB … [flags]\n\nVerbs:\n"
        let width = verbs.map(\.name.count).max() ?? 0
        for verb in verbs {
            text += "  " + verb.name + String(repeating: " ", count: width - verb.name.count + 2) + verb.summary + "\n"
        }
        text += "\nFlags of every verb:\n" + Flags.help(globalFlags)
        text += "\n\nExit status: 0 all well, 1 the remote side failed, 2 usage, 3 refused, 4 unreachable."
        text += "\n'cmctl VERB --help' tells more about a verb."
        return text
    }

    static func verb(_ verb: Verb) -> String {
        var text = "Usage: \(verb.usage)\n\n\(verb.summary)\n"
        if !verb.flags.isEmpty { text += "\nFlags:\n" + Flags.help(verb.flags.map(\.flag)) + "\n" }
        if case .call(let method, let path, _) = verb.action {
            text += "\nCalls \(method) \(path)."
            if verb.mayHaveData { text += " --data JSON|@FILE|- gives members of the request that have no flag." }
            text += "\n"
        }
        text += "\nFlags of every verb:\n" + Flags.help(globalFlags)
        return text
    }

    /// Several verbs that begin with the same words.
    static func group(_ prefix: String, _ verbs: [Verb]) -> String {
        let width = verbs.map(\.usage.count).max() ?? 0
        return "Verbs of '\(prefix)':\n"
            + verbs.map { "  " + $0.usage + String(repeating: " ", count: width - $0.usage.count + 2) + $0.summary }
            .joined(separator: "\n")
    }
}

extension Verb {
    /// Rows with a body take `--data`.
    var mayHaveData: Bool {
        guard case .call(let method, _, _) = action else { return false }
        return method != "GET" && method != "DELETE"
    }

    var allFlags: [Flag] {
        let data: [Flag] = mayHaveData ? [.option("data", "JSON|@FILE|-", "Members of the request body.")] : []
        return flags.map(\.flag) + data
    }
}

import Program

/// Completion: the shells' scripts are three lines each and ask `cmctl complete`, which knows the table.
enum Completions {
    /// Candidates for the last of `words`, each with a description.
    static func candidates(_ words: [String], _ verbs: [Verb]) -> [(word: String, summary: String)] {
        let current = words.last ?? ""
        let before = words.dropLast().filter { !$0.hasPrefix("-") }
        if words.dropLast().contains("--") { return [] }
        if current.hasPrefix("-") {
            let verb = match(Array(before), verbs)
            let flags = (verb?.allFlags ?? []) + Help.globalFlags
            return flags.map { ("--" + $0.name, $0.summary) }.filter { $0.0.hasPrefix(current) }
        }
        var seen: Set<String> = []
        return verbs.compactMap { verb in
            let names = verb.words
            guard names.count > before.count, names.prefix(before.count).elementsEqual(before) else { return nil }
            let word = names[before.count]
            guard word.hasPrefix(current), seen.insert(word).inserted else { return nil }
            return (word, names.count == before.count + 1 ? verb.summary : "…")
        }
    }

    /// The verb that the words begin with, the longest first.
    static func match(_ words: [String], _ verbs: [Verb]) -> Verb? {
        verbs.filter { words.starts(with: $0.words) }.max { $0.words.count < $1.words.count }
    }

    static func script(for shell: String) -> String? {
        switch shell {
        case "bash":
            """
            _cmctl() {
                local IFS=$'\\n'
                COMPREPLY=($(cmctl complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null | cut -f1))
            }
            complete -o default -F _cmctl cmctl
            """
        case "zsh":
            """
            #compdef cmctl
            _cmctl() {
                local -a found
                found=("${(@f)$(cmctl complete -- "${(@)words[2,CURRENT]}" 2>/dev/null | sed 's/:/\\\\:/g; s/\\t/:/')}")
                _describe cmctl found || _files
            }
            compdef _cmctl cmctl
            """
        case "fish":
            """
            complete -c cmctl -f -a '(cmctl complete -- (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'
            """
        default: nil
        }
    }
}

/// Words for a POSIX shell.
enum Shell {
    /// One word, whatever is in it: inside single quotes nothing is special but the quote itself.
    static func quoted(_ text: String) -> String {
        "'" + text.split(separator: "'", omittingEmptySubsequences: false).joined(separator: "'\\''") + "'"
    }

    static func command(_ words: [String]) -> String { words.map(quoted).joined(separator: " ") }
}

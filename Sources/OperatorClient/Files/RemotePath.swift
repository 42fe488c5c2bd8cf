import JSON

/// `CLIENT:PATH` on a command line: a client (an id, or a selector that finds it) and an absolute path there. A word without
/// `:/`, or with a slash before it, is a local path.
struct RemotePath: Equatable {
    var selector: String
    var path: String

    init(selector: String, path: String) {
        self.selector = selector
        self.path = path
    }

    /// `nil`: a local path.
    init?(_ word: String) {
        guard let colon = Self.colon(in: word) else { return nil }
        selector = String(word[..<colon])
        path = String(word[word.index(after: colon)...])
    }

    private static func colon(in word: String) -> String.Index? {
        var index = word.startIndex
        while index < word.endIndex, word[index] != "/" {
            let next = word.index(after: index)
            if word[index] == ":", index != word.startIndex, next < word.endIndex, word[next] == "/" { return index }
            index = next
        }
        return nil
    }

    /// Where a word has to be remote.
    static func required(_ word: String) throws(OperatorError) -> RemotePath {
        guard let remote = RemotePath(word) else {
            throw .usage("'\(word)' is no CLIENT:PATH", advice: "Such as 01J9Z3K5X6Q7R8S9T0V1W2X3Y4:/etc/hosts or name=web1:/etc/hosts.")
        }
        return remote
    }

    var endsInSlash: Bool { path.hasSuffix("/") }

    /// Without a slash at the end, but for the root.
    var trimmed: String {
        var text = path
        while text.utf8.count > 1, text.hasSuffix("/") { text.removeLast() }
        return text
    }

    static func joined(_ directory: String, _ name: String) -> String {
        directory.hasSuffix("/") ? directory + name : directory + "/" + name
    }
}

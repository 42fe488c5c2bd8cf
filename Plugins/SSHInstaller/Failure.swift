/// Why something did not work: a stable code for machines (Docs/errors.md) and a sentence for people. Never a secret.
struct Failure: Error, Sendable, Equatable {
    var code: String
    var text: String

    init(_ code: String, _ text: String) {
        self.code = code
        self.text = text
    }

    static let cancelled = Failure("cancelled", "it was cancelled")
}

extension String {
    /// At most so many bytes, cut between two characters.
    func prefixed(_ bytes: Int) -> String {
        var text = self
        while text.utf8.count > bytes { text = String(text.prefix(max(0, text.count - 1 - (text.utf8.count - bytes) / 4))) }
        return text
    }
}

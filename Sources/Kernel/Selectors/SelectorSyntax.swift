/// The words of selectors and the form of label keys and values, in one place, so that what can be stored can also be
/// selected.
public enum SelectorSyntax {
    /// Bytes of a selector's text.
    public static let maximumLength = 8_192
    /// Nested parentheses and negations.
    public static let maximumDepth = 32
    /// Conditions, counting each value of a list.
    public static let maximumTerms = 512
    /// Bytes of a label key.
    public static let maximumKeyLength = 63
    /// Bytes of a label value.
    public static let maximumValueLength = 255
    /// Bytes of a fact's path.
    public static let maximumFactPathLength = 255

    /// Words that have a meaning of their own and are therefore no label keys.
    public static let reservedWords: Set<String> = [
        "all", "and", "or", "not", "in", "notin", "state", "group", "name", "id", "fact", "label",
    ]

    /// `nil`, or what is wrong with the key.
    ///
    /// A key begins with a lower-case letter: a client id begins with a digit, so neither can be taken for the other.
    public static func fault(ofLabelKey key: String) -> String? {
        let bytes = key.utf8
        guard !bytes.isEmpty, bytes.count <= maximumKeyLength else {
            return "a label key has 1 to \(maximumKeyLength) bytes, '\(key.prefix(80))' has \(bytes.count)"
        }
        guard let first = bytes.first, isLower(first) else {
            return "a label key begins with a lower-case letter, '\(key)' does not"
        }
        for byte in bytes where !isKeyByte(byte) {
            return "a label key has only a-z, 0-9, '.', '_', '-' and '/', '\(key)' has something else"
        }
        if reservedWords.contains(key) || key.hasPrefix("fact.") || key.hasPrefix("label.") {
            return "'\(key)' has a meaning of its own in selectors and is no label key"
        }
        return nil
    }

    /// `nil`, or what is wrong with the value.
    public static func fault(ofLabelValue value: String) -> String? {
        guard value.utf8.count <= maximumValueLength else {
            return "a label value has at most \(maximumValueLength) bytes, this one has \(value.utf8.count)"
        }
        for byte in value.utf8 where byte < 0x20 || byte == 0x7F {
            return "a label value has no control characters"
        }
        return nil
    }

    /// Whether a bare word ends before this byte: spaces, control characters and operators.
    static func endsWord(_ byte: UInt8) -> Bool {
        switch byte {
        case 0...0x20, 0x7F: true
        case 0x21, 0x22, 0x28, 0x29, 0x2C, 0x3C, 0x3D, 0x3E: true  // ! " ( ) , < = >
        default: false
        }
    }

    static func isLower(_ byte: UInt8) -> Bool { byte >= 0x61 && byte <= 0x7A }
    static func isDigit(_ byte: UInt8) -> Bool { byte >= 0x30 && byte <= 0x39 }
    /// a-z 0-9 . _ - /
    static func isKeyByte(_ byte: UInt8) -> Bool {
        isLower(byte) || isDigit(byte) || byte == 0x2E || byte == 0x5F || byte == 0x2D || byte == 0x2F
    }
}

/// Where a client stands.
public enum ClientState: String, Sendable, CaseIterable {
    /// Its link is up and beats.
    case online
    /// Its link is up but a heartbeat is overdue.
    case stale
    /// No link.
    case offline
    /// Shut out by an operator; no link is accepted.
    case revoked
}

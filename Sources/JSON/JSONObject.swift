/// Members in the order of the text. Keys are unique.
public struct JSONObject: Sendable {
    public struct Member: Sendable, Equatable {
        public let key: String
        public var value: JSONValue
    }

    private var members: [Member] = []
    /// Position by key, kept only above `indexedFrom` members: below that a walk is faster and smaller.
    private var index: [String: Int]?
    private static let indexedFrom = 16

    public init() {}

    /// A later pair with the same key replaces the earlier value.
    public init(_ pairs: some Sequence<(String, JSONValue)>) {
        for (key, value) in pairs { self[key] = value }
    }

    /// `nil` when absent; assigning `nil` removes the member (use `.null` for a JSON null).
    public subscript(key: String) -> JSONValue? {
        get { position(of: key).map { members[$0].value } }
        set {
            switch (position(of: key), newValue) {
            case (let position?, let value?): members[position].value = value
            case (let position?, nil):
                members.remove(at: position)
                index = nil
                indexIfLarge()
            case (nil, let value?): appendNew(key, value)
            case (nil, nil): break
            }
        }
    }

    public var keys: [String] { members.map(\.key) }

    private func position(of key: String) -> Int? {
        if let index { return index[key] }
        return members.firstIndex { $0.key == key }
    }

    /// The caller knows that `key` is not there yet.
    mutating func appendNew(_ key: String, _ value: JSONValue) {
        members.append(Member(key: key, value: value))
        if index != nil { index?[key] = members.count - 1 } else { indexIfLarge() }
    }

    private mutating func indexIfLarge() {
        guard index == nil, members.count >= Self.indexedFrom else { return }
        index = Dictionary(uniqueKeysWithValues: members.enumerated().map { ($1.key, $0) })
    }
}

extension JSONObject: Equatable {
    /// Order does not matter (RFC 8259 §4: an object is unordered).
    public static func == (left: JSONObject, right: JSONObject) -> Bool {
        left.count == right.count && left.allSatisfy { right[$0.key] == $0.value }
    }
}

extension JSONObject: RandomAccessCollection {
    public var startIndex: Int { 0 }
    public var endIndex: Int { members.count }
    public subscript(position: Int) -> Member { members[position] }
}

extension JSONObject: ExpressibleByDictionaryLiteral {
    public init(dictionaryLiteral elements: (String, JSONValue)...) { self.init(elements) }
}

/// Where objects of any size are kept outside of this machine. The kernel knows no store: what offers one comes and goes while the
/// core runs (a plugin that is dropped in later, replaced, or taken away), and nothing of the core may depend on it.
public protocol ObjectStore: Sendable {
    /// False: nobody offers a store now. Whoever wants one waits and looks again.
    var isThere: Bool { get }

    /// Begins an object that is written as it comes into being. Nothing is to be seen under the key before `end` has returned, and
    /// what stood there before stays until then.
    func begin(_ remote: String, _ key: String, contentType: String) async throws(ObjectStoreError) -> any ObjectWriter

    /// The size of an object, as the store says it.
    func size(_ remote: String, _ key: String) async throws(ObjectStoreError) -> UInt64
}

/// An object in the making. It is ended or aborted, once; after an error of `write` it is aborted.
public protocol ObjectWriter: Sendable {
    /// Returns when the piece, of any size, was taken.
    func write(_ piece: [UInt8]) async throws(ObjectStoreError)

    /// Returns when the store has said that the whole object is there.
    func end() async throws(ObjectStoreError)

    /// Nothing of it is kept.
    func abort() async
}

/// Why an act on an object store failed.
public struct ObjectStoreError: Error, Sendable, Equatable {
    public enum Kind: Sendable {
        /// Nobody offers a store, or it went away meanwhile.
        case absent
        /// The store answered no, or not at all.
        case failed
    }
    public var kind: Kind
    /// For machines: `object-store-…` (Docs/errors.md), or what the store's plugin calls it, such as `cloud-denied`.
    public var code: String
    /// For people, with the store's own words.
    public var text: String

    public init(_ code: String, _ text: String, kind: Kind = .failed) {
        self.kind = kind
        self.code = code
        self.text = text
    }

    public static let absent = ObjectStoreError(
        "object-store-absent", "no plugin offers an object store now", kind: .absent)
}

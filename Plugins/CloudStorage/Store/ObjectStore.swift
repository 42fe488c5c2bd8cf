import JSON

/// One object as a listing or a look at it shows it.
struct ObjectInfo: Sendable {
    var key: String
    var size: Int64 = 0
    var modifiedMilliseconds: UInt64 = 0
    var etag = ""
    var contentType = ""
    var metadata: [(name: String, value: String)] = []
    /// What the store says that its content hashes to, in lower-case hex.
    var md5: String?
    var sha256: String?
    /// Set by us when an object goes up in parts: with it the store's value over the parts can be computed again.
    var partBytes: Int64?
    var isFolder = false

    var json: JSONValue {
        var json: JSONObject = [
            "key": .string(key), "size": .integer(size), "modified_ms": .integer(Int64(clamping: modifiedMilliseconds)), "etag": .string(etag),
        ]
        if !contentType.isEmpty { json["content_type"] = .string(contentType) }
        if !metadata.isEmpty { json["metadata"] = .object(JSONObject(metadata.map { ($0.name, .string($0.value)) })) }
        if let md5 { json["md5"] = .string(md5) }
        if let sha256 { json["sha256"] = .string(sha256) }
        return .object(json)
    }
}

struct Listing: Sendable {
    var objects: [ObjectInfo] = []
    /// Names that go on after the delimiter: folders.
    var prefixes: [String] = []
    var next: String?
}

/// What goes with an object.
struct ObjectOptions: Sendable {
    var contentType: String?
    /// Names in lower case.
    var metadata: [(name: String, value: String)] = []
    var tags: [(name: String, value: String)] = []
}

/// How it was made sure that the store has what was sent.
enum Proof: String, Sendable {
    case md5, sha256
    /// The store tells no hash: its size was compared.
    case size
}

struct Stored: Sendable {
    var size: Int64
    var etag: String
    var sha256: String
    var proof: Proof
    var parts = 1

    var json: JSONObject {
        [
            "size": .integer(size), "etag": .string(etag), "sha256": .string(sha256), "verified": .string(proof.rawValue),
            "parts": .integer(Int64(parts)),
        ]
    }
}

/// Bytes that come one after the other; read on the thread that uploads.
protocol ByteSource: AnyObject {
    /// Of the whole, where it is known.
    var length: Int64? { get }
    /// Appends up to `limit` bytes to `buffer`: as many as there are, unless the end comes first. False: that was the end.
    func read(_ limit: Int, into buffer: inout [UInt8]) throws(CloudError) -> Bool
}

/// Takes an object as it comes.
protocol ByteSink: AnyObject {
    /// Called once, before the first piece, with what is known of the object and the bytes that will come.
    func begin(_ info: ObjectInfo, range: ClosedRange<Int64>?) throws(CloudError)
    /// May block; throwing ends the download.
    func write(_ bytes: UnsafeRawBufferPointer) throws(CloudError)
}

extension ByteSink {
    func write(_ bytes: [UInt8]) throws(CloudError) {
        let result: Result<Void, CloudError> = bytes.withUnsafeBytes { memory in
            do throws(CloudError) {
                return .success(try write(memory))
            } catch {
                return .failure(error)
            }
        }
        try result.get()
    }
}

/// The same, able to begin anywhere: what was sent in an earlier attempt is not read again.
protocol SeekableSource: ByteSource {
    func seek(_ offset: Int64)
}

/// An upload in parts that was begun: kept, so that a later attempt goes on with it.
struct PartialUpload: Sendable, Equatable {
    var id: String
    var partBytes: Int
}

/// What a store has of uploads in parts for one key, whoever began them.
struct OpenUploads: Sendable, Equatable {
    /// With the store's time of their beginning.
    var begun: [String: UInt64] = [:]
    /// The store's time when it said so.
    var now: UInt64
}

/// Durable word of an upload in parts, on the thread that writes. What throws ends the work.
protocol UploadLedger: AnyObject {
    /// One will be begun now; these are there already.
    func willBegin(_ others: OpenUploads?) throws(CloudError)
    func keep(_ mark: PartsMark) throws(CloudError)
    /// For people: where it goes on, or why it begins anew.
    func note(_ text: String)
}

struct BatchFault: Sendable {
    let key: String
    let code: String
    let message: String
}

/// A store of objects under keys. Calls block; each may be called from any thread.
protocol ObjectStore: Sendable {
    var remote: Remote { get }
    func list(prefix: String, delimiter: Bool, cursor: String?, limit: Int, _ cancellation: Cancellation) throws(CloudError) -> Listing
    func look(_ key: String, _ cancellation: Cancellation) throws(CloudError) -> ObjectInfo
    /// The object, or a part of it, verified where that is possible. A dropped connection is taken up where it was.
    func read(_ key: String, range: ByteRange?, into sink: any ByteSink, _ cancellation: Cancellation) throws(CloudError) -> ReadProof
    /// `resume`: an upload in parts that was begun before and goes on at `offset`. `began` hears of one that begins.
    func write(
        _ key: String, _ source: any ByteSource, _ options: ObjectOptions, resume: (upload: PartialUpload, offset: Int64)?,
        began: (PartialUpload) throws(CloudError) -> Void, _ cancellation: Cancellation
    ) throws(CloudError) -> Stored
    /// The same for work that may be interrupted at any time. The ledger hears of each step; an attempt after this one gives what
    /// was kept last as `mark`, and goes on from there where the store has kept its side. What fails leaves the upload as it is:
    /// the caller knows whether somebody comes back for it.
    func write(
        _ key: String, _ source: any SeekableSource, from mark: PartsMark?, _ ledger: any UploadLedger, _ cancellation: Cancellation
    ) throws(CloudError) -> Stored
    /// Uploads in parts of that key that have begun and not ended. `nil`: the store does not tell.
    func openUploads(_ key: String, _ cancellation: Cancellation) throws(CloudError) -> OpenUploads?
    /// Inside the store; `began` hears of an upload in parts that begins, as in `write`.
    func copy(
        _ from: String, _ to: String, _ options: ObjectOptions?, began: (PartialUpload) throws(CloudError) -> Void, _ cancellation: Cancellation
    ) throws(CloudError)
    func move(
        _ from: String, _ to: String, began: (PartialUpload) throws(CloudError) -> Void, _ cancellation: Cancellation
    ) throws(CloudError)
    func remove(_ key: String, _ cancellation: Cancellation) throws(CloudError)
    func remove(_ keys: [String], _ cancellation: Cancellation) throws(CloudError) -> [BatchFault]
    func makeFolder(_ key: String, _ cancellation: Cancellation) throws(CloudError)
    func tags(_ key: String, _ cancellation: Cancellation) throws(CloudError) -> [(name: String, value: String)]
    func setTags(_ key: String, _ tags: [(name: String, value: String)], _ cancellation: Cancellation) throws(CloudError)
    func presign(_ key: String, method: String, seconds: Int) throws(CloudError) -> String
    /// Where an upload in parts stands: bytes that need not be sent again, from the beginning. `nil`: it is not there any more.
    func uploaded(_ key: String, _ upload: PartialUpload, _ cancellation: Cancellation) throws(CloudError) -> Int64?
    func abandon(_ key: String, _ upload: PartialUpload, _ cancellation: Cancellation) throws(CloudError)
}

/// As in `Range: bytes=…` with one range.
enum ByteRange: Sendable, Equatable {
    case from(Int64)
    case between(Int64, Int64)
    case last(Int64)

    /// `nil`: no range that we know.
    init?(header: String) {
        guard header.hasPrefix("bytes=") else { return nil }
        let parts = header.dropFirst(6).split(separator: "-", maxSplits: 1, omittingEmptySubsequences: false)
        guard parts.count == 2 else { return nil }
        let (first, last) = (Int64(parts[0]), Int64(parts[1]))
        if parts[0].isEmpty, let last, last > 0 {
            self = .last(last)
        } else if parts[1].isEmpty, let first, first >= 0 {
            self = .from(first)
        } else if let first, let last, first >= 0, last >= first {
            self = .between(first, last)
        } else {
            return nil
        }
    }

    /// Within an object of that size; `nil`: nothing of it.
    func bounds(_ size: Int64) -> ClosedRange<Int64>? {
        switch self {
        case .from(let first): first < size ? first...(size - 1) : nil
        case .between(let first, let last): first < size ? first...min(last, size - 1) : nil
        case .last(let count): size > 0 ? max(0, size - count)...(size - 1) : nil
        }
    }
}

/// What a download was compared with.
enum ReadProof: String, Sendable {
    case md5, sha256
    /// A part of an object, or one whose store tells no hash that we can compute.
    case none
}

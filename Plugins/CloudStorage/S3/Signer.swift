/// AWS Signature Version 4 for S3, in the header, in a URL, and chunk by chunk
/// (https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-authenticating-requests.html). Pure: time comes in.
struct Signer: Sendable {
    static let emptyHash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    static let unsigned = "UNSIGNED-PAYLOAD"
    static let streaming = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"

    let accessKey: String
    let secretKey: String
    let sessionToken: String?
    let region: String

    /// What is signed. `path` is percent-encoded, once, with its slashes; header names are in lower case.
    struct Subject {
        var method: String
        var host: String
        var path: String
        var query: [(name: String, value: String)] = []
        var headers: [(name: String, value: String)] = []
    }

    private func scope(_ time: String) -> String { "\(time.prefix(8))/\(region)/s3/aws4_request" }

    private func key(_ time: String) -> [UInt8] {
        var key = Digest.hmac(key: Array("AWS4\(secretKey)".utf8), String(time.prefix(8)))
        for word in [region, "s3", "aws4_request"] { key = Digest.hmac(key: key, word) }
        return key
    }

    /// The query as it is signed and sent: encoded pairs in order.
    static func canonical(_ query: [(name: String, value: String)]) -> String {
        query.map { (Text.encoded($0.name), Text.encoded($0.value)) }
            .sorted { $0.0 == $1.0 ? $0.1.utf8.lexicographicallyPrecedes($1.1.utf8) : $0.0.utf8.lexicographicallyPrecedes($1.0.utf8) }
            .map { "\($0.0)=\($0.1)" }.joined(separator: "&")
    }

    private func signature(_ subject: Subject, _ names: String, _ headers: [(name: String, value: String)], _ hash: String, _ time: String) -> String {
        var canonical = "\(subject.method)\n\(subject.path)\n\(Self.canonical(subject.query))\n"
        for header in headers { canonical += "\(header.name):\(Self.folded(header.value))\n" }
        canonical += "\n\(names)\n\(hash)"
        let digest = Text.hex(Digest.of(Array(canonical.utf8), .sha256))
        return Text.hex(Digest.hmac(key: key(time), "AWS4-HMAC-SHA256\n\(time)\n\(scope(time))\n\(digest)"))
    }

    /// Runs of spaces count as one.
    private static func folded(_ value: String) -> String { value.split(separator: " ").joined(separator: " ") }

    /// Headers to be sent besides those of `subject`, all of which are signed. The signature itself seeds those of chunks.
    func sign(_ subject: Subject, payload hash: String, at time: String) -> (headers: [(name: String, value: String)], signature: String) {
        var added = [(name: "x-amz-content-sha256", value: hash), (name: "x-amz-date", value: time)]
        if let sessionToken { added.append((name: "x-amz-security-token", value: sessionToken)) }
        let signed = (subject.headers + added + [(name: "host", value: subject.host)]).sorted { $0.name.utf8.lexicographicallyPrecedes($1.name.utf8) }
        let names = signed.map(\.name).joined(separator: ";")
        let signature = signature(subject, names, signed, hash, time)
        added.append((
            name: "authorization",
            value: "AWS4-HMAC-SHA256 Credential=\(accessKey)/\(scope(time)), SignedHeaders=\(names), Signature=\(signature)"))
        return (added, signature)
    }

    /// The query of a URL that works for `seconds` without credentials. Only the host is signed.
    func presign(_ subject: Subject, seconds: Int, at time: String) -> String {
        var subject = subject
        subject.query += [
            (name: "X-Amz-Algorithm", value: "AWS4-HMAC-SHA256"), (name: "X-Amz-Credential", value: "\(accessKey)/\(scope(time))"),
            (name: "X-Amz-Date", value: time), (name: "X-Amz-Expires", value: String(seconds)), (name: "X-Amz-SignedHeaders", value: "host"),
        ]
        if let sessionToken { subject.query.append((name: "X-Amz-Security-Token", value: sessionToken)) }
        let signature = signature(subject, "host", [(name: "host", value: subject.host)], Self.unsigned, time)
        return Self.canonical(subject.query) + "&X-Amz-Signature=\(signature)"
    }

    /// The signature of one chunk of a streamed payload.
    fileprivate func chunk(_ bytes: UnsafeRawBufferPointer, after previous: String, key: [UInt8], at time: String) -> String {
        let hash = Text.hex(Digest.of(bytes, .sha256))
        return Text.hex(
            Digest.hmac(key: key, "AWS4-HMAC-SHA256-PAYLOAD\n\(time)\n\(scope(time))\n\(previous)\n\(Self.emptyHash)\n\(hash)"))
    }

    fileprivate func chunkKey(_ time: String) -> [UInt8] { key(time) }
}

/// A payload in signed chunks (`aws-chunked`): each is hashed as it leaves, so the payload is read once, and a store that stops
/// in the middle has seen nothing unsigned.
final class ChunkedBody: WebBody {
    static let chunk = 64 << 10

    private let bytes: [UInt8]
    private let signer: Signer
    private let seed: String
    private let key: [UInt8]
    private let time: String
    private var previous: String
    private var position = 0
    private var isOver = false
    private var frame: [UInt8] = []
    private var sent = 0

    init(_ bytes: [UInt8], _ signer: Signer, seed: String, at time: String) {
        self.bytes = bytes
        self.signer = signer
        self.seed = seed
        self.time = time
        key = signer.chunkKey(time)
        previous = seed
    }

    var length: Int64? { Self.encodedLength(bytes.count) }

    /// Known before the seed is, because the length is signed.
    static func encodedLength(_ bytes: Int) -> Int64 {
        func frame(_ size: Int) -> Int { String(size, radix: 16).utf8.count + ";chunk-signature=".utf8.count + 64 + 2 + size + 2 }
        let rest = bytes % chunk
        return Int64(bytes / chunk * frame(chunk) + (rest > 0 ? frame(rest) : 0) + frame(0))
    }

    func read(into room: UnsafeMutableRawBufferPointer) -> Int? {
        if sent == frame.count {
            guard !isOver else { return 0 }
            next()
        }
        let count = min(room.count, frame.count - sent)
        frame.withUnsafeBytes { room.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[sent..<sent + count])) }
        sent += count
        return count
    }

    private func next() {
        let size = min(Self.chunk, bytes.count - position)
        frame.removeAll(keepingCapacity: true)
        bytes.withUnsafeBytes { whole in
            let piece = UnsafeRawBufferPointer(rebasing: whole[position..<position + size])
            previous = signer.chunk(piece, after: previous, key: key, at: time)
            frame += Array("\(String(size, radix: 16));chunk-signature=\(previous)\r\n".utf8)
            frame.append(contentsOf: piece)
        }
        frame += [13, 10]
        position += size
        sent = 0
        isOver = size == 0
    }

    func rewind() -> Bool {
        previous = seed
        position = 0
        isOver = false
        frame = []
        sent = 0
        return true
    }
}

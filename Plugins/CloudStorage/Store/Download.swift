/// An object, or a part of one, on its way from a store into a sink: goes on after a dropped connection, and lets the last piece
/// go only when the whole is verified. Confined to the thread that downloads.
final class Download {
    private let key: String
    private let sink: any ByteSink
    private let wanted: ByteRange?
    private var info: ObjectInfo?
    private var verifier: Verifier?
    /// Next byte of the object, and the one after the last.
    private(set) var position: Int64 = 0
    private var end: Int64?
    /// The last piece, until the hash is right.
    private var held: [UInt8] = []
    private var failure: CloudError?

    init(_ key: String, _ range: ByteRange?, _ sink: any ByteSink) {
        self.key = key
        self.sink = sink
        wanted = range
    }

    /// What to ask for now: headers of a request that begins, or that goes on.
    var headers: [(name: String, value: String)] {
        var headers: [(name: String, value: String)] = []
        if let info {
            headers.append((name: "range", value: "bytes=\(position)-\(end.map { String($0 - 1) } ?? "")"))
            if !info.etag.isEmpty { headers.append((name: "if-match", value: "\"\(info.etag)\"")) }
        } else if let wanted {
            switch wanted {
            case .from(let first): headers.append((name: "range", value: "bytes=\(first)-"))
            case .between(let first, let last): headers.append((name: "range", value: "bytes=\(first)-\(last)"))
            case .last(let count): headers.append((name: "range", value: "bytes=-\(count)"))
            }
        }
        return headers
    }

    /// - Parameter info: what the head of an answer says of the object.
    func sink(_ info: @escaping (WebResponse) -> ObjectInfo) -> WebSink {
        WebSink(
            begin: { [self] response in
                keep { () throws(CloudError) in try begin(response, info(response)) }
            },
            piece: { [self] bytes in
                keep { () throws(CloudError) in try take(bytes) }
            })
    }

    private func keep(_ body: () throws(CloudError) -> Void) -> Bool {
        do throws(CloudError) {
            try body()
            return true
        } catch {
            failure = error
            return false
        }
    }

    private func begin(_ response: WebResponse, _ seen: ObjectInfo) throws(CloudError) {
        var seen = seen
        let range = try Self.contentRange(response)
        if let range { seen.size = range.total }
        if let info {
            // It goes on: the same object, from the right place, or not at all.
            guard let range, range.first == position, seen.etag == info.etag, range.total == info.size else {
                throw CloudError(.answer, "the store did not go on with \"\(key)\" where it was broken off")
            }
            return
        }
        guard response.length != nil || range != nil else { throw CloudError(.answer, "the store does not say how large \"\(key)\" is") }
        guard let first = range?.first, let last = range?.last else {
            // A store may answer a wish for a part with the whole: then it is the whole that is passed on.
            try start(seen, nil)
            return
        }
        guard let asked = wanted, asked.bounds(seen.size) == first...last else {
            throw CloudError(.answer, "the store answered \"\(key)\" with bytes \(first) to \(last), which nobody asked for")
        }
        try start(seen, first...last)
    }

    private func start(_ seen: ObjectInfo, _ range: ClosedRange<Int64>?) throws(CloudError) {
        info = seen
        position = range?.lowerBound ?? 0
        end = (range?.upperBound ?? seen.size - 1) + 1
        let isWhole = range == nil || range == 0...max(0, seen.size - 1)
        verifier = Verifier(seen, isWhole: isWhole)
        try sink.begin(seen, range: range)
    }

    private func take(_ bytes: UnsafeRawBufferPointer) throws(CloudError) {
        guard let end, let verifier else { throw CloudError(.answer, "a body came before its head") }
        guard position + Int64(bytes.count) <= end else { throw CloudError(.answer, "the store sends more of \"\(key)\" than there is") }
        verifier.update(bytes)
        position += Int64(bytes.count)
        if position == end {
            held = [UInt8](bytes)
        } else {
            try sink.write(bytes)
        }
    }

    /// After an exchange that ended well.
    func finish() throws(CloudError) -> ReadProof {
        guard let end, let verifier, position == end else { throw CloudError(.dropped, "\"\(key)\" ended early") }
        try verifier.finish(key)
        if !held.isEmpty { try sink.write(held) }
        held = []
        return verifier.proof
    }

    /// Runs exchanges until all of it is there. Attempts count anew whenever something came.
    func run(attempts: Int, _ cancellation: Cancellation, _ exchange: (Download) throws(CloudError) -> Void) throws(CloudError) -> ReadProof {
        for _ in 0..<1_000 {
            let before = position
            var problem: CloudError?
            try Retry(attempts: attempts).run(cancellation) { (_) throws(CloudError) in
                do throws(CloudError) {
                    try exchange(self)
                } catch {
                    // What the sink or the judgement of the answer said counts for more than that the exchange was ended.
                    if let failure { throw failure }
                    guard error.isPassing, position > before else { throw error }
                    problem = error
                }
            }
            if problem == nil { return try finish() }
            if position == end { return try finish() }
        }
        throw CloudError(.dropped, "the connection ended a thousand times")
    }

    private static func contentRange(_ response: WebResponse) throws(CloudError) -> (first: Int64, last: Int64, total: Int64)? {
        // `rclone serve s3` says 200 and sends the part; the header tells what the bytes are.
        guard response.status == 206 || response.headers["content-range"] != nil else { return nil }
        let text = response.headers["content-range"] ?? ""
        let words = text.split { $0 == " " || $0 == "-" || $0 == "/" }
        guard words.count == 4, words[0] == "bytes", let first = Int64(words[1]), let last = Int64(words[2]), let total = Int64(words[3]),
            first >= 0, first <= last, last < total
        else { throw CloudError(.answer, "the store answered with the range \"\(S3Client.cut(text))\"") }
        return (first, last, total)
    }
}

import JSON
import PluginKit

/// Requests under work, so that the core's word about them (more body, room to write, gone) reaches the thread that works.
final class Dispatch: Sendable {
    let cloud: Cloud
    private let flows = Monitor<[UInt64: Flow]>([:])

    init(_ cloud: Cloud) { self.cloud = cloud }

    /// Registers the callbacks of a route; `request` parses and judges on the plugin's own thread and answers with the work that is
    /// left for another one.
    func add(_ route: Route, in pool: Pool, _ request: @escaping (Request, RawSpan) throws(CloudError) -> Work) throws(PluginError) {
        var route = route
        // Long enough for all attempts, so that the store's own word is the answer.
        if route.timeoutSeconds == nil { route.timeoutSeconds = pool === cloud.streams ? 3_600 : 180 }
        try cloud.host.http().route(route, configure: { handler in
            handler.body = { [self] request, piece, isLast in flows.update { $0[request.handle] }?.body.append([UInt8](piece), isLast) }
            handler.writable = { [self] request in flows.update { $0[request.handle] }?.becameWritable() }
            handler.gone = { [self] request in flows.update { $0.removeValue(forKey: request.handle) }?.left() }
        }) { [self] asked, body in
            do throws(CloudError) {
                try run(asked, try request(asked, body), in: pool)
            } catch {
                Self.answer(asked, error)
            }
        }
    }

    /// Work that blocks. Throws what is to be answered, as long as no answer has begun.
    typealias Work = @Sendable (_ flow: Flow) throws(CloudError) -> Void

    private func run(_ request: Request, _ work: @escaping Work, in pool: Pool) throws(CloudError) {
        let flow = Flow(request, under: cloud.stopping)
        flows.update { $0[request.handle] = flow }
        let isTaken = pool.submit { [self] in
            do throws(CloudError) {
                if !flow.cancellation.isCancelled { try work(flow) }
            } catch {
                if flow.hasBegun {
                    // The reader sees that it is not whole; why, the log says.
                    if error.kind != .cancelled { cloud.host.log.warning("answer.broken-off", ["code": .string(error.code), "reason": .string(error.detail)]) }
                    request.abort()
                } else {
                    Self.answer(request, error)
                }
            }
            flows.update { $0[request.handle] = nil }
        }
        guard !isTaken else { return }
        flows.update { $0[request.handle] = nil }
        throw CloudError(.busy, "the cloud plugin has too much to do; try again", retryAfter: 1)
    }

    static func answer(_ request: Request, _ error: CloudError) {
        var headers = [("content-type", "application/problem+json")]
        if error.kind == .busy { headers.append(("retry-after", String(min(error.retryAfter ?? 1, 60)))) }
        request.respond(error.httpStatus, headers: headers, body: JSONValue.object(error.problem).serialized())
    }
}

/// One request, as the thread that works on it sees it.
final class Flow: Sendable {
    let request: Request
    let cancellation: Cancellation
    let body = BodyQueue()
    private let state = Monitor((writable: 0, hasBegun: false))

    init(_ request: Request, under stopping: Cancellation) {
        self.request = request
        cancellation = Cancellation(under: stopping)
    }

    var hasBegun: Bool { state.update { $0.hasBegun } }
    fileprivate func becameWritable() { state.update { $0.writable += 1 } }
    fileprivate func left() {
        cancellation.cancel()
        body.leave()
    }

    func begin(_ status: Int, headers: [(String, String)], length: Int64) throws(CloudError) {
        state.update { $0.hasBegun = true }
        guard request.begin(status, headers: headers, length: length) else { throw CloudError(.cancelled, "nobody reads the answer any more") }
    }

    func write(_ bytes: UnsafeRawBufferPointer) throws(CloudError) {
        var start = 0
        while start < bytes.count {
            let count = min(bytes.count - start, 256 << 10)
            try write([UInt8](UnsafeRawBufferPointer(rebasing: bytes[start..<start + count])))
            start += count
        }
    }

    /// Up to 1 MiB. Waits as long as the reader takes.
    func write(_ piece: [UInt8]) throws(CloudError) {
        while true {
            let seen = state.update { $0.writable }
            switch request.write(piece) {
            case .taken: return
            case .gone: throw CloudError(.cancelled, "nobody reads the answer any more")
            case .busy:
                while state.wait(milliseconds: 250, { $0.writable > seen ? true : nil }) == nil {
                    if cancellation.isCancelled { throw CloudError(.cancelled, "nobody reads the answer any more") }
                }
            }
        }
    }
}

/// The body of a request between the plugin's own thread, where it comes in, and the one that reads it. Bounded by what the
/// reader asks the core for.
final class BodyQueue: Sendable {
    private struct Queue {
        var pieces: [[UInt8]] = []
        var next = 0
        var hasEnded = false
        var isGone = false
    }
    private let queue = Monitor(Queue())

    fileprivate func append(_ piece: [UInt8], _ isLast: Bool) {
        queue.update { queue in
            if !piece.isEmpty { queue.pieces.append(piece) }
            if isLast { queue.hasEnded = true }
        }
    }

    fileprivate func leave() { queue.update { $0.isGone = true } }

    /// The next piece; `nil` at the end.
    func take(_ cancellation: Cancellation) throws(CloudError) -> [UInt8]? {
        while !cancellation.isCancelled {
            let taken = queue.wait(milliseconds: 250) { queue -> [UInt8]?? in
                if queue.next < queue.pieces.count {
                    let piece = queue.pieces[queue.next]
                    queue.pieces[queue.next] = []
                    queue.next += 1
                    if queue.next == queue.pieces.count {
                        queue.pieces.removeAll(keepingCapacity: true)
                        queue.next = 0
                    }
                    return .some(piece)
                }
                return queue.hasEnded || queue.isGone ? .some(nil) : nil
            }
            guard let taken else { continue }
            if taken == nil, queue.update({ !$0.hasEnded }) { break }
            return taken
        }
        throw CloudError(.cancelled, "the body of the request broke off")
    }
}

/// The body of a request as what is uploaded.
final class RequestSource: ByteSource {
    private let flow: Flow
    private var rest: ArraySlice<UInt8> = []
    private var hasAsked = false
    private var isOver = false
    private var left: Int64?
    let length: Int64?
    private static let window: UInt64 = 4 << 20

    init(_ flow: Flow) {
        self.flow = flow
        length = flow.request.header("content-length").flatMap { Int64($0) }
        left = length
    }

    func read(_ limit: Int, into buffer: inout [UInt8]) throws(CloudError) -> Bool {
        if !hasAsked {
            hasAsked = true
            flow.request.more(Self.window)
            buffer.reserveCapacity(min(limit, Int(clamping: length ?? Int64(limit))))
        }
        var wanted = limit
        while wanted > 0, !isOver {
            if rest.isEmpty {
                guard let piece = try flow.body.take(flow.cancellation) else {
                    isOver = true
                    break
                }
                flow.request.more(UInt64(piece.count))
                rest = piece[...]
            }
            let count = min(wanted, rest.count)
            buffer += rest.prefix(count)
            rest = rest.dropFirst(count)
            wanted -= count
            if let before = left {
                left = before - Int64(count)
                // The last byte says that it is the last: nobody has to ask once more for the end.
                if before == Int64(count) { isOver = true }
            }
        }
        return !isOver
    }
}

/// An object on its way into an answer.
final class ResponseSink: ByteSink {
    private let flow: Flow

    init(_ flow: Flow) { self.flow = flow }

    func begin(_ info: ObjectInfo, range: ClosedRange<Int64>?) throws(CloudError) {
        var headers = [("content-type", Self.fit(info.contentType) ?? "application/octet-stream"), ("accept-ranges", "bytes")]
        if let etag = Self.fit(info.etag) { headers.append(("etag", "\"\(etag)\"")) }
        // Said before the content: what its last byte waits for.
        headers.append(("x-cloud-verify", Verifier(info, isWhole: range == nil).proof.rawValue))
        for (name, value) in info.metadata where Self.fit(value) != nil && Self.isName(name) { headers.append(("x-cloud-meta-" + name, value)) }
        if let range {
            headers.append(("content-range", "bytes \(range.lowerBound)-\(range.upperBound)/\(info.size)"))
            try flow.begin(206, headers: headers, length: range.upperBound - range.lowerBound + 1)
        } else {
            try flow.begin(200, headers: headers, length: info.size)
        }
    }

    func write(_ bytes: UnsafeRawBufferPointer) throws(CloudError) { try flow.write(bytes) }

    /// What a store says does not break a head.
    private static func fit(_ text: String) -> String? {
        !text.isEmpty && text.utf8.count <= 2_048 && text.utf8.allSatisfy { $0 >= 0x20 && $0 < 0x7F } ? text : nil
    }

    private static func isName(_ text: String) -> Bool {
        text.utf8.allSatisfy { (0x61...0x7A).contains($0) || (0x30...0x39).contains($0) || $0 == 0x2D || $0 == 0x5F }
    }
}

import CCloudLibrary

/// One exchange while libcurl is at it. Confined to the thread that performs it.
final class WebExchange {
    private let request: WebRequest
    private let cancellation: Cancellation
    private let sink: WebSink?
    private let stallMilliseconds: UInt64
    var response = WebResponse()
    /// Why a callback ended the exchange.
    private(set) var fault: CloudError?
    private var hasBegun = false
    private var headBytes = 0
    /// When a byte last moved; time that a callback took does not count.
    private var movedAt = monotonicMilliseconds()
    private var moved: (down: Int64, up: Int64) = (0, 0)

    init(_ request: WebRequest, _ options: WebOptions, _ cancellation: Cancellation, _ sink: WebSink?) {
        self.request = request
        self.cancellation = cancellation
        self.sink = sink
        stallMilliseconds = UInt64(options.stallSeconds) * 1_000
    }

    /// One line of the head. A new status line begins a new head: what came before was an interim answer.
    fileprivate func head(_ line: UnsafeRawBufferPointer) -> Bool {
        headBytes += line.count
        guard headBytes <= 128 << 10 else { return fail(CloudError(.answer, "the head of the answer has more than 128 KiB")) }
        let text = String(decoding: line, as: UTF8.self)
        if text.hasPrefix("HTTP/") {
            response = WebResponse()
            response.status = text.split(separator: " ").dropFirst().first.flatMap { Int($0.prefix(3)) } ?? 0
            hasBegun = false
            return true
        }
        guard let colon = text.firstIndex(of: ":") else { return true }
        let name = text[..<colon].lowercased()
        response.headers[name] = Text.trimmed(text[text.index(after: colon)...])
        return true
    }

    fileprivate func body(_ piece: UnsafeRawBufferPointer) -> Bool {
        defer { movedAt = monotonicMilliseconds() }
        if let sink, response.isSuccess {
            if !hasBegun {
                hasBegun = true
                guard sink.begin(response) else { return end() }
            }
            return sink.piece(piece) || end()
        }
        guard response.body.count + piece.count <= request.answerLimit else {
            return fail(CloudError(.answer, "the answer has more than \(request.answerLimit) bytes"))
        }
        response.body.append(contentsOf: piece)
        return true
    }

    /// A successful answer without a body begins as well.
    func finish() {
        guard let sink, response.isSuccess, !hasBegun else { return }
        hasBegun = true
        if !sink.begin(response) { _ = end() }
    }

    fileprivate func read(into room: UnsafeMutableRawBufferPointer) -> Int? {
        defer { movedAt = monotonicMilliseconds() }
        guard let count = request.body?.read(into: room) else {
            _ = end()
            return nil
        }
        return count
    }

    fileprivate func rewind() -> Bool { request.body?.rewind() ?? true }

    /// Called by libcurl once a second and more often; false ends the exchange.
    fileprivate func progress(down: Int64, up: Int64) -> Bool {
        if cancellation.isCancelled { return end() }
        if (down, up) != moved {
            moved = (down, up)
            movedAt = monotonicMilliseconds()
        } else if monotonicMilliseconds() - movedAt > stallMilliseconds {
            return fail(CloudError(.timeout, "no byte has moved for \(stallMilliseconds / 1_000) s"))
        }
        return true
    }

    private func fail(_ error: CloudError) -> Bool {
        if fault == nil { fault = error }
        return false
    }

    private func end() -> Bool { fail(CloudError(.cancelled, "the work was called off")) }
}

// libcurl's callbacks; the context is the exchange, which its caller keeps alive.

private func exchange(_ context: UnsafeMutableRawPointer?) -> WebExchange? {
    context.map { Unmanaged<WebExchange>.fromOpaque($0).takeUnretainedValue() }
}

func exchangeHead(_ data: UnsafeMutablePointer<CChar>?, _ size: Int, _ count: Int, _ context: UnsafeMutableRawPointer?) -> Int {
    guard let exchange = exchange(context) else { return 0 }
    return exchange.head(UnsafeRawBufferPointer(start: data, count: size * count)) ? size * count : 0
}

func exchangeBody(_ data: UnsafeMutablePointer<CChar>?, _ size: Int, _ count: Int, _ context: UnsafeMutableRawPointer?) -> Int {
    guard let exchange = exchange(context) else { return 0 }
    return exchange.body(UnsafeRawBufferPointer(start: data, count: size * count)) ? size * count : 0
}

func exchangeRead(_ data: UnsafeMutablePointer<CChar>?, _ size: Int, _ count: Int, _ context: UnsafeMutableRawPointer?) -> Int {
    let room = UnsafeMutableRawBufferPointer(start: data, count: size * count)
    return exchange(context)?.read(into: room) ?? Int(bitPattern: UInt(CURL_READFUNC_ABORT))
}

func exchangeSeek(_ context: UnsafeMutableRawPointer?, _ offset: curl_off_t, _ origin: Int32) -> Int32 {
    guard offset == 0, origin == 0, exchange(context)?.rewind() == true else { return CURL_SEEKFUNC_FAIL }
    return CURL_SEEKFUNC_OK
}

func exchangeProgress(
    _ context: UnsafeMutableRawPointer?, _ downTotal: curl_off_t, _ down: curl_off_t, _ upTotal: curl_off_t, _ up: curl_off_t
) -> Int32 {
    exchange(context)?.progress(down: Int64(down), up: Int64(up)) == true ? 0 : 1
}

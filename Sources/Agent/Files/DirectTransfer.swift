import AgentProtocol
import Crypto
import Glibc
import Reactor
import System
import Transport

/// One transfer between a file of this machine and a URL: the agent's own client speaks to the server, the core only says how
/// far it may go. Confined to the agent's loop; what waits for a disk is done on the transfer's line of work.
///
/// A dropped connection is tried again here, a download from what is kept of it if the server's strong ETag is the same. In
/// memory is one piece, and what the connection holds of the next.
final class DirectTransfer {
    /// What it tells, on the loop and never from inside a call.
    struct News {
        var ready: (UInt64, TransferReady) -> Void
        var moved: (UInt64) -> Void
        var finished: (TransferResult) -> Void
        /// Failed: nothing of it is to stay but the word of it.
        var failed: (FileFailure) -> Void
    }

    /// How long it waits for the far end before it takes the connection for lost.
    struct Patience: Sendable {
        /// For the head of an answer.
        var answerMilliseconds: UInt64 = 120_000
        /// While no byte moves, although the core lets some.
        var stallMilliseconds: UInt64 = 60_000
        /// Before the second attempt; each further one waits twice as long as the one before.
        var pauseMilliseconds: UInt64 = 500
    }

    private static let attempts = 6
    private static let pieceBytes: UInt64 = 256 << 10
    private static let errorBytes = 4_096

    let place: DirectPlace
    private let loop: EventLoop
    private let proxy: ClientProxy?
    private let patience: Patience
    private let news: News
    private var granted: UInt64 = 0
    private var waiter: CheckedContinuation<Void, Never>?
    private var client: HTTPClient?
    private var incoming: IncomingFile?
    private var isReady = false
    private var isStopped = false
    /// Attempts since it came further than ever before. What is only repeated counts for nothing: a server that always drops
    /// at the same place is given up.
    private var failures = 0
    private var furthest: UInt64 = 0

    init(_ place: DirectPlace, proxy: ClientProxy?, patience: Patience = Patience(), on loop: EventLoop, _ news: News) {
        self.place = place
        self.proxy = proxy
        self.patience = patience
        self.loop = loop
        self.news = news
    }

    func start() {
        let me = Confined(self, on: loop)
        loop.spawn { await me.assumeOnLoop { $0 }.run() }
    }

    func grant(upTo offset: UInt64) {
        granted = max(granted, offset)
        wake()
    }

    /// Nothing of it moves or is told after this. What has come stays, if it is `kept`.
    func stop(kept: Bool) {
        guard !isStopped else { return }
        isStopped = true
        client?.close()
        client = nil
        if kept, let incoming { place.work.submit { incoming.pause() } }
        incoming = nil
        wake()
    }

    private func wake() {
        waiter?.resume()
        waiter = nil
    }

    // MARK: Attempts

    private func run() async {
        while true {
            do throws(DirectEnd) {
                let result = try await attempt()
                if !isStopped { news.finished(result) }
                return
            } catch {
                client?.close()
                client = nil
                guard !isStopped else { return }
                switch error {
                case .stopped: return
                case .failed(let failure): return news.failed(failure)
                case .dropped(let reason):
                    failures += 1
                    guard failures < Self.attempts else {
                        return news.failed(FileFailure("url-failed", "given up after \(failures) attempts: \(reason)"))
                    }
                    if let incoming { place.work.submit { incoming.pause() } }
                    incoming = nil
                    await loop.sleep(milliseconds: patience.pauseMilliseconds << UInt64(failures - 1))
                    if isStopped { return }
                }
            }
        }
    }

    private func attempt() async throws(DirectEnd) -> TransferResult {
        let proxy = proxy
        let address = try await disk { (place) throws(FileFailure) in
            try DirectAddress(place.url, policyPath: place.roots.policyPath, proxy: proxy)
        }
        let client = HTTPClient(address.server, options: address.options)
        self.client = client
        switch place.order.direction {
        case .push: return try await download(client, address.server)
        case .pull: return try await upload(client, address.server)
        }
    }

    /// Work on the disk, in the order of the transfer's line.
    private func disk<R: Sendable>(
        _ body: @escaping @Sendable (DirectPlace) throws(FileFailure) -> R
    ) async throws(DirectEnd) -> R {
        if isStopped { throw .stopped }
        let place = place
        let result: Result<R, FileFailure> = await withCheckedContinuation { continuation in
            let isTaken = place.work.submit {
                do throws(FileFailure) { continuation.resume(returning: .success(try body(place))) } catch {
                    continuation.resume(returning: .failure(error))
                }
            }
            if !isTaken {
                continuation.resume(
                    returning: .failure(FileFailure("agent-busy", "too much file work waits on this client")))
            }
        }
        if isStopped { throw .stopped }
        do throws(FileFailure) { return try result.get() } catch { throw .failed(error) }
    }

    /// Waits until the core lets it go so far.
    private func credit(upTo offset: UInt64) async throws(DirectEnd) {
        while granted < offset, !isStopped { await withCheckedContinuation { waiter = $0 } }
        if isStopped { throw .stopped }
    }

    private func ready(at offset: UInt64, size: UInt64) {
        guard !isReady else { return news.moved(offset) }
        isReady = true
        granted = max(granted, offset)
        news.ready(offset, TransferReady(size: size))
    }

    private func moved(to offset: UInt64) {
        if offset > furthest {
            furthest = offset
            failures = 0
        }
        news.moved(offset)
    }

    // MARK: Download

    private func download(_ client: HTTPClient, _ server: ServerURL) async throws(DirectEnd) -> TransferResult {
        let kept = try await disk { (place) throws(FileFailure) in try place.kept() }
        if let result = kept.result { return result }
        var headers: HTTPHeaders = ["accept-encoding": "identity"]
        if kept.offset > 0 {
            headers.set("range", "bytes=\(kept.offset)-")
            headers.set("if-range", kept.validator)
        }
        let answer = try await request(server.host) { () throws(TransportError) in
            try await client.request(.get, server.target, headers: headers, headMilliseconds: self.patience.answerMilliseconds)
        }
        let found = try await announced(answer, kept, server.host)
        let start = try await disk { (place) throws(FileFailure) in try place.begin(found) }
        guard case .goesOn(let incoming, let offset) = start else {
            guard case .over(let result) = start else { throw .stopped }
            return result
        }
        guard offset == found.offset, let incoming = incoming as? IncomingFile else {
            try await disk { (place) throws(FileFailure) in try place.forget() }
            throw .dropped("what was kept cannot be gone on with")
        }
        self.incoming = incoming
        ready(at: offset, size: found.size)
        var position = offset
        while position < found.size {
            let piece = try await request(server.host) { () throws(TransportError) in
                try await answer.nextPiece(milliseconds: self.patience.stallMilliseconds)
            }
            guard let piece else { throw .dropped("\(server.host) ended the answer after \(position) of \(found.size) bytes") }
            position += UInt64(piece.count)
            guard position <= found.size else { throw .dropped("\(server.host) sent more than it announced") }
            try await credit(upTo: position)
            try await disk { (_) throws(FileFailure) in
                if let mark = try incoming.write(piece).mark { _ = try mark() }
            }
            moved(to: position)
        }
        let size = found.size
        return try await disk { (place) throws(FileFailure) in
            try incoming.finish(length: size, expecting: place.url.digest, tells: true)
        }
    }

    /// What the answer to a GET brings, checked.
    private func announced(
        _ answer: HTTPClientResponse, _ kept: DirectPlace.Kept, _ host: String
    ) async throws(DirectEnd) -> DirectPlace.Found {
        let headers = answer.head.headers
        guard answer.status == 200 || answer.status == 206 else {
            if answer.status == 416, kept.offset > 0 {
                try await disk { (place) throws(FileFailure) in try place.forget() }
                throw .dropped("\(host) has no bytes from \(kept.offset) on")
            }
            throw DirectEnd(answer.status, headers, await beginning(of: answer), host: host)
        }
        guard headers["content-encoding"] ?? "identity" == "identity", case .length(let length) = answer.head.framing else {
            throw .failed(FileFailure("url-unusable", "\(host) says no Content-Length, or sends the file in another encoding"))
        }
        var found = DirectPlace.Found(size: length, offset: 0, validator: headers["etag"] ?? "")
        // A weak one does not promise the same bytes.
        if !found.validator.hasPrefix("\"") || found.validator.utf8.count > 512 { found.validator = "" }
        if answer.status == 206 {
            guard kept.offset > 0, found.validator == kept.validator,
                headers["content-range"] == "bytes \(kept.offset)-\(kept.size - 1)/\(kept.size)"
            else {
                try await disk { (place) throws(FileFailure) in try place.forget() }
                throw .dropped("\(host) answered another range than was asked for")
            }
            found.size = kept.size
            found.offset = kept.offset
        }
        if let wanted = place.url.size, wanted != found.size {
            throw .failed(FileFailure("url-size-mismatch", "\(host) has \(found.size) bytes there, not \(wanted)"))
        }
        guard found.size <= place.order.size else {
            throw .failed(FileFailure("file-too-large", "\(host) has \(found.size) bytes there; \(place.order.size) may come"))
        }
        return found
    }

    // MARK: Upload

    private func upload(_ client: HTTPClient, _ server: ServerURL) async throws(DirectEnd) -> TransferResult {
        let start = try await disk { (place) throws(FileFailure) in try place.source() }
        guard let source = start.source else {
            guard let result = start.result else { throw .stopped }
            return result
        }
        ready(at: 0, size: source.size)
        var hash = SHA256()
        var position: UInt64 = 0
        var end: DirectEnd?
        let stall = Timer { [weak client, patience] in
            end = .dropped("\(server.host) took no byte for \(patience.stallMilliseconds) ms")
            client?.close()
        }
        defer { loop.cancel(stall) }
        // An empty body has its hash before the first byte.
        if source.size == 0 { try check(hash.digest) }
        let answer = try await request(server.host, because: { end }) { () throws(TransportError) in
            try await client.request(
                .put, server.target, length: source.size,
                body: { () throws(TransportError) in
                    self.loop.cancel(stall)
                    // What was given before is with the connection.
                    if position > 0 { self.moved(to: position) }
                    guard position < source.size else { return nil }
                    do throws(DirectEnd) {
                        let (from, count) = (position, min(Self.pieceBytes, source.size - position))
                        let piece = try await self.disk { (place) throws(FileFailure) in try source.read(at: from, count, place) }
                        hash.update(piece.span.bytes)
                        position += count
                        // Held back unless the hash is right: the server never has the whole of something else.
                        if position == source.size { try self.check(hash.digest) }
                        try await self.credit(upTo: position)
                        self.loop.schedule(stall, afterMilliseconds: self.patience.stallMilliseconds)
                        return piece
                    } catch {
                        end = error
                        throw TransportError(.closed, "the upload was given up")
                    }
                }, headMilliseconds: patience.answerMilliseconds)
        }
        let rest = await beginning(of: answer)
        guard (200..<300).contains(answer.status) else {
            throw DirectEnd(answer.status, answer.head.headers, rest, host: server.host)
        }
        guard position == source.size else { throw .dropped("\(server.host) answered before it had everything") }
        let result = TransferResult(bytes: source.size, entries: 1, digest: hash.digest)
        try await disk { (place) throws(FileFailure) in try source.ended(result, place) }
        return result
    }

    private func check(_ digest: SHA256.Digest) throws(DirectEnd) {
        guard let wanted = place.url.digest, wanted != digest else { return }
        throw .failed(
            FileFailure("digest-mismatch", "\(place.order.path) has the hash \(digest.hex), not \(wanted.hex); it was not uploaded"))
    }

    // MARK: The connection

    private func request<R>(
        _ host: String, because end: () -> DirectEnd? = { nil }, _ body: () async throws(TransportError) -> R
    ) async throws(DirectEnd) -> R {
        do throws(TransportError) {
            let result = try await body()
            if isStopped { throw TransportError(.closed, "stopped") }
            return result
        } catch {
            if isStopped { throw .stopped }
            throw end() ?? DirectEnd(error, host: host)
        }
    }

    /// Enough of an answer to tell what it means.
    private func beginning(of answer: HTTPClientResponse) async -> [UInt8] {
        var bytes: [UInt8] = []
        while bytes.count < Self.errorBytes, let piece = try? await answer.nextPiece(milliseconds: 10_000) { bytes += piece }
        answer.cancel()
        return bytes
    }
}

import AgentProtocol
import Reactor

/// Requests about private files that an agent has not answered yet; made with the first, so that a link without any
/// costs one word.
final class LinkPrivateFiles {
    typealias Answer = @Sendable (Result<PrivateFileAnswer, Problem>) -> Void

    struct Waiting {
        var answer: Answer
        var bytes: Int
        var timer: Timer
    }

    /// Of one link: what waits in its buffers stays far below the bound that ends it.
    static let most = 32
    static let mostBytes = 2 << 20
    /// More than an agent's hook may take, several of them in a row.
    static let milliseconds: UInt64 = 120_000

    var waiting: [UInt64: Waiting] = [:]
    var bytes = 0
    private var last: UInt64 = 0

    func next() -> UInt64 {
        last += 1
        return last
    }

    static func lost(_ client: ClientID) -> Problem {
        .conflict("client-offline", "the connection to client \(client) was lost before it answered")
    }
}

extension AgentConnection {
    func ask(_ request: PrivateFileRequest, _ answer: @escaping LinkPrivateFiles.Answer) {
        guard isActive, let link else {
            return answer(.failure(.conflict("client-offline", "the client's connection was lost")))
        }
        let files = privateFiles ?? LinkPrivateFiles()
        privateFiles = files
        var bytes = 0
        if case .put(_, let content) = request { bytes = content.count }
        guard files.waiting.count < LinkPrivateFiles.most, files.bytes == 0 || files.bytes + bytes <= LinkPrivateFiles.mostBytes
        else {
            return answer(
                .failure(
                    Problem(
                        503, "client-busy", "requests for private files wait for client \(link.client) already",
                        retryAfter: 1)))
        }
        let number = files.next()
        let client = link.client
        let timer = Timer { [unowned self] in
            privateFileEnded(
                number,
                .failure(
                    Problem(
                        504, "private-file-timeout",
                        "client \(client) has not answered for \(LinkPrivateFiles.milliseconds / 1_000) s; list its files to see what holds")))
        }
        files.waiting[number] = LinkPrivateFiles.Waiting(answer: answer, bytes: bytes, timer: timer)
        files.bytes += bytes
        home.loop.schedule(timer, afterMilliseconds: LinkPrivateFiles.milliseconds)
        write { request.writeFrame(number: number, to: &$0) }
    }

    func receivePrivateFileAnswer(_ header: FrameHeader, _ payload: borrowing RawSpan) throws(WireError) {
        guard link?.hasPrivateFiles == true else {
            throw WireError(.unexpected, "private files are not among the features of this link")
        }
        let answer = try PrivateFileAnswer(reading: payload)
        // One that nobody waits for came after its time.
        privateFileEnded(header.offset, .success(answer))
    }

    private func privateFileEnded(_ number: UInt64, _ result: Result<PrivateFileAnswer, Problem>) {
        guard let files = privateFiles, let waiting = files.waiting.removeValue(forKey: number) else { return }
        files.bytes -= waiting.bytes
        home.loop.cancel(waiting.timer)
        waiting.answer(result)
    }

    /// The link is over.
    func leavePrivateFiles(_ link: AgentLink) {
        guard let files = privateFiles else { return }
        privateFiles = nil
        for waiting in files.waiting.values {
            home.loop.cancel(waiting.timer)
            waiting.answer(.failure(LinkPrivateFiles.lost(link.client)))
        }
    }
}

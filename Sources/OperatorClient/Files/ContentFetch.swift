import JSON

/// The content of a stored file as it comes, over connections that break: each goes on where the last one ended.
final class ContentFetch {
    private let session: Session
    private let core: Core
    private let progress: ProgressLine
    private var isInterrupted = false
    private static let attempts = 8

    /// What has to come.
    struct Content {
        let id: String
        let size: UInt64
        let sha256: String

        /// - Parameter file: as the core shows it.
        init(_ file: JSONValue) throws(OperatorError) {
            guard let id = file["id"]?.string, let size = file["size"]?.integer, let sha256 = file["sha256"]?.string else {
                throw .usage("the file is not whole yet")
            }
            self.id = id
            self.size = UInt64(clamping: size)
            self.sha256 = sha256
        }
    }

    init(_ session: Session, core: Core, progress: ProgressLine) {
        self.session = session
        self.core = core
        self.progress = progress
    }

    /// - Parameters:
    ///   - start: so much the caller has already.
    ///   - advice: what to do after an interruption by hand.
    ///   - take: gets each byte once and in order.
    func run(
        _ content: Content, from start: UInt64 = 0, advice: String? = nil, take: ([UInt8]) throws(OperatorError) -> Void
    ) async throws(OperatorError) {
        session.interrupts.handler = { [self] in
            isInterrupted = true
            core.transport.interrupt()
        }
        defer { session.interrupts.handler = nil }
        var (offset, failures) = (start, 0)
        while offset < content.size {
            let begin = offset
            var request = APIRequest("GET", "/api/v1/files/\(APIRequest.encoded(content.id))/content")
            request.headers = [(name: "accept", value: "*/*")]
            if begin > 0 {
                request.headers += [(name: "range", value: "bytes=\(begin)-"), (name: "if-range", value: "\"\(content.sha256)\"")]
            }
            var failure: OperatorError?
            do throws(OperatorError) {
                let response = try await core.transport.stream(request) { piece throws(OperatorError) in
                    try take(piece)
                    offset += UInt64(piece.count)
                    progress.moved(to: offset, total: content.size)
                }
                if response.status != (begin > 0 ? 206 : 200) {
                    let refusal = core.failure(response, of: request)
                    guard [429, 503].contains(response.status) else { throw refusal }
                    failure = refusal
                }
            } catch {
                guard !isInterrupted else { throw OperatorError(.remoteFailure, "interrupted", advice: advice) }
                guard error.status == .unreachable else { throw error }
                failure = error
            }
            failures = offset == begin ? failures + 1 : 0
            if let failure, failures >= Self.attempts { throw failure }
            if offset < content.size { await session.pause(UInt64(100) << UInt64(min(failures, 5))) }
        }
    }
}

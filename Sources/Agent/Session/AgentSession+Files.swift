import AgentProtocol
import Crypto
import System

/// Transfers and file requests on a session's link: frames to the executor, its news to frames.
extension AgentSession: FileObserver {
    private var hasFiles: Bool { features.contains(Feature.file) }

    /// Before the end mark of the reports.
    func beginFiles() {
        transfers = AgentTransfersStateMachine()
        guard hasFiles, let fileExecutor else { return }
        fileExecutor.observer = self
        transfers.report(fileExecutor.kept(), to: &writer)
    }

    /// The link has ended.
    func leaveFiles() {
        transfers = AgentTransfersStateMachine()
        sending = []
        guard let fileExecutor, fileExecutor.observer != nil else { return }
        fileExecutor.observer = nil
        fileExecutor.linkLost()
    }

    static func isAboutFiles(_ header: FrameHeader) -> Bool {
        switch header.kind {
        case .open: header.flags == ChannelKind.transfer.rawValue
        case .transferForget, .transferData, .transferCredit, .transferDurable, .transferEnd, .transferAcknowledged,
            .transferStop, .fileRequest: true
        default: false
        }
    }

    func receiveFiles(_ header: FrameHeader, _ payload: borrowing RawSpan) throws(WireError) {
        guard hasFiles, let fileExecutor else {
            throw WireError(.unexpected, "files are not among the features of this link")
        }
        switch try transfers.receive(header, payload) {
        case .none: break
        case .start(let order):
            guard order.url == nil || features.contains(Feature.fileURL) else {
                throw WireError(.unexpected, "transfers with a URL are not among the features of this link")
            }
            fileExecutor.start(order)
        case .data(let id, let offset): fileExecutor.write(id, at: offset, payload)
        case .end(let id, let length, let digest): fileExecutor.end(id, length: length, digest)
        case .room(let id): willSend(id)
        case .granted(let id, let offset): fileExecutor.grant(id, upTo: offset)
        case .durable(let id, let offset): fileExecutor.durable(id, upTo: offset)
        case .stop(let id, let stop): fileExecutor.stop(id, stop)
        case .forget(let id): fileExecutor.forget(id)
        case .request(let number, let request): fileExecutor.request(number, request)
        }
    }

    private func willSend(_ id: TransferID) {
        if !sending.contains(id) { sending.append(id) }
        pumpSoon()
    }

    /// Sends the next piece of a pull, each transfer in turn, and says how many bytes that were. 0: there is none that may go now.
    func sendNextPiece() -> Int {
        guard let fileExecutor else { return 0 }
        while let id = sending.first {
            sending.removeFirst()
            guard let room = transfers.room(id), let piece = fileExecutor.next(id, limit: room.count) else { continue }
            if !piece.range.isEmpty { send(piece, of: id) }
            guard let digest = piece.digest else {
                sending.append(id)
                return piece.range.count
            }
            write { transfers.sentAll(id, digest, to: &$0) }
            writer.reset()
            return piece.range.count + FrameHeader.byteCount
        }
        return 0
    }

    private func send(_ piece: FileChunk, of id: TransferID) {
        let bytes = piece.storage.span.bytes.extracting(piece.range)
        writer.reset()
        guard seal == nil, let socket else {
            transfers.send(id, bytes, to: &writer)
            send(&writer)
            return writer.reset()
        }
        transfers.sendHead(id, bytes.byteCount, to: &writer)
        killPoint("agent.send.before")
        socket.send(writer.bytes.span.bytes, bytes)
        killPoint("agent.send.after")
        writer.reset()
    }

    public func fileReady(_ transfer: TransferID, at offset: UInt64, _ ready: TransferReady) {
        guard phase == .online else { return }
        write { transfers.ready(transfer, at: offset, ready, to: &$0) }
    }

    public func fileGranted(_ transfer: TransferID, upTo offset: UInt64) {
        guard phase == .online else { return }
        write { transfers.grant(transfer, upTo: offset, to: &$0) }
    }

    public func fileDurable(_ transfer: TransferID, upTo offset: UInt64) {
        guard phase == .online else { return }
        killPoint("transfer.durable.send.before")
        write { transfers.durable(transfer, upTo: offset, to: &$0) }
    }

    public func fileMoved(_ transfer: TransferID, to offset: UInt64) {
        guard phase == .online else { return }
        write { transfers.moved(transfer, to: offset, to: &$0) }
    }

    public func fileReadable(_ transfer: TransferID) { willSend(transfer) }

    public func fileFinished(_ transfer: TransferID, _ result: TransferResult) {
        guard phase == .online else { return }
        killPoint("transfer.result.send.before")
        write { transfers.finished(transfer, result, to: &$0) }
    }

    public func fileAnswer(_ number: UInt64, _ answer: FileAnswer) {
        guard phase == .online else { return }
        write { $0.frame(.fileAnswer, offset: number, payload: answer.payload) }
    }
}

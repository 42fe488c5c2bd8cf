import AgentProtocol
import Crypto
import Reactor
import System

/// The transfers and file requests of one link: made with the first of them.
final class LinkTransfers {
    var machine = CoreTransfersStateMachine()
    var flows: [UInt32: TransferFlow] = [:]
    /// Whose turn it is to send.
    var turn: [UInt32] = []
    /// Until the end mark of the reports.
    var reported: [TransferID] = []
    var questions: [UInt64: CheckedContinuation<FileAnswer, Never>] = [:]
    var lastQuestion: UInt64 = 0
    var timer: Timer?
}

/// One transfer on its way over one link, confined to the link's loop.
final class TransferFlow {
    /// A pull may run this far ahead of what the store has taken; a push is read this far ahead.
    static let leadBytes: UInt64 = 4 << 20
    static let readBytes = 256 << 10
    static let aheadReads = 3
    static let piece = WireLimits.transferDataBytes
    /// Credit of a pull is given in steps.
    static let grantBytes = 256 << 10

    let live: LiveTransfer
    let attempt: Int
    let number: UInt32

    // Push
    var reader: FileReader?
    var pieces: [[UInt8]] = []
    /// Of the first of `pieces`, how much has gone.
    var gone = 0
    var readAt: UInt64 = 0
    var isReading = false
    var isReady = false

    /// The bytes move between the client's file and a URL; here only credit goes out.
    var isDirect = false

    // Pull; `written` and `granted` of a direct one too.
    var writer: FileWriter?
    var isPull: Bool { reader == nil && !isDirect }
    var arrived: [UInt8] = []
    var written: UInt64 = 0
    var granted: UInt64 = 0
    var isWriting = false
    var ending: (length: UInt64, digest: SHA256.Digest)?
    /// Nothing more comes over this link; what has come is put away.
    var isOver = false

    init(_ live: LiveTransfer, _ attempt: Int, _ number: UInt32) {
        self.live = live
        self.attempt = attempt
        self.number = number
    }
}

extension AgentConnection {
    private var service: Transfers? { endpoint.transfers }

    private func madeTransfers() -> LinkTransfers {
        if let transfers { return transfers }
        let made = LinkTransfers()
        transfers = made
        return made
    }

    private var me: Confined<AgentConnection> { Confined(self, on: home.loop) }

    static func isAboutFiles(_ kind: FrameKind) -> Bool {
        switch kind {
        case .transferReady, .transferData, .transferCredit, .transferDurable, .transferEnd, .transferResult, .fileAnswer,
            .transferMoved: true
        default: false
        }
    }

    // MARK: Reports

    func receiveTransferReport(_ payload: borrowing RawSpan) throws(WireError) {
        guard link?.hasFiles == true, !hasReported else {
            throw WireError(.unexpected, "a transfer's report after the end of the reports, or without the feature")
        }
        let transfers = madeTransfers()
        guard transfers.reported.count < WireLimits.transfers else {
            throw WireError(.tooManyChannels, "more than \(WireLimits.transfers) transfers are reported")
        }
        transfers.reported.append(try CoreTransfersStateMachine.transfer(reported: payload))
    }

    func reconcileTransfers(_ link: AgentLink) {
        guard link.hasFiles, let service else { return }
        let unknown = service.linked(link, transfers?.reported ?? [])
        transfers?.reported = []
        guard !unknown.isEmpty, let transfers else { return }
        write { writer in for id in unknown { transfers.machine.forget(id, to: &writer) } }
    }

    // MARK: Frames of the agent

    func receiveTransfer(_ header: FrameHeader, _ payload: borrowing RawSpan) throws(WireError) {
        guard let transfers else {
            throw WireError(.foreignChannel, "a \(header.kind) frame for channel \(header.channel), which was never open")
        }
        switch try transfers.machine.receive(header, payload) {
        case .none: break
        case .answer(let number, let answer): transfers.questions.removeValue(forKey: number)?.resume(returning: answer)
        case .ready(let number, let offset, let ready):
            if let flow = transfers.flows[number] { begin(flow, transfers, at: offset, ready) }
        case .room: pumpTransfers()
        case .durable(let number, let offset):
            guard let flow = transfers.flows[number] else { return }
            service?.moved(flow.live, to: sent(flow, transfers), durable: offset)
        case .moved(let number, let offset):
            guard let flow = transfers.flows[number] else { return }
            flow.written = offset
            service?.moved(flow.live, to: offset, durable: nil)
            grant(flow, transfers)
        case .data(let number, _):
            guard let flow = transfers.flows[number] else { return }
            // Invariant: the array copies before the closure ends.
            unsafe payload.withUnsafeBytes { unsafe flow.arrived.append(contentsOf: $0) }
            putAway(flow, transfers)
        case .ended(let number, let length, let digest):
            guard let flow = transfers.flows[number] else { return }
            flow.ending = (length, digest)
            putAway(flow, transfers)
        case .finished(let number, let result):
            guard let flow = transfers.flows[number] else { return }
            finished(flow, result)
        }
    }

    private func sent(_ flow: TransferFlow, _ transfers: LinkTransfers) -> UInt64 {
        transfers.machine.room(flow.number)?.offset ?? flow.live.transfer.size ?? 0
    }

    private func finished(_ flow: TransferFlow, _ result: TransferResult) {
        guard let service else { return }
        let me = me
        let (live, attempt, number) = (flow.live, flow.attempt, flow.number)
        let end: Transfers.End =
            if flow.isPull {
                .failed(code: result.failure?.code ?? "protocol-unexpected", reason: result.failure?.message ?? "no file came")
            } else { .pushed(result) }
        let writer = flow.writer
        flow.isOver = true
        home.loop.spawn {
            // Its place in the store is given back by whoever settles it.
            if let writer { await writer.suspend() }
            let isRecorded = await service.finish(live, attempt, end, number: number)
            me.assumeOnLoop { $0.settled(number, isRecorded) }
            service.released(live)
        }
    }

    private func settled(_ number: UInt32, _ isRecorded: Bool) {
        guard let transfers else { return }
        transfers.flows[number] = nil
        if isRecorded { acknowledgeTransfer(number) }
    }

    /// Nothing of it is to stay on the client; it has no channel here.
    func forgetTransfer(_ id: TransferID) {
        guard isActive, link?.hasFiles == true else { return }
        let transfers = madeTransfers()
        write { transfers.machine.forget(id, to: &$0) }
    }

    func acknowledgeTransfer(_ number: UInt32) {
        guard isActive, let transfers else { return }
        killPoint("transfer.acknowledge.before")
        write { transfers.machine.acknowledge(number, to: &$0) }
    }

    // MARK: Wishes of the kernel, through the link

    func openTransfer(_ live: LiveTransfer, _ attempt: Int, _ order: TransferOrder, _ source: Transfers.Source) {
        // It may have been paused or cancelled while its file was opened: then there was no flow yet that could be stopped.
        guard isActive, link?.hasFiles == true, live.isWanted(attempt) else {
            service?.interrupted(live, attempt)
            return
        }
        let transfers = madeTransfers()
        var number: UInt32?
        killPoint("transfer.open.before")
        write { writer in number = try? transfers.machine.open(order, to: &writer) }
        guard let number else {
            service?.interrupted(live, attempt)
            return
        }
        let flow = TransferFlow(live, attempt, number)
        switch source {
        case .push(let reader): flow.reader = reader
        case .pull(let writer): flow.writer = writer
        case .url: flow.isDirect = true
        }
        transfers.flows[number] = flow
    }

    func stopTransfer(_ live: LiveTransfer, _ stop: TransferStop) {
        guard let transfers, let flow = transfers.flows.values.first(where: { $0.live === live }) else {
            if stop == .cancel { forgetTransfer(live.id) }
            return
        }
        write { transfers.machine.stop(flow.number, stop, to: &$0) }
        leave(flow, transfers)
    }

    /// The core cannot go on with it.
    private func fail(_ flow: TransferFlow, _ problem: Problem) {
        guard !flow.isOver, let transfers, let service else { return }
        flow.isOver = true
        if isActive { write { transfers.machine.stop(flow.number, .cancel, to: &$0) } }
        transfers.flows[flow.number] = nil
        let (live, attempt, writer) = (flow.live, flow.attempt, flow.writer)
        home.loop.spawn {
            if let writer { await writer.suspend() }
            _ = await service.finish(live, attempt, Transfers.End(problem))
            service.released(live)
        }
    }

    /// Nothing more comes or goes here: what has come is put away, then the place is free.
    private func leave(_ flow: TransferFlow, _ transfers: LinkTransfers?) {
        transfers?.flows[flow.number] = nil
        guard !flow.isOver, let service else { return }
        flow.isOver = true
        let (live, attempt) = (flow.live, flow.attempt)
        guard let writer = flow.writer else { return service.interrupted(live, attempt) }
        let rest = flow.arrived
        flow.arrived = []
        home.loop.spawn {
            // Waits for what is being written.
            if !rest.isEmpty { try? await writer.append(rest) }
            await writer.suspend()
            service.interrupted(live, attempt)
        }
    }

    /// The link is over.
    func leaveTransfers() {
        guard let transfers else { return }
        self.transfers = nil
        if let timer = transfers.timer { home.loop.cancel(timer) }
        for flow in transfers.flows.values { leave(flow, nil) }
        let lost = FileAnswer(failure: FileFailure("client-offline", "the client's connection was lost"))
        for question in transfers.questions.values { question.resume(returning: lost) }
        transfers.questions = [:]
    }

    // MARK: Requests

    private static let questionsAtOnce = 64

    /// - Parameter answer: resumed once: with the agent's answer, or why there is none.
    func ask(_ request: FileRequest, milliseconds: UInt64, _ answer: CheckedContinuation<FileAnswer, Never>) {
        guard isActive, link?.hasFiles == true else {
            return answer.resume(
                returning: FileAnswer(failure: FileFailure("client-offline", "the client's connection was lost")))
        }
        let transfers = madeTransfers()
        guard transfers.questions.count < Self.questionsAtOnce else {
            return answer.resume(
                returning: FileAnswer(failure: FileFailure("client-busy", "\(Self.questionsAtOnce) file requests wait on this client")))
        }
        transfers.lastQuestion += 1
        let number = transfers.lastQuestion
        transfers.questions[number] = answer
        write { transfers.machine.request(number, request, to: &$0) }
        let timer = Timer { [weak transfers] in
            transfers?.questions.removeValue(forKey: number)?.resume(
                returning: FileAnswer(failure: FileFailure("client-timeout", "the client did not answer in time")))
        }
        home.loop.schedule(timer, afterMilliseconds: milliseconds)
    }

    // MARK: Push

    private func begin(_ flow: TransferFlow, _ transfers: LinkTransfers, at offset: UInt64, _ ready: TransferReady) {
        flow.isReady = true
        service?.moved(flow.live, to: offset, durable: flow.isDirect ? nil : offset)
        if flow.isDirect {
            service?.announced(flow.live, flow.attempt, size: ready.size)
            flow.written = offset
            flow.granted = offset
            return grant(flow, transfers)
        }
        guard flow.isPull else {
            flow.readAt = offset
            if !transfers.turn.contains(flow.number) { transfers.turn.append(flow.number) }
            readAhead(flow)
            return pumpTransfers()
        }
        beginPull(flow, transfers, at: offset, ready)
    }

    private func readAhead(_ flow: TransferFlow) {
        guard let reader = flow.reader, !flow.isReading, !flow.isOver, flow.readAt < reader.size,
            flow.pieces.count < TransferFlow.aheadReads
        else { return }
        flow.isReading = true
        let (me, box, offset) = (me, Confined(flow, on: home.loop), flow.readAt)
        home.loop.spawn {
            do throws(Problem) {
                let bytes = try await reader.read(at: offset, count: TransferFlow.readBytes)
                me.assumeOnLoop { connection in
                    box.assumeOnLoop { flow in
                        flow.isReading = false
                        flow.readAt += UInt64(bytes.count)
                        flow.pieces.append(bytes)
                        connection.readAhead(flow)
                    }
                    connection.pumpTransfers()
                }
            } catch { me.assumeOnLoop { connection in box.assumeOnLoop { connection.fail($0, error) } } }
        }
    }

    /// Sends what may go now, each transfer a piece in turn, while the socket takes it.
    func pumpTransfers() {
        guard isActive, let transfers, !transfers.turn.isEmpty else { return }
        var idle = 0
        while idle < transfers.turn.count, !isOverHighMark {
            let number = transfers.turn.removeFirst()
            guard let flow = transfers.flows[number], !flow.isOver else { continue }
            switch sendPiece(flow, transfers) {
            case .sent:
                idle = 0
                transfers.turn.append(number)
            case .nothing:
                idle += 1
                transfers.turn.append(number)
            case .limited:
                idle += 1
                transfers.turn.append(number)
                pumpLater(transfers)
            case .all: idle = 0
            }
        }
    }

    private enum Step { case sent, nothing, limited, all }

    private func sendPiece(_ flow: TransferFlow, _ transfers: LinkTransfers) -> Step {
        guard let reader = flow.reader, let room = transfers.machine.room(flow.number) else { return .nothing }
        guard room.offset < reader.size else {
            guard let digest = reader.file.digest else { return .nothing }
            killPoint("transfer.end.before")
            write { transfers.machine.sentAll(flow.number, digest, to: &$0) }
            return .all
        }
        guard let first = flow.pieces.first, room.count > 0 else { return .nothing }
        let count = min(first.count - flow.gone, TransferFlow.piece, Int(clamping: room.count))
        guard service?.mayMove(count, flow.live) ?? false else { return .limited }
        let start = flow.gone
        killPoint("transfer.send.before")
        write { writer in
            transfers.machine.send(flow.number, first.span.bytes.extracting(start..<start + count), to: &writer)
        }
        flow.gone += count
        if flow.gone == first.count {
            flow.pieces.removeFirst()
            flow.gone = 0
            readAhead(flow)
        }
        service?.moved(flow.live, to: room.offset + UInt64(count), durable: nil)
        return .sent
    }

    /// A limit of speed has been reached.
    private func pumpLater(_ transfers: LinkTransfers) {
        let timer = transfers.timer ?? Timer { [weak self] in
            self?.pumpTransfers()
            self?.grantAll()
        }
        transfers.timer = timer
        if !timer.isScheduled { home.loop.schedule(timer, afterMilliseconds: 10) }
    }

    // MARK: Pull

    private func beginPull(_ flow: TransferFlow, _ transfers: LinkTransfers, at offset: UInt64, _ ready: TransferReady) {
        let (me, box) = (me, Confined(flow, on: home.loop))
        if let writer = flow.writer, offset == writer.offset, offset > 0 || writer.size == ready.size {
            flow.written = offset
            flow.granted = offset
            return grant(flow, transfers)
        }
        // The client's file is another one than that of which a part has come, or none has.
        let (old, live, attempt) = (flow.writer, flow.live, flow.attempt)
        flow.writer = nil
        guard let service else { return }
        home.loop.spawn {
            do throws(Problem) {
                if let old { try? await old.discard(by: Transfers.system) }
                let writer = try await service.makeFile(live, attempt, ready)
                me.assumeOnLoop { connection in
                    box.assumeOnLoop { flow in
                        flow.writer = writer
                        guard let transfers = connection.transfers, !flow.isOver else { return }
                        connection.grant(flow, transfers)
                        connection.putAway(flow, transfers)
                    }
                }
            } catch { me.assumeOnLoop { connection in box.assumeOnLoop { connection.fail($0, error) } } }
        }
    }

    private func grantAll() {
        guard let transfers else { return }
        for flow in transfers.flows.values where flow.isReady && (flow.isDirect || flow.isPull && flow.writer != nil) { grant(flow, transfers) }
    }

    /// As far as the store keeps up and the limits of speed allow.
    private func grant(_ flow: TransferFlow, _ transfers: LinkTransfers) {
        guard isActive, flow.isDirect || flow.writer != nil, !flow.isOver, let service else { return }
        var limit = flow.granted
        let step = UInt64(TransferFlow.grantBytes)
        while limit + step <= flow.written + TransferFlow.leadBytes {
            guard service.mayMove(Int(step), flow.live) else {
                pumpLater(transfers)
                break
            }
            limit += step
        }
        guard limit > flow.granted else { return }
        flow.granted = limit
        write { transfers.machine.grant(flow.number, upTo: limit, to: &$0) }
    }

    /// Gives to the store what has come, one write at a time.
    private func putAway(_ flow: TransferFlow, _ transfers: LinkTransfers) {
        guard let writer = flow.writer, !flow.isWriting, !flow.isOver else { return }
        guard !flow.arrived.isEmpty else {
            if let ending = flow.ending { seal(flow, writer, ending.digest) }
            return
        }
        flow.isWriting = true
        let bytes = flow.arrived
        flow.arrived = []
        flow.arrived.reserveCapacity(min(bytes.count, 1 << 20))
        let (me, box) = (me, Confined(flow, on: home.loop))
        home.loop.spawn {
            do throws(Problem) {
                try await writer.append(bytes)
                me.assumeOnLoop { connection in box.assumeOnLoop { connection.hasWritten($0, bytes.count, writer.durable) } }
            } catch { me.assumeOnLoop { connection in box.assumeOnLoop { connection.fail($0, error) } } }
        }
    }

    private func hasWritten(_ flow: TransferFlow, _ count: Int, _ durable: UInt64) {
        flow.isWriting = false
        flow.written += UInt64(count)
        guard let transfers, !flow.isOver else { return }
        killPoint("transfer.durable.tell.before")
        write { transfers.machine.durable(flow.number, upTo: durable, to: &$0) }
        service?.moved(flow.live, to: flow.written, durable: durable)
        grant(flow, transfers)
        putAway(flow, transfers)
    }

    private func seal(_ flow: TransferFlow, _ writer: FileWriter, _ digest: SHA256.Digest) {
        guard let service else { return }
        flow.isOver = true
        let (me, box) = (me, Confined(flow, on: home.loop))
        let (live, attempt, number) = (flow.live, flow.attempt, flow.number)
        home.loop.spawn {
            do throws(Problem) {
                let file = try await writer.seal(expecting: digest)
                killPoint("transfer.sealed")
                let isRecorded = await service.finish(live, attempt, .pulled(file), number: number)
                me.assumeOnLoop { $0.settled(number, isRecorded) }
                service.released(live)
            } catch {
                me.assumeOnLoop { connection in
                    box.assumeOnLoop { flow in
                        flow.isOver = false
                        connection.fail(flow, error)
                    }
                }
            }
        }
    }
}

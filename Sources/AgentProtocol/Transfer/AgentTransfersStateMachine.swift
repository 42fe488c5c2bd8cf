import Crypto

/// The transfers of one accepted link as the agent sees them. It holds no bytes; after an error the link must be closed.
/// What the agent keeps of them outlives the link, and is reported at the beginning of the next.
public struct AgentTransfersStateMachine: Sendable {
    public enum Event: Sendable, Equatable {
        /// Taken in, or about something that has ended here.
        case none
        case start(TransferOrder)
        /// The frame's payload belongs at this offset.
        case data(TransferID, at: UInt64)
        /// Push: all has been sent.
        case end(TransferID, length: UInt64, SHA256.Digest)
        /// Pull: more may be sent.
        case room(TransferID)
        /// Between file and URL: it may go up to here.
        case granted(TransferID, upTo: UInt64)
        /// Pull: the core has it for good up to here.
        case durable(TransferID, upTo: UInt64)
        case stop(TransferID, TransferStop)
        /// The core has the end, or never knew it: nothing of it is kept.
        case forget(TransferID)
        case request(UInt64, FileRequest)
    }

    private enum Flow: Equatable {
        case opening
        case receiving(TransferReceiving)
        case sending(TransferSending)
        case direct(TransferDirect)
        case ended
    }

    private struct Transfer {
        let number: UInt32
        let id: TransferID
        let direction: TransferDirection
        let isDirect: Bool
        var flow = Flow.opening
    }

    /// Few: `WireLimits.transfers` at most.
    private var transfers: [Transfer] = []
    private var lastNumber = WireLimits.transferChannel

    public init() {}

    public var count: Int { transfers.count }

    /// Writes what is kept, before the end mark of the reports.
    public func report(_ kept: [TransferID], to writer: inout FrameWriter) {
        for id in kept.prefix(WireLimits.transfers) {
            writer.begin(.transferReport)
            writer.identifier(id)
            writer.end()
        }
    }

    // MARK: Frames of the core

    public mutating func receive(_ header: FrameHeader, _ payload: borrowing RawSpan) throws(WireError) -> Event {
        switch header.kind {
        case .transferForget: return .forget(try reportedTransfer(payload))
        case .fileRequest: return .request(header.offset, try FileRequest(reading: payload))
        case .open: return try open(header, payload)
        default: break
        }
        guard header.channel > WireLimits.transferChannel, header.channel <= lastNumber else {
            throw WireError(.foreignChannel, "a \(header.kind) frame for channel \(header.channel), which was never open")
        }
        // What was under way when it ended here.
        guard let index = transfers.firstIndex(where: { $0.number == header.channel }) else { return .none }
        let id = transfers[index].id
        switch header.kind {
        case .transferStop:
            guard let stop = TransferStop(rawValue: header.flags) else {
                throw WireError(.malformed, "stop \(header.flags) is not 1 (pause) or 2 (cancel)")
            }
            transfers.remove(at: index)
            return .stop(id, stop)
        case .transferAcknowledged:
            guard transfers[index].flow == .ended else {
                throw WireError(.unexpected, "channel \(header.channel) was acknowledged before its end")
            }
            transfers.remove(at: index)
            return .forget(id)
        default: return try advance(index, header, payload)
        }
    }

    private mutating func open(_ header: FrameHeader, _ payload: borrowing RawSpan) throws(WireError) -> Event {
        guard header.channel > lastNumber, header.channel & WireLimits.terminalChannel == 0 else {
            throw WireError(.duplicate, "transfer channel \(header.channel) does not follow \(lastNumber)")
        }
        let order = try TransferOrder(reading: payload)
        guard !transfers.contains(where: { $0.id == order.transfer }) else {
            throw WireError(.duplicate, "transfer \(order.transfer) is on this link already")
        }
        guard transfers.count < WireLimits.transfers else {
            throw WireError(.tooManyChannels, "more than \(WireLimits.transfers) transfers")
        }
        lastNumber = header.channel
        transfers.append(Transfer(number: header.channel, id: order.transfer, direction: order.direction, isDirect: order.url != nil))
        return .start(order)
    }

    private mutating func advance(
        _ index: Int, _ header: FrameHeader, _ payload: borrowing RawSpan
    ) throws(WireError) -> Event {
        let id = transfers[index].id
        switch (header.kind, transfers[index].flow) {
        // A failure of this side is on its way.
        case (_, .ended): return .none
        case (.transferData, .receiving(var flow)):
            try flow.receive(header, payload.byteCount)
            transfers[index].flow = .receiving(flow)
            return .data(id, at: header.offset)
        case (.transferEnd, .receiving(var flow)):
            try flow.end(header)
            transfers[index].flow = .receiving(flow)
            return .end(id, length: header.offset, try digest(reading: payload))
        case (.transferCredit, .sending(var flow)):
            flow.granted(upTo: header.offset)
            transfers[index].flow = .sending(flow)
            return .room(id)
        case (.transferCredit, .direct(var flow)):
            guard flow.grant(upTo: header.offset) else { return .none }
            transfers[index].flow = .direct(flow)
            return .granted(id, upTo: header.offset)
        case (.transferDurable, .sending(var flow)):
            try flow.arrived(upTo: header.offset)
            transfers[index].flow = .sending(flow)
            return .durable(id, upTo: header.offset)
        default: throw WireError(.unexpected, "a \(header.kind) frame on transfer channel \(header.channel)")
        }
    }

    // MARK: News of the executor; what is not on this link is ignored

    private func index(_ id: TransferID) -> Int? { transfers.firstIndex { $0.id == id } }

    public mutating func ready(_ id: TransferID, at offset: UInt64, _ ready: TransferReady, to writer: inout FrameWriter) {
        guard let index = index(id), transfers[index].flow == .opening else { return }
        let isPush = transfers[index].direction == .push
        transfers[index].flow =
            transfers[index].isDirect
            ? .direct(TransferDirect(from: offset))
            : isPush ? .receiving(TransferReceiving(from: offset)) : .sending(TransferSending(from: offset))
        writer.frame(.transferReady, channel: transfers[index].number, offset: offset, payload: ready.payload)
    }

    public mutating func grant(_ id: TransferID, upTo offset: UInt64, to writer: inout FrameWriter) {
        guard let index = index(id), case .receiving(var flow) = transfers[index].flow, flow.grant(upTo: offset) else { return }
        transfers[index].flow = .receiving(flow)
        writer.frame(.transferCredit, channel: transfers[index].number, offset: offset)
    }

    public mutating func durable(_ id: TransferID, upTo offset: UInt64, to writer: inout FrameWriter) {
        guard let index = index(id), case .receiving(var flow) = transfers[index].flow, flow.keep(upTo: offset) else { return }
        transfers[index].flow = .receiving(flow)
        writer.frame(.transferDurable, channel: transfers[index].number, offset: offset)
    }

    /// Between file and URL: so much has moved.
    public mutating func moved(_ id: TransferID, to offset: UInt64, to writer: inout FrameWriter) {
        guard let index = index(id), case .direct(var flow) = transfers[index].flow, flow.move(to: offset) else { return }
        transfers[index].flow = .direct(flow)
        writer.frame(.transferMoved, channel: transfers[index].number, offset: offset)
    }

    /// Pull: bytes that may be sent now, and from where; `nil` when it does not send.
    public func room(_ id: TransferID) -> (offset: UInt64, count: UInt64)? {
        guard let index = index(id), case .sending(let flow) = transfers[index].flow, !flow.hasEnded else { return nil }
        return (flow.sent, flow.room)
    }

    public mutating func send(_ id: TransferID, _ bytes: borrowing RawSpan, to writer: inout FrameWriter) {
        guard let index = index(id), case .sending(var flow) = transfers[index].flow else { return }
        writer.transferData(number: transfers[index].number, offset: flow.sent, bytes)
        flow.send(bytes.byteCount)
        transfers[index].flow = .sending(flow)
    }

    /// The same without the bytes: whoever sends puts `count` of them behind what was written.
    public mutating func sendHead(_ id: TransferID, _ count: Int, to writer: inout FrameWriter) {
        guard let index = index(id), case .sending(var flow) = transfers[index].flow else { return }
        writer.head(.transferData, channel: transfers[index].number, offset: flow.sent, payload: count)
        flow.send(count)
        transfers[index].flow = .sending(flow)
    }

    /// Pull: everything has been sent.
    public mutating func sentAll(_ id: TransferID, _ digest: SHA256.Digest, to writer: inout FrameWriter) {
        guard let index = index(id), case .sending(let flow) = transfers[index].flow, !flow.hasEnded else { return }
        writer.transferEnd(number: transfers[index].number, length: flow.sent, digest: digest)
        transfers[index].flow = .ended
    }

    /// A push is done, or either direction has failed.
    public mutating func finished(_ id: TransferID, _ result: TransferResult, to writer: inout FrameWriter) {
        guard let index = index(id) else { return }
        writer.frame(.transferResult, channel: transfers[index].number, payload: result.payload)
        transfers[index].flow = .ended
    }
}

import Crypto

/// The transfers of one accepted link as the core sees them. It holds no bytes; after an error the link must be closed.
public struct CoreTransfersStateMachine: Sendable {
    public enum Event: Sendable, Equatable {
        /// Taken in, or about a transfer that the core has stopped.
        case none
        /// The agent goes on at the offset: a push is sent from there, a pull comes from there.
        case ready(UInt32, at: UInt64, TransferReady)
        /// Push: more may be sent.
        case room(UInt32)
        /// Between file and URL: so much has moved.
        case moved(UInt32, to: UInt64)
        /// Push: the agent has it for good up to here.
        case durable(UInt32, upTo: UInt64)
        /// Pull: the frame's payload belongs at this offset.
        case data(UInt32, at: UInt64)
        /// Pull: everything has come; the agent waits for the acknowledgement.
        case ended(UInt32, length: UInt64, SHA256.Digest)
        /// The agent's last word; it waits for the acknowledgement.
        case finished(UInt32, TransferResult)
        case answer(UInt64, FileAnswer)
    }

    /// Why nothing was sent.
    public enum Refusal: Error, Sendable, Equatable {
        case tooManyTransfers(limit: Int)
    }

    private enum Flow: Equatable {
        case opening(from: UInt64)
        case sending(TransferSending)
        case receiving(TransferReceiving)
        case direct(TransferDirect)
        case ended
    }

    private struct Transfer {
        let number: UInt32
        let id: TransferID
        let direction: TransferDirection
        let isDirect: Bool
        var flow: Flow
    }

    private var transfers: [Transfer] = []
    private var lastNumber = WireLimits.transferChannel

    public init() {}

    public var count: Int { transfers.count }

    private func index(_ number: UInt32) -> Int? { transfers.firstIndex { $0.number == number } }

    // MARK: Frames of the agent

    public mutating func receive(_ header: FrameHeader, _ payload: borrowing RawSpan) throws(WireError) -> Event {
        if header.kind == .fileAnswer { return .answer(header.offset, try FileAnswer(reading: payload)) }
        guard header.channel > WireLimits.transferChannel, header.channel <= lastNumber else {
            throw WireError(.foreignChannel, "a \(header.kind) frame for channel \(header.channel), which was never open")
        }
        // What was under way when the core stopped it.
        guard let index = index(header.channel) else { return .none }
        let number = header.channel
        switch (header.kind, transfers[index].flow) {
        case (.transferReady, .opening(let from)):
            let isPush = transfers[index].direction == .push
            if transfers[index].isDirect {
                transfers[index].flow = .direct(TransferDirect(from: header.offset))
                return .ready(number, at: header.offset, try TransferReady(reading: payload))
            }
            guard isPush || header.offset == from || header.offset == 0 else {
                throw WireError(.wrongOffset, "a transfer goes on at \(header.offset); the core has \(from)")
            }
            transfers[index].flow =
                isPush ? .sending(TransferSending(from: header.offset)) : .receiving(TransferReceiving(from: header.offset))
            return .ready(number, at: header.offset, try TransferReady(reading: payload))
        case (.transferCredit, .sending(var flow)):
            flow.granted(upTo: header.offset)
            transfers[index].flow = .sending(flow)
            return .room(number)
        case (.transferDurable, .sending(var flow)):
            try flow.arrived(upTo: header.offset)
            transfers[index].flow = .sending(flow)
            return .durable(number, upTo: header.offset)
        case (.transferMoved, .direct(var flow)):
            try flow.told(header.offset)
            transfers[index].flow = .direct(flow)
            return .moved(number, to: header.offset)
        case (.transferData, .receiving(var flow)):
            try flow.receive(header, payload.byteCount)
            transfers[index].flow = .receiving(flow)
            return .data(number, at: header.offset)
        case (.transferEnd, .receiving(var flow)):
            try flow.end(header)
            transfers[index].flow = .ended
            return .ended(number, length: header.offset, try digest(reading: payload))
        case (.transferResult, let flow) where flow != .ended:
            transfers[index].flow = .ended
            return .finished(number, try TransferResult(reading: payload))
        default: throw WireError(.unexpected, "a \(header.kind) frame on transfer channel \(header.channel)")
        }
    }

    // MARK: Wishes of the kernel

    public mutating func open(_ order: TransferOrder, to writer: inout FrameWriter) throws(Refusal) -> UInt32 {
        guard transfers.count < WireLimits.transfers, lastNumber + 1 < WireLimits.terminalChannel else {
            throw .tooManyTransfers(limit: WireLimits.transfers)
        }
        lastNumber += 1
        writer.frame(.open, flags: ChannelKind.transfer.rawValue, channel: lastNumber, payload: order.payload)
        transfers.append(
            Transfer(
                number: lastNumber, id: order.transfer, direction: order.direction, isDirect: order.url != nil,
                flow: .opening(from: order.from)))
        return lastNumber
    }

    /// Push: bytes that may be sent now, and from where; `nil` when it does not send.
    public func room(_ number: UInt32) -> (offset: UInt64, count: UInt64)? {
        guard let index = index(number), case .sending(let flow) = transfers[index].flow, !flow.hasEnded else { return nil }
        return (flow.sent, flow.room)
    }

    public mutating func send(_ number: UInt32, _ bytes: borrowing RawSpan, to writer: inout FrameWriter) {
        guard let index = index(number), case .sending(var flow) = transfers[index].flow else { return }
        writer.transferData(number: number, offset: flow.sent, bytes)
        flow.send(bytes.byteCount)
        transfers[index].flow = .sending(flow)
    }

    /// Push: everything has been sent.
    public mutating func sentAll(_ number: UInt32, _ digest: SHA256.Digest, to writer: inout FrameWriter) {
        guard let index = index(number), case .sending(var flow) = transfers[index].flow, !flow.hasEnded else { return }
        writer.transferEnd(number: number, length: flow.sent, digest: digest)
        flow.end()
        transfers[index].flow = .sending(flow)
    }

    /// Pull, and between file and URL: how far the agent may go.
    public mutating func grant(_ number: UInt32, upTo offset: UInt64, to writer: inout FrameWriter) {
        guard let index = index(number) else { return }
        if case .direct(var flow) = transfers[index].flow {
            guard flow.grant(upTo: offset) else { return }
            transfers[index].flow = .direct(flow)
            return writer.frame(.transferCredit, channel: number, offset: offset)
        }
        guard case .receiving(var flow) = transfers[index].flow, flow.grant(upTo: offset) else { return }
        transfers[index].flow = .receiving(flow)
        writer.frame(.transferCredit, channel: number, offset: offset)
    }

    public mutating func durable(_ number: UInt32, upTo offset: UInt64, to writer: inout FrameWriter) {
        guard let index = index(number), case .receiving(var flow) = transfers[index].flow, flow.keep(upTo: offset) else { return }
        transfers[index].flow = .receiving(flow)
        writer.frame(.transferDurable, channel: number, offset: offset)
    }

    /// The end is recorded: the agent keeps nothing of it.
    public mutating func acknowledge(_ number: UInt32, to writer: inout FrameWriter) {
        guard let index = index(number), transfers[index].flow == .ended else { return }
        transfers.remove(at: index)
        writer.frame(.transferAcknowledged, channel: number)
    }

    public mutating func stop(_ number: UInt32, _ stop: TransferStop, to writer: inout FrameWriter) {
        guard let index = index(number) else { return }
        transfers.remove(at: index)
        writer.frame(.transferStop, flags: stop.rawValue, channel: number)
    }

    /// The agent keeps something of a transfer that has ended, or that the core does not know.
    public func forget(_ id: TransferID, to writer: inout FrameWriter) {
        writer.begin(.transferForget)
        writer.identifier(id)
        writer.end()
    }

    public func request(_ number: UInt64, _ request: FileRequest, to writer: inout FrameWriter) {
        writer.frame(.fileRequest, offset: number, payload: request.payload)
    }

    public static func transfer(reported payload: borrowing RawSpan) throws(WireError) -> TransferID {
        try reportedTransfer(payload)
    }
}

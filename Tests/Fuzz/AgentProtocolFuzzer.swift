// libFuzzer's driver for the agent protocol: frames from an agent, frames from a core, each binary payload (what is read
// must come back from what is written), both handshakes and the signed statements. Nothing a peer says may trap, and no
// frame may reach outside its message. Built by Tests/Fuzz/run, with the product's own modules.

import AgentProtocol
import Crypto
import JSON

private let coreKey = try! P256.PrivateKey.generate()
private let agentKey = try! P256.PrivateKey.generate()
private let command = CommandID(high: 1, low: 2)
private let client = ClientID(high: 3, low: 4)

/// Every frame of one message, until a peer's error.
private func frames(
    _ message: [UInt8], _ body: (FrameHeader, borrowing RawSpan) throws(WireError) -> Void
) throws(WireError) {
    var position = 0
    repeat {
        let span = message.span.bytes
        let header = try FrameHeader.next(in: span, at: &position)
        let end = position + Int(header.length)
        precondition(position >= FrameHeader.byteCount && end <= message.count, "a frame reaches outside its message")
        precondition(Int(header.length) <= WireLimits.payloadBytes(header.kind), "a payload above its bound")
        let payload = span.extracting(position..<end)
        position = end
        try body(header, payload)
    } while position < message.count
}

private func fromAgent(_ message: [UInt8]) throws {
    var machine = CoreChannelsStateMachine(limit: 4)
    var writer = FrameWriter()
    try machine.open(Order(command: command, invocation: .argv(["true"])), to: &writer)
    var received: [OutputStream: UInt64] = [:]
    try frames(message) { (header, payload) throws(WireError) in
        switch try machine.receive(header, payload) {
        case .output(_, let stream, let offset):
            precondition(offset == received[stream, default: 0], "output out of order")
            received[stream, default: 0] += UInt64(payload.byteCount)
            precondition(received[stream, default: 0] <= WireLimits.initialWindowBytes, "more than was granted")
        case .finished(let record):
            precondition(record.standardOutputBytes == received[.standardOutput, default: 0], "an end overtakes output")
        case .none, .reportsComplete, .started: break
        }
    }
}

private func fromCore(_ message: [UInt8]) throws {
    var machine = AgentChannelsStateMachine()
    try frames(message) { (header, payload) throws(WireError) in _ = try machine.receive(header, payload) }
    var writer = FrameWriter()
    _ = machine.writeControl(to: &writer)
    _ = machine.nextOutput()
}

/// Transfers as a core and as an agent, each with one that is open.
private func files(_ message: [UInt8]) throws {
    let order = TransferOrder(transfer: TransferID(high: 5, low: 6), direction: .push, path: "/x", size: 1 << 20)
    var core = CoreTransfersStateMachine()
    var writer = FrameWriter()
    let number = try core.open(order, to: &writer)
    try? frames(message) { (header, payload) throws(WireError) in
        if case .data(_, let offset) = try core.receive(header, payload) { precondition(offset <= 1 << 62) }
        if let room = core.room(number) { precondition(room.count <= UInt64.max - room.offset) }
    }
    var agent = AgentTransfersStateMachine()
    let payload = order.payload
    _ = try agent.receive(
        FrameHeader(.open, flags: ChannelKind.transfer.rawValue, channel: WireLimits.transferChannel + 1), payload.span.bytes)
    agent.ready(order.transfer, at: 0, TransferReady(), to: &writer)
    agent.grant(order.transfer, upTo: 4_096, to: &writer)
    var received: UInt64 = 0
    try frames(message) { (header, payload) throws(WireError) in
        if case .data(order.transfer, let offset) = try agent.receive(header, payload) {
            precondition(offset == received, "bytes of a file out of order")
            received += UInt64(payload.byteCount)
            precondition(received <= 4_096, "more than was granted")
        }
    }
}

private func again(_ write: (inout FrameWriter) -> Void) -> [UInt8] {
    var writer = FrameWriter()
    write(&writer)
    return writer.bytes
}

private func payloads(_ bytes: [UInt8]) throws {
    func read<Value: Equatable>(
        _ parse: (borrowing RawSpan) throws(WireError) -> Value, _ write: (Value, inout FrameWriter) -> Void
    ) {
        guard let value = try? parse(bytes.span.bytes) else { return }
        let second = again { write(value, &$0) }
        precondition((try? parse(second.span.bytes)) == value, "\(value) does not come back")
    }
    read({ (span) throws(WireError) in try Order(reading: span) }, { $0.write(to: &$1) })
    read({ (span) throws(WireError) in try ExitRecord(reading: span) }, { $0.write(to: &$1) })
    read({ (span) throws(WireError) in try ExecutionReport(reading: span) }, { $0.write(to: &$1) })
    read({ (span) throws(WireError) in try BeatAnswer(reading: span) }, { $0.write(to: &$1) })
    privateFiles(bytes)
}

/// Requests and answers about private files, whole frames when they are written.
private func privateFiles(_ bytes: [UInt8]) {
    for action: UInt8 in 0...4 {
        guard let request = try? PrivateFileRequest(action: action, reading: bytes.span.bytes) else { continue }
        let frame = again { request.writeFrame(number: 1, to: &$0) }
        let payload = Array(frame[FrameHeader.byteCount...])
        precondition((try? PrivateFileRequest(action: action, reading: payload.span.bytes)) == request, "\(request) does not come back")
    }
    guard let answer = try? PrivateFileAnswer(reading: bytes.span.bytes) else { return }
    // A long text is cut when it is written.
    if case .refused(_, let message) = answer, message.count > 1_000 { return }
    let payload = Array(again { answer.writeFrame(number: 1, to: &$0) }[FrameHeader.byteCount...])
    precondition((try? PrivateFileAnswer(reading: payload.span.bytes)) == answer, "\(answer) does not come back")
}

private func statements(_ bytes: [UInt8]) {
    let text = String(decoding: bytes, as: UTF8.self)
    if let token = EnrollmentToken(text) { precondition(EnrollmentToken(token.text) == token) }
    if let statement = try? RotationStatement(text: bytes) {
        // One that lacks its keys is read, and worth nothing.
        precondition(!statement.isValid(for: coreKey.publicKey.spki, unixSeconds: 0), "a forged rotation")
        if statement.oldKey.count == 91, statement.newKey.count == 91 {
            precondition((try? RotationStatement(text: statement.text)) == statement)
        }
    }
    if let statement = try? SuccessionStatement(text: bytes) {
        _ = statement.isValid(client: client, registeredKey: statement.oldKey, presentedKey: statement.newKey)
        if statement.oldKey.count == 91, statement.newKey.count == 91 {
            precondition((try? SuccessionStatement(text: statement.text)) == statement)
        }
    }
    if let move = try? MoveStatement(reading: bytes.span.bytes) {
        precondition(!move.isValid(for: client, signedBy: coreKey.publicKey), "a forged move")
        let payload = move.payload
        precondition((try? MoveStatement(reading: payload.span.bytes)) == move)
    }
    if let order = try? UpgradeOrder(reading: bytes.span.bytes) {
        precondition((try? order.release.checked(with: coreKey.publicKey)) == nil, "a forged release")
        let payload = order.payload
        precondition((try? UpgradeOrder(reading: payload.span.bytes)) == order)
    }
    if let report = try? UpgradeReport(reading: bytes.span.bytes) {
        let payload = report.payload
        precondition((try? UpgradeReport(reading: payload.span.bytes))?.progress == report.progress)
    }
    if let (_, range) = try? UpgradeFrames.data(reading: bytes.span.bytes) { precondition(range.upperBound == bytes.count) }
    _ = try? UpgradeFrames.request(reading: bytes.span.bytes)
    _ = try? UpgradeFrames.id(reading: bytes.span.bytes)
    if let farewell = try? Farewell(reading: bytes.span.bytes) {
        let payload = farewell.payload
        _ = try? Farewell(reading: payload.span.bytes)
    }
}

private func coreHandshake(_ message: [UInt8]) throws {
    var writer = FrameWriter()
    var machine = CoreHandshakeStateMachine(
        identity: CoreIdentity(key: coreKey), nonce: [UInt8](repeating: 7, count: 32), binding: .loopback, now: 0, to: &writer)
    try frames(message) { (header, payload) throws(WireError) in
        do throws(HandshakeRefusal) {
            if case .proved = try machine.receive(header, payload, now: 0, to: &writer) { fatalError("a forged proof") }
        } catch { throw WireError(.unexpected, error.code) }
    }
}

private func agentHandshake(_ message: [UInt8]) throws {
    var writer = FrameWriter()
    var machine = AgentHandshakeStateMachine(
        identity: AgentIdentity(
            key: agentKey, client: client, bootID: "b", epoch: 1, agentVersion: "1", hostname: "h",
            pins: [coreKey.publicKey.fingerprint]),
        nonce: [UInt8](repeating: 9, count: 32), binding: .loopback, unixSeconds: 0)
    try frames(message) { (header, payload) throws(WireError) in
        do throws(HandshakeRefusal) {
            switch try machine.receive(header, payload, to: &writer) {
            case .accepted, .pending: fatalError("a core that has not proved itself")
            case .replied, .refused: break
            }
        } catch { throw WireError(.unexpected, error.code) }
    }
}

@c(LLVMFuzzerTestOneInput)
public func fuzzAgentProtocol(_ data: UnsafePointer<UInt8>, _ size: Int) -> Int32 {
    guard size > 1, size < 70_000 else { return 0 }
    let bytes = Array(UnsafeBufferPointer(start: data, count: size))
    let message = Array(bytes.dropFirst())
    do {
        switch bytes[0] % 7 {
        case 0: try fromAgent(message)
        case 1: try fromCore(message)
        case 2: try payloads(message)
        case 3: statements(message)
        case 4: try coreHandshake(message)
        case 5: try files(message)
        default: try agentHandshake(message)
        }
    } catch {
        return 0
    }
    return 0
}

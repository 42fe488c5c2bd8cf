import Testing

@testable import AgentProtocol

/// A holder as the agent's machine sees it: a ring of output, and input that comes once.
private struct FakeHolder {
    static let capacity: UInt64 = 300_000
    var end: UInt64 = 0
    var keptFrom: UInt64 = 0
    var total: UInt64
    var input: [UInt8] = []
    var taken: UInt64 = 0
    var attachedFrom: UInt64?
    var sent: UInt64 = 0
    var credit: UInt64 = 0
    var arrived: UInt64 = 0
    var exit: ExitRecord?

    static func byte(_ offset: UInt64) -> UInt8 { UInt8(truncatingIfNeeded: offset &* 31 &+ offset >> 8) }
}

/// Both ends of a link over queues of frames that may be cut at any place; the holder and the core's consumer outlive it.
private struct Pair {
    static let channel = ChannelID(high: 5, low: 6)
    var core = CoreTerminalsStateMachine()
    var agent = AgentTerminalsStateMachine()
    var toCore: [[UInt8]] = []
    var toAgent: [[UInt8]] = []
    var number: UInt32 = 0
    var reports: [TerminalReport] = []

    var holder = FakeHolder(total: 900_000)
    var output: [UInt8] = []
    var position: UInt64 = 0
    var typed: [UInt8] = []
    var acknowledged: UInt64 = 0
    var record: ExitRecord?

    mutating func open() throws {
        var writer = FrameWriter()
        number = try core.open(
            TerminalOrder(order: Order(command: CommandID(sameAs: Self.channel), invocation: .argv([]))), to: &writer)
        toAgent.append(writer.bytes)
    }

    mutating func reconnect() throws {
        core = CoreTerminalsStateMachine()
        agent = AgentTerminalsStateMachine()
        toCore = []
        toAgent = []
        holder.attachedFrom = nil
        var writer = FrameWriter()
        let report = TerminalReport(
            channel: Self.channel, started: .yes, keptFrom: holder.keptFrom, outputEnd: holder.end,
            inputReceived: UInt64(holder.input.count), inputTaken: holder.taken, exit: holder.exit)
        agent.report([report], to: &writer, flush: { _ in })
        var position = 0
        let header = try FrameHeader.next(in: writer.bytes.span.bytes, at: &position)
        #expect(header.kind == .terminalReport)
        let read = try TerminalReport(reading: writer.bytes.span.bytes.extracting(position..<writer.bytes.count))
        #expect(read == report)
        writer.reset()
        number = try core.resume(read, from: self.position, to: &writer)
        toAgent.append(writer.bytes)
    }

    mutating func deliverToAgent() throws {
        let message = toAgent.removeFirst()
        try message.frames { header, payload in
            switch try agent.receive(header, payload) {
            case .start: attach(from: 0)
            case .attach(_, let from): attach(from: from)
            case .credit(_, let offset): holder.credit = max(holder.credit, offset)
            case .input(_, let offset):
                #expect(offset == UInt64(holder.input.count))
                holder.input += payload.withUnsafeBytes { [UInt8]($0) }
            case .detach: holder.attachedFrom = nil
            case .arrived(_, let offset): holder.arrived = max(holder.arrived, offset)
            case .none, .inputEnd, .resize, .signal, .cancel, .forget: break
            }
        }
    }

    mutating func attach(from: UInt64) {
        holder.attachedFrom = from
        holder.sent = max(from, holder.keptFrom)
        holder.credit = holder.sent + WireLimits.initialWindowBytes
        var writer = FrameWriter()
        agent.attached(Self.channel, at: holder.sent, to: &writer)
        toCore.append(writer.bytes)
    }

    mutating func run(_ generator: inout some RandomNumberGenerator) {
        let room = FakeHolder.capacity - (holder.end - min(holder.end, max(holder.keptFrom, holder.arrived)))
        holder.end += min(UInt64.random(in: 0...40_000, using: &generator), min(room, holder.total - holder.end))
        if holder.end > FakeHolder.capacity { holder.keptFrom = max(holder.keptFrom, holder.end - FakeHolder.capacity) }
        var writer = FrameWriter()
        holder.taken += UInt64.random(in: 0...(UInt64(holder.input.count) - holder.taken), using: &generator)
        agent.inputTaken(Self.channel, upTo: holder.taken, to: &writer)
        while holder.attachedFrom != nil, holder.sent < min(holder.end, holder.credit) {
            let count = min(min(holder.end, holder.credit) - holder.sent, UInt64(WireLimits.dataBytes))
            let bytes = (holder.sent..<holder.sent + count).map { FakeHolder.byte($0) }
            guard agent.output(Self.channel, at: holder.sent, bytes.span.bytes, to: &writer) else { break }
            holder.sent += count
        }
        if holder.end == holder.total, holder.exit == nil {
            let record = ExitRecord(
                command: CommandID(sameAs: Self.channel), outcome: .exited(code: 0), started: .yes,
                standardOutputBytes: holder.end)
            holder.exit = record
            agent.finished(record)
        }
        agent.writeControl(to: &writer)
        if !writer.bytes.isEmpty { toCore.append(writer.bytes) }
    }

    mutating func deliverToCore() throws {
        let message = toCore.removeFirst()
        try message.frames { header, payload in
            var writer = FrameWriter()
            switch try core.receive(header, payload) {
            case .none, .started: break
            case .attached(_, let offset):
                #expect(offset == position)
            case .output(_, let offset):
                #expect(offset == position)
                output += payload.withUnsafeBytes { [UInt8]($0) }
                position += UInt64(payload.byteCount)
                core.arrived(number, upTo: position, to: &writer)
                core.grant(number, upTo: position + WireLimits.terminalLeadBytes, to: &writer)
            case .inputGranted(_, let limit): acknowledged = max(acknowledged, limit - WireLimits.inputWindowBytes)
            case .exited(_, let end): record = end
            }
            if !writer.bytes.isEmpty { toAgent.append(writer.bytes) }
        }
    }

    mutating func type(_ generator: inout some RandomNumberGenerator) {
        if typed.count < 200_000 {
            typed += (0..<Int.random(in: 0...9_000, using: &generator)).map { _ in .random(in: 0...255, using: &generator) }
        }
        guard let room = core.inputRoom(number), room.offset <= UInt64(typed.count) else { return }
        let start = Int(room.offset)
        let count = min(min(room.count, typed.count - start), WireLimits.dataBytes)
        guard count > 0 else { return }
        var writer = FrameWriter()
        let piece = Array(typed[start..<start + count])
        core.input(number, piece.span.bytes, to: &writer)
        toAgent.append(writer.bytes)
    }
}

extension [UInt8] {
    fileprivate func frames(_ body: (FrameHeader, RawSpan) throws -> Void) throws {
        var position = 0
        while position < count {
            let header = try FrameHeader.next(in: span.bytes, at: &position)
            let end = position + Int(header.length)
            try body(header, span.bytes.extracting(position..<end))
            position = end
        }
    }
}

@Suite struct TerminalTests {
    @Test(arguments: 0..<12) func nothingIsLostOrRepeatedOverCutLinks(_ seed: Int) throws {
        var generator = SplitMix(state: UInt64(seed) &* 77 &+ 5)
        var pair = Pair()
        try pair.open()
        var steps = 0
        while pair.record == nil || pair.holder.input.count < pair.typed.count || pair.typed.count < 200_000 {
            steps += 1
            try #require(steps < 200_000)
            switch Int.random(in: 0..<100, using: &generator) {
            case 0 where steps > 20: try pair.reconnect()
            case 1..<20: pair.run(&generator)
            case 20..<40 where pair.record == nil: pair.type(&generator)
            case 20..<40: pair.type(&generator)
            case 40..<70: if !pair.toAgent.isEmpty { try pair.deliverToAgent() }
            default: if !pair.toCore.isEmpty { try pair.deliverToCore() }
            }
            // After its end a program takes no input; the test stops typing then.
            if pair.record != nil { break }
        }
        #expect(pair.output.count == 900_000)
        #expect(pair.output.indices.allSatisfy { pair.output[$0] == FakeHolder.byte(UInt64($0)) })
        #expect(Array(pair.typed.prefix(pair.holder.input.count)) == pair.holder.input)
        #expect(pair.acknowledged <= UInt64(pair.holder.input.count))
    }

    private func opened() throws -> Pair {
        var pair = Pair()
        try pair.open()
        try pair.deliverToAgent()
        try pair.deliverToCore()
        return pair
    }

    private func code(_ body: () throws -> Void) -> WireError.Code? {
        do {
            try body()
            return nil
        } catch { return (error as? WireError)?.code }
    }

    private func toCore(
        _ pair: inout Pair, _ kind: FrameKind, flags: UInt8 = 0, channel: UInt32? = nil, offset: UInt64 = 0,
        _ payload: [UInt8] = []
    ) -> WireError.Code? {
        let header = FrameHeader(
            kind, flags: flags, channel: channel ?? pair.number, offset: offset, length: UInt32(payload.count))
        return code { _ = try pair.core.receive(header, payload.span.bytes) }
    }

    private func toAgent(
        _ pair: inout Pair, _ kind: FrameKind, flags: UInt8 = 0, channel: UInt32? = nil, offset: UInt64 = 0,
        _ payload: [UInt8] = []
    ) -> WireError.Code? {
        let header = FrameHeader(
            kind, flags: flags, channel: channel ?? pair.number, offset: offset, length: UInt32(payload.count))
        return code { _ = try pair.agent.receive(header, payload.span.bytes) }
    }

    @Test func whatAnAgentMayNotSend() throws {
        var pair = try opened()
        #expect(toCore(&pair, .data, flags: 1, channel: 0x8000_0077, [1]) == .foreignChannel)
        #expect(toCore(&pair, .data, flags: 1, offset: 1, [1]) == .wrongOffset)
        #expect(toCore(&pair, .data, flags: 2, [1]) == .malformed)
        #expect(toCore(&pair, .data, flags: 1) == .malformed)
        #expect(toCore(&pair, .attached) == .unexpected)
        #expect(toCore(&pair, .credit, flags: 3, offset: 70_000) == .wrongOffset)
        #expect(toCore(&pair, .credit, flags: 1, offset: 65_536) == .malformed)
        #expect(toCore(&pair, .resize) == .unexpected)
        for step in 0..<4 {
            let bytes = [UInt8](repeating: 0, count: WireLimits.dataBytes)
            #expect(toCore(&pair, .data, flags: 1, offset: UInt64(step * WireLimits.dataBytes), bytes) == nil)
        }
        #expect(toCore(&pair, .data, flags: 1, offset: 65_536, [1]) == .creditExceeded)
        var writer = FrameWriter()
        ExitRecord(command: CommandID(high: 1, low: 1), outcome: .cancelled, started: .yes).write(to: &writer)
        #expect(toCore(&pair, .exit, writer.bytes) == .foreignChannel)
        writer.reset()
        ExitRecord(command: CommandID(sameAs: Pair.channel), outcome: .cancelled, started: .yes, standardOutputBytes: 1)
            .write(to: &writer)
        #expect(toCore(&pair, .exit, writer.bytes) == .wrongOffset)
    }

    @Test func whatACoreMayNotSend() throws {
        var pair = try opened()
        #expect(toAgent(&pair, .data, flags: 3, channel: 0x8000_0077, [1]) == .foreignChannel)
        #expect(toAgent(&pair, .data, flags: 3, offset: 1, [1]) == .wrongOffset)
        #expect(toAgent(&pair, .data, flags: 1, [1]) == .malformed)
        #expect(toAgent(&pair, .signal, flags: 5) == .malformed)
        #expect(toAgent(&pair, .resize, offset: 1 << 40) == .malformed)
        #expect(toAgent(&pair, .inputEnd, offset: 3) == .wrongOffset)
        #expect(toAgent(&pair, .exitAcknowledged) == .unexpected)
        #expect(toAgent(&pair, .credit, flags: 3, offset: 1) == .malformed)
        #expect(toAgent(&pair, .credit, flags: 2, offset: 1) == .wrongOffset)
        #expect(toAgent(&pair, .attached) == .unexpected)
        for step in 0..<4 {
            let bytes = [UInt8](repeating: 0, count: WireLimits.dataBytes)
            #expect(toAgent(&pair, .data, flags: 3, offset: UInt64(step * WireLimits.dataBytes), bytes) == nil)
        }
        #expect(toAgent(&pair, .data, flags: 3, offset: 65_536, [1]) == .creditExceeded)
        // A second order for the same terminal, and a number that belongs to executions.
        var writer = FrameWriter()
        TerminalOrder(order: Order(command: CommandID(sameAs: Pair.channel), invocation: .argv([]))).write(to: &writer)
        #expect(toAgent(&pair, .open, flags: 2, channel: 0x8000_0009, writer.bytes) == .duplicate)
        writer.reset()
        TerminalOrder(order: Order(command: CommandID(high: 8, low: 8), invocation: .argv([]))).write(to: &writer)
        #expect(toAgent(&pair, .open, flags: 2, channel: 9, writer.bytes) == .duplicate)
        writer.reset()
        TerminalOrder(
            order: Order(command: CommandID(high: 8, low: 8), invocation: .script(interpreter: ["sh"], body: [], arguments: []))
        ).write(to: &writer)
        #expect(toAgent(&pair, .open, flags: 2, channel: 0x8000_0009, writer.bytes) == .malformed)
    }

    @Test func aPayloadOverItsBoundIsOversize() {
        var writer = FrameWriter()
        writer.frame(.attach, channel: 0x8000_0001, payload: [1])
        #expect(code { try writer.bytes.frames { _, _ in } } == .oversize)
    }

    @Test func anOrderKeepsEverything() throws {
        var order = Order(
            command: CommandID(high: 1, low: 2), invocation: .argv(["top", "-d", "1"]), environment: ["A": "b"],
            workingDirectory: "/tmp", user: "nobody", timeoutMilliseconds: 5)
        order.outputLimitBytes = 0
        let terminal = TerminalOrder(
            form: .stream, order: order, size: TerminalSize(rows: 1, columns: 2), terminalType: "", keptBytes: 7,
            isLossy: false, idleMilliseconds: 9, orphanMilliseconds: 11)
        var writer = FrameWriter()
        terminal.write(to: &writer)
        #expect(writer.bytes.count == terminal.encodedBytes)
        #expect(try TerminalOrder(reading: writer.bytes.span.bytes) == terminal)
        for cut in stride(from: 0, to: writer.bytes.count, by: 3) {
            #expect(throws: WireError.self) {
                _ = try TerminalOrder(reading: writer.bytes.span.bytes.extracting(0..<cut))
            }
        }
    }
}

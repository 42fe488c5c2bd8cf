import Testing

@testable import AgentProtocol

/// An execution whose output is a function of its offset, so that any misplaced byte shows.
private struct FakeExecution {
    var order: Order
    var total: StreamPair<UInt64>
    var kept = StreamPair<UInt64>(0, 0)
    var exit: ExitRecord?

    static func byte(_ command: CommandID, _ stream: OutputStream, _ offset: UInt64) -> UInt8 {
        UInt8(truncatingIfNeeded: offset &* 31 &+ offset >> 8 &+ command.low &+ UInt64(stream.rawValue) &* 101)
    }

    mutating func run(_ generator: inout some RandomNumberGenerator) -> [OutputStream] {
        guard exit == nil else { return [] }
        var changed: [OutputStream] = []
        for stream in OutputStream.allCases where kept[stream] < total[stream] {
            kept[stream] += min(UInt64.random(in: 0...90_000, using: &generator), total[stream] - kept[stream])
            changed.append(stream)
        }
        if kept == total {
            exit = ExitRecord(
                command: order.command, outcome: .exited(code: 0), started: .yes, startedAt: 5,
                standardOutputBytes: total.output, standardErrorBytes: total.errors)
        }
        return changed
    }
}

/// Both ends of a link over queues of frames that may be cut at any place; the agent's spool and the core's store
/// outlive each link.
private struct Fleet {
    var executions: [FakeExecution] = []
    var stored: [CommandID: StreamPair<UInt64>] = [:]
    var recorded: [CommandID: Int] = [:]
    var sent: Set<CommandID> = []
    var waiting: [Order] = []

    var core = CoreChannelsStateMachine()
    var agent = AgentChannelsStateMachine()
    var toCore: [[UInt8]] = []
    var toAgent: [[UInt8]] = []

    mutating func connect() {
        core = CoreChannelsStateMachine()
        agent = AgentChannelsStateMachine()
        toCore = []
        toAgent = []
        var writer = FrameWriter()
        agent.report(
            executions.map {
                ExecutionReport(
                    command: $0.order.command, started: .yes, standardOutputBytes: $0.kept.output,
                    standardErrorBytes: $0.kept.errors, exit: $0.exit)
            }, to: &writer, flush: { _ in })
        toCore.append(writer.bytes)
    }

    mutating func coreStep(_ message: [UInt8]) throws {
        var writer = FrameWriter()
        var position = 0
        while position < message.count {
            let header = try FrameHeader.next(in: message.span.bytes, at: &position)
            let payload = Array(message[position..<position + Int(header.length)])
            position += payload.count
            switch try core.receive(header, payload.span.bytes) {
            case .none, .started: break
            case .reportsComplete(let reports):
                for report in reports {
                    let have = stored[report.command] ?? StreamPair(0, 0)
                    if recorded[report.command] != nil {
                        try core.decide(.forget(command: report.command), to: &writer)
                    } else {
                        try core.decide(
                            .resume(
                                command: report.command, standardOutputFrom: have.output,
                                standardErrorFrom: have.errors), to: &writer)
                    }
                }
                for order in waiting where sent.insert(order.command).inserted { try core.open(order, to: &writer) }
            case .output(let command, let stream, let offset):
                var have = stored[command] ?? StreamPair(0, 0)
                #expect(have[stream] == offset)
                let isRight = payload.enumerated().allSatisfy { index, byte in
                    byte == FakeExecution.byte(command, stream, offset + UInt64(index))
                }
                #expect(isRight)
                have[stream] = offset + UInt64(payload.count)
                stored[command] = have
                core.grant(command, stream, upTo: have[stream] + WireLimits.initialWindowBytes, to: &writer)
            case .finished(let record):
                recorded[record.command, default: 0] += 1
                core.acknowledge(record.command, to: &writer)
            }
        }
        if !writer.bytes.isEmpty { toAgent.append(writer.bytes) }
    }

    mutating func agentStep(_ message: [UInt8]) throws {
        var position = 0
        while position < message.count {
            let header = try FrameHeader.next(in: message.span.bytes, at: &position)
            let payload = Array(message[position..<position + Int(header.length)])
            position += payload.count
            switch try agent.receive(header, payload.span.bytes) {
            case .none, .cancel: break
            case .start(let order):
                #expect(!executions.contains { $0.order.command == order.command })
                executions.append(
                    FakeExecution(
                        order: order,
                        total: StreamPair(order.outputLimitBytes, order.killGraceMilliseconds)))
            case .forget(let command): executions.removeAll { $0.order.command == command }
            }
        }
    }

    mutating func agentSends(_ generator: inout some RandomNumberGenerator) {
        for index in executions.indices {
            let command = executions[index].order.command
            for stream in executions[index].run(&generator) {
                agent.executionHasOutput(command, stream, length: executions[index].kept[stream])
            }
            if let exit = executions[index].exit { agent.executionFinished(exit) }
        }
        var writer = FrameWriter()
        for _ in 0..<4 {
            guard let piece = agent.nextOutput() else { break }
            let count = writer.data(
                stream: piece.stream, channel: piece.channel, offset: piece.offset, maximum: piece.maximum
            ) { span in
                for index in 0..<piece.maximum {
                    span.append(FakeExecution.byte(piece.command, piece.stream, piece.offset + UInt64(index)))
                }
                return piece.maximum
            }
            agent.sent(piece, count)
        }
        repeat {
            if !writer.bytes.isEmpty { toCore.append(writer.bytes) }
            writer.reset()
        } while !agent.writeControl(to: &writer)
        if !writer.bytes.isEmpty { toCore.append(writer.bytes) }
    }
}

@Suite struct ChannelTests {
    /// Twenty links that are cut at random places: each byte is stored once and in order, each end recorded once.
    @Test(arguments: 0..<8) func cutAndResumeLosesAndDoublesNothing(seed: UInt64) throws {
        var generator = SplitMix(state: seed)
        var fleet = Fleet()
        fleet.waiting = (0..<5).map { number in
            Order(
                command: CommandID(high: seed, low: UInt64(number)), invocation: .argv(["x"]),
                // The fake reads the sizes of its streams from here.
                killGraceMilliseconds: .random(in: 0...150_000, using: &generator),
                outputLimitBytes: number == 0 ? 0 : .random(in: 1...400_000, using: &generator))
        }
        var cuts = 0
        for _ in 0..<20_000 {
            if cuts == 0 || (cuts < 20 && Int.random(in: 0..<40, using: &generator) == 0) {
                cuts += 1
                // What was under way is gone. An order that did not arrive is sent again only because the agent's
                // report says that it never came.
                fleet.connect()
                let known = Set(fleet.executions.map(\.order.command))
                fleet.sent.formIntersection(known.union(fleet.recorded.keys))
            }
            switch Int.random(in: 0..<3, using: &generator) {
            case 0 where !fleet.toCore.isEmpty: try fleet.coreStep(fleet.toCore.removeFirst())
            case 1 where !fleet.toAgent.isEmpty: try fleet.agentStep(fleet.toAgent.removeFirst())
            case 2: fleet.agentSends(&generator)
            default: break
            }
            if cuts >= 20, fleet.recorded.count == 5, fleet.executions.isEmpty { break }
        }
        #expect(fleet.recorded.count == 5)
        #expect(fleet.recorded.values.allSatisfy { $0 == 1 })
        #expect(fleet.executions.isEmpty)
        for order in fleet.waiting {
            let have = fleet.stored[order.command] ?? StreamPair(0, 0)
            #expect(have == StreamPair(order.outputLimitBytes, order.killGraceMilliseconds))
        }
        #expect(fleet.core.openChannels == 0)
        #expect(fleet.agent.openChannels == 0)
    }

    private func open(_ core: inout CoreChannelsStateMachine, _ commands: [UInt64]) throws {
        var writer = FrameWriter()
        for command in commands {
            try core.open(
                Order(command: CommandID(high: 0, low: command), invocation: .argv(["x"])), to: &writer)
        }
    }

    private func code(
        _ core: inout CoreChannelsStateMachine, _ kind: FrameKind, flags: UInt8 = 0, channel: UInt32 = 0,
        offset: UInt64 = 0, _ payload: [UInt8] = []
    ) -> WireError.Code? {
        do throws(WireError) {
            _ = try core.receive(
                FrameHeader(kind, flags: flags, channel: channel, offset: offset, length: UInt32(payload.count)),
                payload.span.bytes)
            return nil
        } catch { return error.code }
    }

    @Test func lyingAgentIsRefusedWithACode() throws {
        var core = CoreChannelsStateMachine()
        try open(&core, [1, 2])
        #expect(code(&core, .data, flags: 1, channel: 3, [1]) == .foreignChannel)
        #expect(code(&core, .data, flags: 1, channel: 0, [1]) == .foreignChannel)
        #expect(code(&core, .data, flags: 3, channel: 1, [1]) == .malformed)
        #expect(code(&core, .data, flags: 1, channel: 1, []) == .malformed)
        #expect(code(&core, .data, flags: 1, channel: 1, offset: 1, [1]) == .wrongOffset)
        #expect(code(&core, .data, flags: 1, channel: 1, offset: 0, [1]) == nil)
        #expect(code(&core, .data, flags: 1, channel: 1, offset: 0, [1]) == .wrongOffset)
        #expect(code(&core, .open, channel: 9) == .unexpected)
        #expect(code(&core, .exitAcknowledged, channel: 1) == .unexpected)
        // Sent on channel 1: the exit of the command on channel 2.
        let foreign = ExitRecord(command: CommandID(high: 0, low: 2), outcome: .exited(code: 0), started: .yes)
        #expect(code(&core, .exit, channel: 1, payload { foreign.write(to: &$0) }) == .foreignChannel)
        // An exit that claims more output than came.
        let early = ExitRecord(
            command: CommandID(high: 0, low: 2), outcome: .exited(code: 0), started: .yes, standardOutputBytes: 1)
        #expect(code(&core, .exit, channel: 2, payload { early.write(to: &$0) }) == .wrongOffset)
        #expect(code(&core, .exit, channel: 2, payload { foreign.write(to: &$0) }) == nil)
        #expect(code(&core, .exit, channel: 2, payload { foreign.write(to: &$0) }) == .duplicate)
        #expect(code(&core, .data, flags: 1, channel: 2, [1]) == .wrongOffset)
        #expect(code(&core, .reportsEnd) == nil)
        #expect(code(&core, .reportsEnd) == .unexpected)
        #expect(code(&core, .report, []) == .unexpected)
    }

    @Test func creditIsABound() throws {
        var core = CoreChannelsStateMachine()
        try open(&core, [1])
        let block = [UInt8](repeating: 0, count: WireLimits.dataBytes)
        var offset: UInt64 = 0
        while offset < WireLimits.initialWindowBytes {
            #expect(code(&core, .data, flags: 1, channel: 1, offset: offset, block) == nil)
            offset += UInt64(block.count)
        }
        #expect(code(&core, .data, flags: 1, channel: 1, offset: offset, [1]) == .creditExceeded)
        var writer = FrameWriter()
        core.grant(CommandID(high: 0, low: 1), .standardOutput, upTo: offset + 1, to: &writer)
        #expect(code(&core, .data, flags: 1, channel: 1, offset: offset, [1]) == nil)
        #expect(code(&core, .data, flags: 1, channel: 1, offset: offset + 1, [1]) == .creditExceeded)
        // Less than before is nothing.
        writer.reset()
        core.grant(CommandID(high: 0, low: 1), .standardOutput, upTo: 5, to: &writer)
        #expect(writer.bytes.isEmpty)
    }

    @Test func channelsAndReportsAreBounded() throws {
        var core = CoreChannelsStateMachine(limit: 2)
        try open(&core, [1, 2])
        var writer = FrameWriter()
        #expect(throws: CoreChannelsStateMachine.Refusal.tooManyChannels(limit: 2)) {
            try core.open(Order(command: CommandID(high: 0, low: 3), invocation: .argv(["x"])), to: &writer)
        }
        #expect(throws: CoreChannelsStateMachine.Refusal.alreadyOpen) {
            try core.open(Order(command: CommandID(high: 0, low: 1), invocation: .argv(["x"])), to: &writer)
        }
        let large = String(repeating: "x", count: WireLimits.openBytes)
        #expect(throws: CoreChannelsStateMachine.Refusal.self) {
            try core.open(Order(command: CommandID(high: 0, low: 4), invocation: .shell(large)), to: &writer)
        }
        #expect(writer.bytes.isEmpty)
        let report = payload {
            ExecutionReport(
                command: Samples.command, started: .no, standardOutputBytes: 0, standardErrorBytes: 0, exit: nil
            ).write(to: &$0)
        }
        for _ in 0..<WireLimits.reports { #expect(code(&core, .report, report) == nil) }
        #expect(code(&core, .report, report) == .tooManyChannels)
    }

    private func agentCode(
        _ agent: inout AgentChannelsStateMachine, _ kind: FrameKind, flags: UInt8 = 0, channel: UInt32 = 0,
        offset: UInt64 = 0, _ payload: [UInt8] = []
    ) -> WireError.Code? {
        do throws(WireError) {
            _ = try agent.receive(
                FrameHeader(kind, flags: flags, channel: channel, offset: offset, length: UInt32(payload.count)),
                payload.span.bytes)
            return nil
        } catch { return error.code }
    }

    @Test func lyingCoreIsRefusedWithACode() throws {
        var agent = AgentChannelsStateMachine()
        var writer = FrameWriter()
        agent.report(
            [
                ExecutionReport(
                    command: CommandID(high: 0, low: 8), started: .yes, standardOutputBytes: 10,
                    standardErrorBytes: 0, exit: nil)
            ], to: &writer, flush: { _ in })
        func decision(_ command: UInt64, output: UInt64) -> [UInt8] {
            payload {
                $0.identifier(CommandID(high: 0, low: command))
                $0.u64(output)
                $0.u64(0)
            }
        }
        let order = payload { Order(command: CommandID(high: 0, low: 1), invocation: .argv(["x"])).write(to: &$0) }
        #expect(agentCode(&agent, .open, flags: 1, channel: 0, order) == .duplicate)
        #expect(agentCode(&agent, .open, flags: 2, channel: 1, order) == .unexpected)
        #expect(agentCode(&agent, .open, flags: 1, channel: 1, order) == nil)
        #expect(agentCode(&agent, .open, flags: 1, channel: 1, order) == .duplicate)
        #expect(agentCode(&agent, .open, flags: 1, channel: 2, order) == .duplicate)
        #expect(agentCode(&agent, .cancel, channel: 7) == .foreignChannel)
        #expect(agentCode(&agent, .credit, flags: 1, channel: 7, offset: 9) == .foreignChannel)
        #expect(agentCode(&agent, .exitAcknowledged, channel: 1) == .unexpected)
        #expect(agentCode(&agent, .decision, flags: 1, channel: 5, decision(9, output: 0)) == .foreignChannel)
        #expect(agentCode(&agent, .decision, flags: 1, channel: 5, decision(8, output: 11)) == .wrongOffset)
        #expect(agentCode(&agent, .decision, flags: 4, channel: 5, decision(8, output: 1)) == .malformed)
        #expect(agentCode(&agent, .decision, flags: 1, channel: 5, decision(8, output: 10)) == nil)
        #expect(agentCode(&agent, .decision, flags: 2, channel: 0, decision(8, output: 0)) == .foreignChannel)
        #expect(agentCode(&agent, .data, flags: 1, channel: 1, [1]) == .unexpected)
    }

    @Test func shortCommandsPassALongDump() throws {
        var agent = AgentChannelsStateMachine()
        for number in 1...2 as ClosedRange<UInt32> {
            let order = payload {
                Order(command: CommandID(high: 0, low: UInt64(number)), invocation: .argv(["x"])).write(to: &$0)
            }
            #expect(agentCode(&agent, .open, flags: 1, channel: number, order) == nil)
            #expect(agentCode(&agent, .credit, flags: 1, channel: number, offset: 1 << 40) == nil)
        }
        agent.executionHasOutput(CommandID(high: 0, low: 1), .standardOutput, length: 1 << 30)
        for _ in 0..<40 {
            guard let piece = agent.nextOutput() else { break }
            agent.sent(piece, piece.maximum)
        }
        agent.executionHasOutput(CommandID(high: 0, low: 2), .standardOutput, length: 100)
        let next = agent.nextOutput()
        #expect(next?.channel == 2)
    }

    @Test func unreadableSpoolEndsAsAnExactPrefix() throws {
        var agent = AgentChannelsStateMachine()
        let command = CommandID(high: 0, low: 1)
        let order = payload { Order(command: command, invocation: .argv(["x"])).write(to: &$0) }
        #expect(agentCode(&agent, .open, flags: 1, channel: 1, order) == nil)
        agent.executionFinished(
            ExitRecord(command: command, outcome: .exited(code: 0), started: .yes, standardOutputBytes: 100))
        let first = agent.nextOutput()
        agent.sent(try #require(first), 40)
        let second = agent.nextOutput()
        #expect(second?.offset == 40)
        agent.sent(try #require(second), 0)
        let third = agent.nextOutput()
        #expect(third == nil)
        var writer = FrameWriter()
        let isComplete = agent.writeControl(to: &writer)
        #expect(isComplete)
        let bytes = try frame(writer.bytes).1
        let record = try ExitRecord(reading: bytes.span.bytes)
        #expect(record.standardOutputBytes == 40)
        guard case .interrupted = record.outcome else {
            Issue.record("\(record.outcome)")
            return
        }
    }
}

/// A small generator with a seed, so that a failing run can be repeated.
struct SplitMix: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ mixed >> 30) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ mixed >> 27) &* 0x94D0_49BB_1331_11EB
        return mixed ^ mixed >> 31
    }
}

import AgentProtocol
import Reactor
import System
import Transport

/// What goes to the core.
extension AgentSession: ExecutorObserver {
    /// After the accept: what is kept here, then the facts.
    func beginChannels() {
        channels = AgentChannelsStateMachine()
        executor.observer = self
        let reports = executor.reports()
        writer.reset()
        beginTerminals()
        beginFiles()
        channels.report(reports, to: &writer) { writer in
            send(&writer)
            writer.reset()
        }
        send(&writer)
        sendFacts()
    }

    /// Also when they have changed.
    public func sendFacts() {
        guard phase == .online else { return }
        let facts = facts
        let epoch = epoch
        let me = me
        loop.spawn {
            let bytes = await facts()
            me.assumeOnLoop { session in
                guard session.phase == .online, session.epoch == epoch, bytes.count <= WireLimits.factsBytes else {
                    return
                }
                session.write { $0.frame(.facts, payload: bytes) }
            }
        }
    }

    public func executionStarted(_ command: CommandID, at unixMilliseconds: UInt64) {
        channels.executionStarted(command, at: unixMilliseconds)
        pumpSoon()
    }

    public func executionHasOutput(_ command: CommandID, _ stream: OutputStream, length: UInt64) {
        channels.executionHasOutput(command, stream, length: length)
        pumpSoon()
    }

    public func executionFinished(_ record: ExitRecord) {
        channels.executionFinished(record)
        pumpSoon()
    }

    /// News of one turn leave in one message.
    func pumpSoon() {
        guard !isPumpPosted else { return }
        isPumpPosted = true
        let me = me
        loop.post {
            me.assumeOnLoop { session in
                session.isPumpPosted = false
                session.pump()
            }
        }
    }

    /// Sends what may go now: starts first, then output while the socket and the pace take it, then the ends that this
    /// completes.
    func pump() {
        guard phase == .online, let socket else { return }
        var left = pace.allowance(at: loop.now)
        while true {
            writer.reset()
            terminals.writeControl(to: &writer)
            let isComplete = channels.writeControl(to: &writer)
            var hasOutput = false
            if isComplete, left > 0, !socket.isOverHighMark {
                if let piece = channels.nextOutput() {
                    hasOutput = true
                    let count = writer.data(
                        stream: piece.stream, channel: piece.channel, offset: piece.offset, maximum: piece.maximum
                    ) { span in executor.read(piece.command, piece.stream, at: piece.offset, into: &span) }
                    channels.sent(piece, count)
                    // Most executions end with this piece: their exit shares the message.
                    _ = channels.writeControl(to: &writer)
                    left -= writer.bytes.count
                } else if writer.bytes.isEmpty {
                    // Files go when nothing else wants to: a message of its own, because its bound is one piece.
                    let count = sendNextPiece()
                    hasOutput = count > 0
                    left -= count
                }
            }
            // After a message of control frames alone it is the turn of what waits behind them.
            let isSomething = hasOutput || !writer.bytes.isEmpty
            send(&writer)
            guard isSomething || !isComplete, self.socket === socket else { break }
            if hasOutput, left <= 0 {
                pumpLater()
                break
            }
        }
        if channels.openChannels == 0 { writer.release() }
    }

    /// The turn has had its output.
    private func pumpLater() {
        guard pace.spent(at: loop.now) else { return pumpSoon() }
        let timer = paceTimer ?? Timer { [weak self] in
            self?.pace.resume()
            self?.pump()
        }
        paceTimer = timer
        loop.schedule(timer, afterMilliseconds: OutputPaceStateMachine.pauseMilliseconds)
    }

    /// One message of what `body` writes.
    func write(_ body: (inout FrameWriter) -> Void) {
        writer.reset()
        body(&writer)
        send(&writer)
    }

    func send(_ writer: inout FrameWriter) {
        guard !writer.bytes.isEmpty, let socket else { return }
        if seal != nil {
            do throws(WireError) { try seal?.seal(&writer) } catch { return socket.abort() }
        }
        killPoint("agent.send.before")
        socket.send(writer.bytes)
        killPoint("agent.send.after")
    }
}

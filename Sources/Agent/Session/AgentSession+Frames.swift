import AgentProtocol
import Crypto
import Reactor
import Transport

/// What comes from the core.
extension AgentSession: WebSocketDelegate {
    public func webSocket(_ socket: WebSocketConnection, received message: RawSpan, isText: Bool) {
        if (self.socket == nil && phase == .connecting) || phase == .awaitingChallenge {
            guard beginHandshake(socket) else { return socket.abort() }
        }
        guard self.socket === socket else { return }
        heardAt = loop.now
        guard !isText else { return broken(WireError(.malformed, "a text message; the protocol is binary")) }
        do throws(WireError) {
            if seal != nil {
                let plain = try open(message)
                try frames(plain.span.bytes, on: socket)
            } else {
                try frames(message, on: socket)
            }
        } catch { broken(error) }
        if phase == .online { pumpSoon() }
    }

    private func open(_ message: borrowing RawSpan) throws(WireError) -> [UInt8] {
        var position = 0
        let header = try FrameHeader.next(in: message, at: &position)
        guard position + Int(header.length) == message.byteCount else {
            throw WireError(.malformed, "a sealed message holds exactly one frame")
        }
        return try seal?.open(header, message.extracting(position..<message.byteCount)) ?? []
    }

    private func frames(_ message: borrowing RawSpan, on socket: WebSocketConnection) throws(WireError) {
        var position = 0
        repeat {
            let header = try FrameHeader.next(in: message, at: &position)
            let end = position + Int(header.length)
            let payload = message.extracting(position..<end)
            position = end
            switch phase {
            case .online: try receive(header, payload)
            case .handshake, .pending: advance(header, payload)
            case .idle, .waiting, .connecting, .awaitingChallenge, .stopped: return
            }
        } while position < message.byteCount && self.socket === socket
    }

    private func advance(_ header: FrameHeader, _ payload: borrowing RawSpan) {
        guard var machine = handshake else { return }
        writer.reset()
        do throws(HandshakeRefusal) {
            let event: AgentHandshakeStateMachine.Event
            if header.kind == .sealed {
                let plain = try machine.open(header, payload)
                event = try innerFrame(&machine, plain)
            } else {
                event = try machine.receive(header, payload, to: &writer)
            }
            handshake = machine
            if !writer.bytes.isEmpty { socket?.send(writer.bytes) }
            switch event {
            case .replied: break
            case .pending(let notice, let coreFingerprint):
                phase = .pending
                watchForSilence()
                observer?.sessionPending(
                    enrollment: notice.enrollment, agentFingerprint: identity.key.publicKey.fingerprint,
                    coreFingerprint: coreFingerprint)
            case .accepted(let accepted, let coreFingerprint):
                self.accepted(accepted, coreFingerprint: coreFingerprint)
            case .refused(let farewell): heard(farewell)
            }
        } catch {
            lost(code: error.code, message: error.message)
        }
    }

    private func innerFrame(
        _ machine: inout AgentHandshakeStateMachine, _ plain: [UInt8]
    ) throws(HandshakeRefusal) -> AgentHandshakeStateMachine.Event {
        do throws(WireError) {
            var position = 0
            let header = try FrameHeader.next(in: plain.span.bytes, at: &position)
            let payload = plain.span.bytes.extracting(position..<plain.count)
            do throws(HandshakeRefusal) {
                return try machine.receive(header, payload, to: &writer)
            } catch { throw WireError(.malformed, error.description) }
        } catch { throw HandshakeRefusal(error.code.rawValue, error.detail) }
    }

    private func receive(_ header: FrameHeader, _ payload: borrowing RawSpan) throws(WireError) {
        switch header.kind {
        case .beat:
            let answer = measure()
            write { writer in
                writer.begin(.beatAnswer, offset: header.offset)
                answer.write(to: &writer)
                writer.end()
            }
            moveIfFree()
        case .liveness:
            // Invariant: the array copies before the closure ends.
            let nonce = unsafe payload.withUnsafeBytes { unsafe [UInt8]($0) }
            guard nonce.count == LivenessCheck.nonceBytes, let client else {
                throw WireError(.malformed, "a liveness check holds 32 bytes")
            }
            guard
                let signature = try? identity.key.sign(
                    LivenessCheck.signed(nonce: nonce, client: client, epoch: epoch))
            else { return }
            write { $0.frame(.livenessProof, payload: signature) }
        case .close: heard(try Farewell(reading: payload))
        case .move: try received(try MoveStatement(reading: payload))
        case .privateFile: try receivePrivateFile(header, payload)
        case .upgrade, .upgradeForgotten, .releaseData: try receiveUpgrade(header, payload)
        case .open where header.flags == ChannelKind.terminal.rawValue, .terminalDecision:
            try receiveTerminal(header, payload)
        case _ where Self.isAboutFiles(header): try receiveFiles(header, payload)
        case _ where header.channel & WireLimits.terminalChannel != 0: try receiveTerminal(header, payload)
        default:
            switch try channels.receive(header, payload) {
            case .none: break
            case .start(let order): executor.start(order)
            case .cancel(let command): executor.cancel(command)
            case .forget(let command):
                executor.forget(command)
                moveIfFree()
            }
        }
    }

    private func broken(_ error: WireError) {
        if phase == .online {
            write {
                $0.frame(.close, payload: Farewell(code: error.code.rawValue, message: error.detail).payload)
            }
        }
        lost(code: error.code.rawValue, message: error.detail)
    }

    public func webSocket(_ socket: WebSocketConnection, pong payload: RawSpan) {
        if self.socket === socket { heardAt = loop.now }
    }

    public func webSocketDrained(_ socket: WebSocketConnection) {
        guard self.socket === socket, phase == .online else { return }
        // Somebody waits for a terminal's output, so it goes first.
        terminalExecutor?.resumeOutput()
        pumpSoon()
    }

    public func webSocketClosed(_ socket: WebSocketConnection, _ code: WebSocketCloseCode, _ reason: String) {
        guard self.socket === socket || (self.socket == nil && phase == .connecting) else { return }
        lost(code: "lost", message: "the connection ended: \(code.rawValue) \(reason)")
    }
}

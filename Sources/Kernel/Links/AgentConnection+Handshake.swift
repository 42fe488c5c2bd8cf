import AgentProtocol
import Crypto
import Reactor
import Transport

/// From the challenge to the accepted link, or to the refusal.
extension AgentConnection {
    /// Needed only until the link is accepted.
    final class Opening {
        var machine: CoreHandshakeStateMachine
        var claimed: ClientID?
        var proved: ProvedAgent?

        init(_ machine: CoreHandshakeStateMachine) { self.machine = machine }
    }

    /// Sends the challenge. Right after `init`, before anything else uses the home's writer.
    func begin() {
        home.add(self)
        home.handshakes += 1
        heardAt = home.loop.now
        socket.setOutputBound(Self.outputBound)
        socket.send(home.writer.bytes)
        let timer = Timer { [unowned self] in timerFired() }
        self.timer = timer
        home.loop.schedule(timer, afterMilliseconds: CoreHandshakeStateMachine.timeLimitMilliseconds)
    }

    func handshake(_ header: FrameHeader, _ payload: borrowing RawSpan) {
        guard let opening else { return }
        home.writer.reset()
        do throws(HandshakeRefusal) {
            if header.kind == .sealed {
                let plain = try opening.machine.open(header, payload)
                do throws(WireError) {
                    var position = 0
                    let inner = try FrameHeader.next(in: plain.span.bytes, at: &position)
                    try advance(opening, inner, plain.span.bytes.extracting(position..<plain.count))
                } catch {
                    fail(error)
                }
            } else {
                try advanceOrRefuse(opening, header, payload)
            }
        } catch {
            refuse(error.code, error.message)
        }
    }

    private func advance(
        _ opening: Opening, _ header: FrameHeader, _ payload: borrowing RawSpan
    ) throws(WireError) {
        do throws(HandshakeRefusal) {
            try advanceOrRefuse(opening, header, payload)
        } catch {
            refuse(error.code, error.message)
        }
    }

    private func advanceOrRefuse(
        _ opening: Opening, _ header: FrameHeader, _ payload: borrowing RawSpan
    ) throws(HandshakeRefusal) {
        let now = home.loop.now / 1_000_000
        switch try opening.machine.receive(header, payload, now: now, to: &home.writer) {
        case .replied:
            socket.send(home.writer.bytes)
        case .proved(let agent, let sealed):
            seal = sealed.map(Seal.init)
            opening.proved = agent
            opening.claimed = agent.hello.client
            decide(agent)
        }
    }

    private func decide(_ agent: ProvedAgent) {
        leaveHandshake()
        phase = .deciding
        agentKey = agent.hello.agentKey
        // The registry answers from its store; if it cannot, the agent is turned away rather than kept for ever.
        if let timer { home.loop.schedule(timer, afterMilliseconds: 30_000) }
        let hello = AgentHello(
            publicKey: agent.hello.agentKey, client: agent.hello.client, enrollmentToken: agent.token?.text,
            bootID: agent.hello.bootID, epoch: agent.hello.epoch, agentVersion: agent.hello.agentVersion,
            hostname: agent.hello.hostname, succession: agent.hello.succession, address: address,
            correlation: Hex.encode(Random.bytes(8)))
        let me = Confined(self, on: home.loop)
        let authority = endpoint.authority
        home.loop.spawn {
            let admission = await authority.admit(hello)
            me.assumeOnLoop { $0.admitted(admission) }
        }
    }

    func leaveHandshake() {
        if phase == .handshake { home.handshakes -= 1 }
    }

    private func admitted(_ admission: Admission) {
        guard phase == .deciding || phase == .pending else { return }
        switch admission {
        case .accepted(let client): accept(client)
        case .refused(let code, let message): refuse(code, message)
        case .pending(let enrollment, let fingerprint):
            if phase != .pending {
                phase = .pending
                // The registry bounds these by itself, per address too.
                socket.markAuthenticated()
                write { writer in
                    writer.frame(
                        .pending,
                        payload: PendingNotice(enrollment: enrollment, fingerprint: fingerprint).payload)
                }
                beatLater(first: true)
            }
            let me = Confined(self, on: home.loop)
            let authority = endpoint.authority
            home.loop.spawn {
                let verdict = await authority.verdict(enrollment: enrollment)
                me.assumeOnLoop {
                    $0.admitted(
                        verdict ?? .refused(code: "enrollment-lapsed", message: "no operator has decided in time"))
                }
            }
        }
    }

    private func accept(_ client: AdmittedClient) {
        guard let opening, let proved = opening.proved else { return }
        phase = .active
        channels = CoreChannelsStateMachine(limit: endpoint.options.channels)
        heartbeatSeconds = UInt64(clamping: max(1, client.heartbeatSeconds))
        jitterPercent = UInt8(clamping: client.jitterPercent)
        socket.markAuthenticated()
        self.opening = nil
        let link = AgentLink(
            client: client.client, epoch: client.epoch, address: address,
            hasTerminals: proved.features.contains(Feature.terminal), hasFiles: proved.features.contains(Feature.file),
            hasURLTransfers: proved.features.contains(Feature.fileURL), hasFileHashes: proved.features.contains(Feature.fileHash),
            hasPrivateFiles: proved.features.contains(Feature.privateFile),
            hasSecretEnvironment: proved.features.contains(Feature.secretEnvironment),
            hasUpgrades: proved.features.contains(Feature.upgrade), connection: Confined(self, on: home.loop))
        self.link = link
        let accepted = Accepted(
            client: client.client, epoch: client.epoch, features: proved.features,
            heartbeatSeconds: client.heartbeatSeconds, channels: endpoint.options.channels,
            coreVersion: endpoint.options.coreVersion, time: unixMilliseconds(), backupPins: opening.machine.backupPins)
        issueTicket()
        write { $0.frame(.accepted, payload: accepted.payload) }
        beatLater(first: true)
        endpoint.sink.linkAccepted(link)  // Before the registry shows the client as online.
        endpoint.authority.linkUp(link)
    }

    /// Turns an agent away that is not accepted.
    func refuse(_ code: String, _ message: String) {
        guard phase != .closed else { return }
        noteFailure(code, message)
        let farewell = Farewell(code: code, message: message)
        write { $0.frame(.refused, payload: farewell.payload) }
        socket.close(.policyViolation, code)
        over(LinkEnd(code: code, detail: message))
    }

    func noteFailure(_ code: String, _ message: String) {
        endpoint.authority.handshakeFailed(
            HandshakeFailure(
                address: address, client: opening?.claimed, provedKey: opening?.proved?.fingerprint, code: code,
                message: message))
    }
}

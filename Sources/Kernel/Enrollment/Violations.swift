import AgentProtocol
import JSON
import Program
import Reactor
import Synchronization

/// What peers of the agents' port did that they may not: strangers are counted by code and written once per address, code
/// and minute where they attempted a proof; whoever has proved a key is written under that key, as often.
extension Enrollment {
    /// A peer that did not become an accepted link. What `admit` itself refused it has written down already.
    public func handshakeFailed(_ failure: HandshakeFailure) {
        turnedAway.withLock { counts in counts.note(failure.code) }
        let isProved = failure.provedKey != nil && failure.code.hasPrefix(Self.protocolCodes)
        guard isProved || Self.failuresOfProof.contains(failure.code) else { return }
        let actor = isProved ? failure.provedKey : nil
        write(
            AuditRecord(
                principal: Principal(kind: .agent, id: actor ?? "unproved", address: failure.address),
                action: "client.connect", clients: failure.client.map { [$0] } ?? [], outcome: .refused,
                reason: failure.code),
            failure.message, limitedBy: actor ?? failure.address)
    }

    /// An accepted agent sent what the protocol does not allow; its link is closed.
    public func violated(_ link: AgentLink, code: String, message: String) {
        write(
            AuditRecord(
                principal: Principal(kind: .agent, id: link.client.description, address: link.address),
                action: "client.violate", clients: [link.client], outcome: .refused, reason: code),
            message, limitedBy: link.client.description)
    }

    /// An accepted agent reported an execution of a command that was for others.
    public func answeredForOthers(_ client: ClientID, _ command: CommandID) {
        write(
            AuditRecord(
                principal: Principal(kind: .agent, id: client.description), action: "client.violate", clients: [client],
                target: command.description, outcome: .refused, reason: "command-foreign"),
            "the command was not for this client; its answer was dropped", limitedBy: client.description)
    }

    /// The agent tried to follow a move and came back.
    public func moveFailed(_ link: AgentLink, _ failure: MoveFailure) {
        let servers = AuditLimits.cut(failure.servers)
        let code = AuditLimits.cut(failure.code)
        write(
            AuditRecord(
                principal: Principal(kind: .agent, id: link.client.description, address: link.address),
                action: "client.move", clients: [link.client], target: servers, outcome: .failed, reason: code),
            AuditLimits.cut(failure.message), limitedBy: link.client.description)
        clients.publish(
            RegistryEvent("client.move-failed", link.client, ["servers": .string(servers), "code": .string(code)]))
    }

    /// At most one record per key, reason and minute, with the number of those left out.
    private func write(_ record: AuditRecord, _ message: String, limitedBy key: String) {
        guard let leftOut = refusals.withLock({ $0.note(key, record.reason, now: clock()) }) else { return }
        var record = record
        record.detail = JSONValue.object(["message": .string(message), "like_it_left_out": .integer(Int64(leftOut))]).serialized()
        EventLoop.current?.spawn { [store, record] in
            do throws(Problem) {
                try await store.write { (transaction) throws(StoreError) in _ = try transaction.audit(record) }
            } catch {
                // The peer is turned away all the same; the limiter tells of it with the next record.
            }
        }
    }

    private static let protocolCodes = "protocol-"

    /// Codes of the handshake that tell of an attempt, not of a scanner or a bad line.
    private static let failuresOfProof: Set<String> = [
        "signature-invalid", "token-invalid", "key-invalid", "binding-mismatch", "reflected",
    ]

    func registerTurnedAway(in metrics: Metrics) {
        turnedAway.withLock { counts in
            counts.counter = { code in
                metrics.counter(
                    "client_manager_agents_turned_away_total", "Peers of /agent that did not become an accepted link.",
                    labels: [("code", code)])
            }
        }
    }
}

/// Counters by code. The codes are those of the protocol and the registry: a bounded set, none chosen by a peer.
struct TurnedAway: Sendable {
    var counter: (@Sendable (String) -> Counter)?
    private var counters: [String: Counter] = [:]

    mutating func note(_ code: String) {
        if let known = counters[code] { return known.add() }
        guard let made = counter?(code) else { return }
        counters[code] = made
        made.add()
    }
}

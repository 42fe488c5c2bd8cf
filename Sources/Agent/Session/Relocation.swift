import AgentProtocol
import Crypto
import JSON
import Reactor
import Transport

/// Servers that a move brought. They count only while the command line names what it named then: an operator who starts
/// the agent with another `--server` is obeyed.
public struct AdoptedServers: Sendable, Equatable {
    public var servers: String
    /// The command line's list at that time.
    public var inPlaceOf: String

    public init(servers: String, inPlaceOf: String) {
        self.servers = servers
        self.inPlaceOf = inPlaceOf
    }
}

/// A move under way: until the core there has accepted this agent, or the time is over, the old core's word stands beside
/// it and nothing of the old life is given up.
public struct Relocation: Sendable, Equatable {
    public var servers: String
    public var fingerprint: String
    /// For another core; empty when only the addresses change.
    public var token: String
    /// This agent is a newcomer there: it shows its key and the token, not the id that the old core gave it.
    public var isToOtherCore: Bool
    /// Unix milliseconds.
    public var deadline: UInt64
    /// Why the last attempt failed.
    public var code: String = "unreachable"
    public var message: String = ""

    init(_ statement: MoveStatement, isToOtherCore: Bool, now: UInt64) {
        servers = statement.servers
        fingerprint = statement.fingerprint
        token = statement.token
        self.isToOtherCore = isToOtherCore
        deadline = now + statement.withinSeconds * 1_000
    }
}

extension AgentSession {
    /// The list that counts now: a move's, the one that a move left, the command line's.
    var currentServers: ServerList {
        let state = identity.state
        let text =
            state.relocation?.servers
            ?? state.adopted.flatMap { $0.inPlaceOf == options.servers.text ? $0.servers : nil }
        guard let text, let list = try? ServerList(text) else { return options.servers }
        return list
    }

    /// A move to another core waits for what runs here: its end belongs to the core that ordered it.
    func received(_ statement: MoveStatement) throws(WireError) {
        guard let client, let coreKey, statement.isValid(for: client, signedBy: coreKey) else {
            throw WireError(.malformed, "a move that the identity key of this core did not sign for this client")
        }
        do throws(TransportError) { _ = try ServerList(statement.servers) } catch {
            throw WireError(.malformed, "a move to \(statement.servers): \(error)")
        }
        pendingMove = statement
        moveIfFree()
    }

    /// At a move, and at each heartbeat after it.
    func moveIfFree() {
        guard phase == .online, let statement = pendingMove, let coreKey else { return }
        let now = unixMilliseconds()
        guard now / 1_000 <= statement.validUntil else {
            pendingMove = nil
            let failure = MoveFailure(
                servers: statement.servers, code: "move-lapsed",
                message: "it was good until \(statement.validUntil); by this machine's clock it is \(now / 1_000)")
            return write { $0.frame(.move, payload: failure.payload) }
        }
        let isToOtherCore = statement.fingerprint != coreKey.fingerprint
        guard !isToOtherCore || executor.reports().isEmpty else { return }
        pendingMove = nil
        var state = identity.state
        state.relocation = Relocation(statement, isToOtherCore: isToOtherCore, now: now)
        do throws(IdentityError) { try identity.save(state, isAccepted: false) } catch {
            return lost(code: "identity-not-kept", message: error.description)
        }
        failedServers = []
        write { $0.frame(.close, payload: Farewell(code: "moving", message: "to \(statement.servers)").payload) }
        lost(code: "moving", message: "to \(statement.servers)")
    }

    /// The core there has accepted: the old life ends in the same write that begins the new one.
    func adopt(_ relocation: Relocation, in state: inout AgentState) {
        state.adopted = AdoptedServers(servers: relocation.servers, inPlaceOf: options.servers.text)
        state.relocation = nil
        state.failedMove = nil
    }

    /// Notes why an attempt at the new place failed.
    func noteFailedAttempt(_ code: String, _ message: String) {
        guard var relocation = identity.state.relocation, code != "moving" else { return }
        relocation.code = code
        relocation.message = String(message.prefix(500))
        failedRelocation = relocation
    }

    var isMoveLate: Bool { identity.state.relocation.map { unixMilliseconds() >= $0.deadline } ?? false }

    /// When there was a move and its time is over, the agent is back where it was.
    func giveUpMoveIfLate() {
        guard isMoveLate, let relocation = identity.state.relocation else { return }
        let failed = failedRelocation ?? relocation
        failedServers = []
        var state = identity.state
        state.relocation = nil
        state.failedMove = MoveFailure(servers: relocation.servers, code: failed.code, message: failed.message)
        failedRelocation = nil
        do throws(IdentityError) { try identity.save(state, isAccepted: false) } catch {
            // Tried again at the next attempt; until then this agent still looks for the new place.
        }
    }

    /// A wait that ends with the time of a move, if one is under way.
    func untilMoveEnds(_ milliseconds: UInt64) -> UInt64 {
        guard let deadline = identity.state.relocation?.deadline else { return milliseconds }
        let now = unixMilliseconds()
        return min(milliseconds, deadline > now ? deadline - now + 1 : 1)
    }

    /// After an accept: the core is told once of a move that came to nothing.
    func tellFailedMove() {
        guard let failure = identity.state.failedMove else { return }
        write { $0.frame(.move, payload: failure.payload) }
        var state = identity.state
        state.failedMove = nil
        // If this is not kept the core hears it twice.
        do throws(IdentityError) { try identity.save(state, isAccepted: true) } catch {}
    }
}

extension AdoptedServers {
    init?(_ value: JSONValue?) {
        guard let servers = value?["servers"]?.string, let old = value?["in_place_of"]?.string else { return nil }
        self.init(servers: servers, inPlaceOf: old)
    }

    var json: JSONValue { ["servers": .string(servers), "in_place_of": .string(inPlaceOf)] }
}

extension Relocation {
    init?(_ value: JSONValue?) {
        guard let servers = value?["servers"]?.string, let fingerprint = value?["fingerprint"]?.string,
            let token = value?["token"]?.string, let other = value?["other_core"]?.bool,
            let deadline = value?["deadline_ms"]?.integer, deadline >= 0
        else { return nil }
        self.servers = servers
        self.fingerprint = fingerprint
        self.token = token
        isToOtherCore = other
        self.deadline = UInt64(deadline)
    }

    var json: JSONValue {
        [
            "servers": .string(servers), "fingerprint": .string(fingerprint), "token": .string(token),
            "other_core": .bool(isToOtherCore), "deadline_ms": .integer(Int64(clamping: deadline)),
        ]
    }
}

extension MoveFailure {
    init?(_ value: JSONValue?) {
        guard let servers = value?["servers"]?.string, let code = value?["code"]?.string,
            let message = value?["message"]?.string
        else { return nil }
        self.init(servers: servers, code: code, message: message)
    }

    var json: JSONValue { ["servers": .string(servers), "code": .string(code), "message": .string(message)] }
}

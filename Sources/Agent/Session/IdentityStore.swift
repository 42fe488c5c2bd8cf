import AgentProtocol
import Crypto
import Glibc
import JSON
import System

/// What an agent keeps about itself and its core between runs.
public struct AgentState: Sendable, Equatable {
    /// Given at enrollment.
    public var client: ClientID?
    /// Fingerprints of cores that this agent obeys: the present key, then backup keys.
    public var pins: [String]
    /// The last epoch that was used in a hello.
    public var epoch: UInt64
    /// Where the last move led, for as long as the command line says what it said then.
    public var adopted: AdoptedServers?
    /// A move under way.
    public var relocation: Relocation?
    /// The last move that came to nothing, until the core has been told.
    public var failedMove: MoveFailure?

    public init(client: ClientID? = nil, pins: [String] = [], epoch: UInt64 = 0) {
        self.client = client
        self.pins = pins
        self.epoch = epoch
    }
}

/// The agent's identity cannot be read or kept.
public struct IdentityError: Error, Sendable, CustomStringConvertible {
    public let description: String
    public init(_ description: String) { self.description = description }
}

/// Where an identity lives. On the agent's loop.
public protocol IdentityStore: AnyObject {
    var key: P256.PrivateKey { get }
    var state: AgentState { get }
    /// The old key's word for the present one, until a core has accepted it.
    var succession: SuccessionStatement? { get }
    /// Durable when it returns. With `isAccepted` a core has accepted the key, and the old one's word is done with.
    func save(_ state: AgentState, isAccepted: Bool) throws(IdentityError)
}

/// An identity in memory: for simulated agents and tests.
public final class MemoryIdentity: IdentityStore {
    public let key: P256.PrivateKey
    public private(set) var state = AgentState()
    public var succession: SuccessionStatement? { nil }

    public init(key: P256.PrivateKey) { self.key = key }

    public func save(_ state: AgentState, isAccepted: Bool) throws(IdentityError) { self.state = state }
}

/// An identity on disk: `identity/key.pem` (0600) and `identity/state.json`, both replaced atomically. The caller holds
/// the lock of the data directory.
public final class IdentityFiles: IdentityStore {
    public let key: P256.PrivateKey
    public private(set) var state: AgentState
    public private(set) var succession: SuccessionStatement?
    private let directory: String

    /// Makes the key at the first start. A damaged file is an error that names it: an agent must not silently become
    /// somebody else.
    public init(dataDirectory: String) throws(IdentityError) {
        directory = dataDirectory + "/identity"
        do {
            try Files.makeDirectories(directory)
            let keyPath = directory + "/key.pem"
            if let bytes = try Files.readIfPresent(keyPath, limit: 16_384) {
                let status = try Files.status(keyPath)
                guard status.mode & 0o077 == 0 else {
                    throw IdentityError("\(keyPath) can be read by others; it must have mode 0600")
                }
                key = try P256.PrivateKey(pem: String(decoding: bytes, as: UTF8.self))
            } else {
                key = try P256.PrivateKey.generate()
                try AtomicFile.write(Array(try key.pem().utf8), to: keyPath, mode: 0o600)
            }
            state = try Self.readState(directory + "/state.json")
            let statement = try Files.readIfPresent(directory + "/succession.json", limit: 8_192)
                .map { try SuccessionStatement(text: $0) }
            // One whose key was never put in place was left by a change that did not come to its end.
            succession = statement?.newKey == key.publicKey.spki ? statement : nil
        } catch let error as IdentityError {
            throw error
        } catch {
            throw IdentityError("the identity in \(directory) cannot be used: \(error)")
        }
    }

    private static func readState(_ path: String) throws -> AgentState {
        guard let bytes = try Files.readIfPresent(path, limit: 16_384) else { return AgentState() }
        let value = try JSONValue(parsing: bytes)
        var state = AgentState()
        if let text = value["client"]?.string {
            guard let client = ClientID(text) else { throw IdentityError("\(path): client is no identifier") }
            state.client = client
        }
        state.pins = (value["pins"]?.array ?? []).compactMap(\.string)
        guard let epoch = value["epoch"]?.integer, epoch >= 0 else {
            throw IdentityError("\(path): epoch is missing or negative")
        }
        state.epoch = UInt64(epoch)
        state.adopted = AdoptedServers(value["adopted"])
        state.relocation = Relocation(value["relocation"])
        state.failedMove = MoveFailure(value["failed_move"])
        return state
    }

    public func save(_ state: AgentState, isAccepted: Bool) throws(IdentityError) {
        do throws(SystemError) {
            if state != self.state {
                var writer = JSONWriter()
                writer.object {
                    $0.field("client", ifPresent: state.client.map { $0.description })
                    $0.array("pins") { for pin in state.pins { $0.value(pin) } }
                    $0.field("epoch", state.epoch)
                    $0.field("adopted", ifPresent: state.adopted?.json)
                    $0.field("relocation", ifPresent: state.relocation?.json)
                    $0.field("failed_move", ifPresent: state.failedMove?.json)
                }
                try AtomicFile.write(writer.finish(), to: directory + "/state.json", mode: 0o600)
                self.state = state
            }
            if isAccepted, succession != nil {
                try Files.remove(directory + "/succession.json")
                succession = nil
            }
        } catch { throw IdentityError("the identity in \(directory) cannot be kept: \(error)") }
    }

    /// Makes a new key that the old one vouches for, so that the client id stays. While no agent runs here.
    public static func renewKey(dataDirectory: String) throws(IdentityError) {
        let files = try IdentityFiles(dataDirectory: dataDirectory)
        guard files.succession == nil else {
            throw IdentityError("no core has accepted the last change of the key yet; run the agent first")
        }
        do {
            let key = try P256.PrivateKey.generate()
            if let client = files.state.client {
                let statement = try SuccessionStatement(client: client, from: files.key, to: key.publicKey)
                try AtomicFile.write(statement.text, to: files.directory + "/succession.json", mode: 0o600)
            }
            try AtomicFile.write(Array(try key.pem().utf8), to: files.directory + "/key.pem", mode: 0o600)
        } catch { throw IdentityError("the key in \(files.directory) cannot be replaced: \(error)") }
    }

    /// Removes everything that ties a machine to its identity: for images that are copied.
    public static func reset(dataDirectory: String) throws(IdentityError) {
        do throws(SystemError) {
            for name in ["key.pem", "state.json", "succession.json"] {
                let path = dataDirectory + "/identity/" + name
                if Files.exists(path) { try Files.remove(path) }
            }
        } catch { throw IdentityError("\(error)") }
    }
}

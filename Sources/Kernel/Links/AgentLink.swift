import AgentProtocol
import Reactor
import Synchronization

/// The core's handle of one accepted agent connection: it may travel between threads; the connection itself stays on
/// its loop. Every call is asynchronous mail (at once on the link's own loop); on a link that is down it does nothing.
public final class AgentLink: Sendable {
    public let client: ClientID
    public let epoch: UInt64
    public let address: String
    /// The agent has terminals, and the core something to do with them.
    let hasTerminals: Bool
    /// The agent moves files, and the core has somewhere to put them.
    let hasFiles: Bool
    /// The agent moves them between its machine and a URL.
    let hasURLTransfers: Bool
    /// The agent tells the hash of a file.
    let hasFileHashes: Bool
    /// The agent keeps private files.
    let hasPrivateFiles: Bool
    /// The agent takes orders with secret variables.
    let hasSecretEnvironment: Bool
    /// The agent can replace its own program.
    let hasUpgrades: Bool
    /// `nil` only in tests of the services that use links.
    private let connection: Confined<AgentConnection>?
    private let typed = Atomic<UInt64>(0)

    init(
        client: ClientID, epoch: UInt64, address: String, hasTerminals: Bool = false, hasFiles: Bool = false,
        hasURLTransfers: Bool = false, hasFileHashes: Bool = false, hasPrivateFiles: Bool = false, hasSecretEnvironment: Bool = false,
        hasUpgrades: Bool = false,
        connection: Confined<AgentConnection>? = nil
    ) {
        self.hasTerminals = hasTerminals
        self.hasFiles = hasFiles
        self.hasURLTransfers = hasFiles && hasURLTransfers
        self.hasFileHashes = hasFiles && hasFileHashes
        self.hasPrivateFiles = hasPrivateFiles
        self.hasSecretEnvironment = hasSecretEnvironment
        self.hasUpgrades = hasUpgrades
        self.client = client
        self.epoch = epoch
        self.address = address
        self.connection = connection
    }

    /// An order that cannot be sent (too many channels, too large) ends at once: the sink hears of a refusal.
    public func send(_ order: Order) { reach { $0.send(order) } }

    /// The reference alone travels; the order is written where it is sent.
    func send(_ command: LiveCommand) {
        guard let connection else { return }
        if connection.loop.isCurrent {
            connection.assumeOnLoop { $0.send(command) }
        } else {
            connection.post { $0.send(command) }
        }
    }

    /// The end of the command is durable. On the link's loop.
    func acknowledge(_ command: CommandID) { connection?.assumeOnLoop { $0.acknowledge(command) } }

    public func cancel(_ command: CommandID) { reach { $0.cancel(command) } }

    /// Credit: the agent may send this stream up to `offset` (exclusive). Only ever grows. The first
    /// `WireLimits.initialWindowBytes` beyond the start of a channel need none.
    public func grant(_ command: CommandID, _ stream: OutputStream, upTo offset: UInt64) {
        reach { $0.grant(command, stream, upTo: offset) }
    }

    /// Sends the agent to other servers; it leaves by itself.
    func move(_ statement: MoveStatement) { reach { $0.move(statement) } }

    /// Tells the agent why, and closes. The registry hears `linkDown` with the same end.
    public func close(_ end: LinkEnd) { reach { $0.end(end, tellAgent: true) } }

    /// Whether the machine that holds the key is still there: it signs a fresh nonce in time. One check at a time per
    /// link; a second one while the first waits answers false.
    public func challenge(timeoutMilliseconds: Int) async -> Bool {
        guard let connection else { return false }
        return await withCheckedContinuation { continuation in
            connection.post { $0.checkLiveness(milliseconds: UInt64(clamping: timeoutMilliseconds), continuation) }
        }
    }

    /// Told by the connection; read by whoever gives credit to output that would stand before an echo.
    public var typedAt: UInt64 { typed.load(ordering: .relaxed) }
    func typing(at now: UInt64) { typed.store(now, ordering: .relaxed) }

    /// Input of a terminal waits. On the link's loop without an allocation.
    func flushInput(of channel: Channel) {
        guard let connection else { return }
        if connection.loop.isCurrent {
            connection.assumeOnLoop { $0.flushInput(channel) }
        } else {
            connection.post { $0.flushInput(channel) }
        }
    }

    /// Credit of a terminal is due; likewise.
    func grantOutput(of channel: Channel) {
        guard let connection else { return }
        if connection.loop.isCurrent {
            connection.assumeOnLoop { $0.grantOutput(channel) }
        } else {
            connection.post { $0.grantOutput(channel) }
        }
    }

    /// Asks the agent about private files. `answer` is called once, on any thread.
    func ask(
        _ request: PrivateFileRequest, _ answer: @escaping @Sendable (Result<PrivateFileAnswer, Problem>) -> Void
    ) {
        guard connection != nil else { return answer(.failure(LinkPrivateFiles.lost(client))) }
        reach { $0.ask(request, answer) }
    }

    func reach(_ body: @escaping @Sendable (AgentConnection) -> Void) {
        guard let connection else { return }
        if connection.loop.isCurrent {
            connection.assumeOnLoop(body)
        } else {
            connection.post(body)
        }
    }
}

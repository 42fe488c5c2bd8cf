import AgentProtocol
import Reactor

/// The core's handle of one accepted agent connection: it may travel between threads; the connection itself stays on
/// its loop. Every call is asynchronous mail; on a link that is already down it does nothing.
public final class AgentLink: Sendable {
    public let client: ClientID
    public let epoch: UInt64
    public let address: String
    init(client: ClientID, epoch: UInt64, address: String) {
        self.client = client
        self.epoch = epoch
        self.address = address
    }
    public func send(_ order: Order) {}
    public func cancel(_ command: CommandID) {}
    /// Credit: the agent may send this stream up to `offset` (exclusive). Only ever grows.
    public func grant(_ command: CommandID, _ stream: OutputStream, upTo offset: UInt64) {}
    public func close(_ end: LinkEnd) {}
}

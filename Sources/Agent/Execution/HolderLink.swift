import AgentProtocol
import Reactor
import System

/// The agent's end of a holder's socket, on the agent's loop.
final class HolderLink: Source {
    private let socket: Descriptor
    private unowned let loop: EventLoop
    private var cancelWanted = false
    private var over = false
    /// One buffer for all packets of the link.
    private var packet = [UInt8](repeating: 0, count: 64)

    private let received: (HolderStatus) -> Void
    private let ended: () -> Void

    init(
        _ socket: consuming Descriptor, on loop: EventLoop, received: @escaping (HolderStatus) -> Void,
        ended: @escaping () -> Void
    ) {
        let number = socket.number
        self.socket = socket
        self.loop = loop
        self.received = received
        self.ended = ended
        super.init(descriptor: number)
    }

    func cancel() {
        cancelWanted = true
        sendWaiting()
    }

    /// No callback comes after this.
    func close() {
        guard !over else { return }
        over = true
        loop.remove(self)
    }

    private func sendWaiting() {
        guard cancelWanted, !over else { return }
        do throws(SystemError) {
            if try PacketSocket.send(HolderRequest.cancel.bytes, to: socket) { cancelWanted = false }
        } catch {
            // The end of the socket is reported by `ready`.
            cancelWanted = false
        }
    }

    override func ready(_ readiness: Readiness) {
        sendWaiting()
        // Only the newest state counts; a burst of packets is one piece of news.
        var newest: HolderStatus?
        var closed = false
        reading: while !over {
            do throws(SystemError) {
                switch try PacketSocket.receive(socket, into: &packet) {
                case .packet(let count): if let status = HolderStatus(packet[..<count]) { newest = status }
                case .nothingYet: break reading
                case .ended: closed = true
                }
            } catch { closed = true }
            if closed { break }
        }
        if over { return }
        if let newest { received(newest) }
        if closed, !over {
            close()
            ended()
        }
    }
}

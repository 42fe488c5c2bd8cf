import AgentProtocol
import Reactor
import System

/// Told by a link, on the agent's loop.
protocol TerminalLinkOwner: AnyObject {
    func link(_ link: TerminalLink, received packet: TerminalPacket)
    /// False: no more until `resume`.
    func link(_ link: TerminalLink, output bytes: RawSpan, at offset: UInt64) -> Bool
    /// The holder has ended or broken off; no call comes after this.
    func linkEnded(_ link: TerminalLink)
}

/// The agent's end of the socket of a terminal's holder, on the agent's loop.
final class TerminalLink: Source {
    /// Packets that wait while the holder does not read. Input is bounded by its window, the rest comes one by one from a
    /// person; more than this is no person.
    private static let waitingPackets = 512

    let channel: ChannelID
    private let socket: Descriptor
    private unowned let loop: EventLoop
    private unowned let owner: any TerminalLinkOwner
    private var waiting: [[UInt8]] = []
    private var isPaused = false
    private(set) var isOver = false
    private var outgoing: [UInt8] = []
    private let incoming: UnsafeMutableRawBufferPointer

    init(_ channel: ChannelID, _ socket: consuming Descriptor, on loop: EventLoop, owner: any TerminalLinkOwner) {
        self.channel = channel
        let number = socket.number
        self.socket = socket
        self.loop = loop
        self.owner = owner
        incoming = .allocate(byteCount: TerminalPacket.maximumBytes, alignment: 16)
        super.init(descriptor: number)
    }

    deinit { incoming.deallocate() }

    /// No call comes after this.
    func close() {
        guard !isOver else { return }
        isOver = true
        waiting = []
        loop.remove(self)
    }

    func send(_ packet: TerminalPacket) {
        guard !isOver else { return }
        packet.write(to: &outgoing)
        sendOutgoing()
    }

    /// Input at `offset`, which continues what was sent. Pieces that wait are put together: a thousand keystrokes for a
    /// holder that is not scheduled now are one packet.
    func send(inputAt offset: UInt64, _ bytes: borrowing RawSpan) {
        guard !isOver else { return }
        if let last = waiting.last, last[0] == TerminalPacket.Kind.input.rawValue,
            last.count + bytes.byteCount <= TerminalPacket.maximumBytes
        {
            // Invariant, here and below: the buffer is copied before the closure ends.
            unsafe bytes.withUnsafeBytes { unsafe waiting[waiting.count - 1].append(contentsOf: $0) }
            return
        }
        TerminalPacket(.input, a: offset).write(to: &outgoing)
        unsafe bytes.withUnsafeBytes { unsafe outgoing.append(contentsOf: $0) }
        sendOutgoing()
    }

    private func sendOutgoing() {
        if waiting.isEmpty {
            if handOver(outgoing) { return }
            loop.watchWritable(self, true)
        }
        guard waiting.count < Self.waitingPackets else { return over() }
        waiting.append(outgoing)
    }

    /// True: sent, or the socket has ended, which `ready` reports.
    private func handOver(_ packet: [UInt8]) -> Bool {
        do throws(SystemError) { return try PacketSocket.send(packet, to: socket) } catch { return true }
    }

    private func sendWaiting() {
        guard !waiting.isEmpty else { return }
        var sent = 0
        while sent < waiting.count, handOver(waiting[sent]) { sent += 1 }
        waiting.removeFirst(sent)
        if waiting.isEmpty { loop.watchWritable(self, false) }
    }

    /// Goes on after an output was answered with false.
    func resume() {
        guard isPaused, !isOver else { return }
        isPaused = false
        read()
    }

    override func ready(_ readiness: Readiness) {
        guard !isOver else { return }
        sendWaiting()
        if !isPaused { read() }
    }

    private func read() {
        while !isOver, !isPaused {
            var received = PacketSocket.Received.ended
            do throws(SystemError) { received = try PacketSocket.receive(socket, into: incoming) } catch {}
            switch received {
            case .nothingYet: return
            case .ended: return over()
            case .packet(let count):
                // Invariant: the span covers bytes that were received, and nothing writes to the buffer while it is used:
                // only `read` does, and what it calls does not come back to it.
                let bytes = unsafe RawSpan(_unsafeBytes: UnsafeRawBufferPointer(incoming)).extracting(0..<count)
                guard let packet = TerminalPacket(bytes) else { return over() }
                if packet.kind == .output {
                    let rest = bytes.extracting(TerminalPacket.headBytes..<count)
                    if !owner.link(self, output: rest, at: packet.a) { isPaused = true }
                } else {
                    owner.link(self, received: packet)
                }
            }
        }
    }

    private func over() {
        guard !isOver else { return }
        close()
        owner.linkEnded(self)
    }
}

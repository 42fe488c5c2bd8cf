extension ByteStream {
    /// What a stream is about; several at once.
    struct State: OptionSet {
        let rawValue: UInt32
        /// In the loop's list of streams to flush.
        static let dirty = State(rawValue: 1)
        /// The kernel took less than all; wait for its word.
        static let blocked = State(rawValue: 2)
        static let paused = State(rawValue: 4)
        static let inReadAgain = State(rawValue: 8)
        /// The peer has sent its end; it may still be in the kernel.
        static let peerShut = State(rawValue: 16)
        /// The handler has been told of the peer's end.
        static let peerEnded = State(rawValue: 32)
        static let closed = State(rawValue: 64)
        /// Close when the last byte is out.
        static let closing = State(rawValue: 128)
        /// The output went over the high mark; the handler wants to hear when it is low again.
        static let owesDrained = State(rawValue: 256)
        static let connecting = State(rawValue: 512)
        /// Closing: end our side, then read and drop until the peer ends its own.
        static let lingering = State(rawValue: 1024)
        /// TLS is not up yet.
        static let handshaking = State(rawValue: 2048)
        static let notOpen: State = [.connecting, .handshaking]
        /// Our close_notify has been made.
        static let tlsEnded = State(rawValue: 4096)
        /// TCP ended without the peer's close_notify: what came last may have been cut off by somebody.
        static let truncated = State(rawValue: 8192)
        /// Counts against its address's limit of unauthenticated connections.
        static let counted = State(rawValue: 16384)
        /// In the loop's list of strangers that wait to be read.
        static let awaitsTurn = State(rawValue: 32768)
        /// Of those: its first bytes have been looked at.
        static let hasGreeted = State(rawValue: 65536)
        /// And they show a ticket.
        static let returning = State(rawValue: 131072)
    }
}

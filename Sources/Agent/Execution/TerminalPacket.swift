import AgentProtocol

/// What the agent and the holder of a terminal say to each other over the packet socket in its directory: a head of 48
/// bytes, little-endian, and up to `WireLimits.dataBytes` of input or output.
struct TerminalPacket: Equatable {
    enum Kind: UInt8 {
        // To the holder.
        /// The agent reads from offset `a`; `number` comes back with the answer.
        case attach = 1
        /// Nobody reads, but a core is there.
        case detach = 2
        /// The core is away.
        case linkLost = 3
        /// Output may go up to `a`.
        case credit = 4
        /// The bytes are input at offset `a`.
        case input = 5
        case inputEnd = 6
        /// Rows in the low 16 bits of `a`, then columns.
        case resize = 7
        case signal = 8
        case cancel = 9
        /// Ended and recorded: the kept output may go, and the holder with it.
        case forget = 10
        /// The reader has the output below `a`.
        case arrived = 11

        // To the agent.
        /// After each connect and change: `number` is the phase, `a` to `e` are started at (Unix milliseconds, 0 before),
        /// kept from, end of output, input received, input taken.
        case status = 17
        /// Output begins at `a`, in answer to the attach `number`.
        case attached = 18
        /// The bytes are output at offset `a`.
        case output = 19
    }

    static let version: UInt8 = 1
    static let headBytes = 48
    static let maximumBytes = headBytes + WireLimits.dataBytes

    var kind: Kind
    var number: UInt32 = 0
    var a: UInt64 = 0
    var b: UInt64 = 0
    var c: UInt64 = 0
    var d: UInt64 = 0
    var e: UInt64 = 0

    init(_ kind: Kind, number: UInt32 = 0, a: UInt64 = 0, b: UInt64 = 0, c: UInt64 = 0, d: UInt64 = 0, e: UInt64 = 0) {
        self.kind = kind
        self.number = number
        self.a = a
        self.b = b
        self.c = c
        self.d = d
        self.e = e
    }

    /// The head of a packet; `nil`: not of this version.
    init?(_ bytes: borrowing RawSpan) {
        guard bytes.byteCount >= Self.headBytes else { return nil }
        func word<Value: FixedWidthInteger & BitwiseCopyable>(_ offset: Int, _ type: Value.Type) -> Value {
            // Invariant: the head's length was checked above, and all offsets lie inside the head.
            Value(littleEndian: unsafe bytes.unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: Value.self))
        }
        guard word(1, UInt8.self) == Self.version, let kind = Kind(rawValue: word(0, UInt8.self)) else { return nil }
        self.kind = kind
        number = word(4, UInt32.self)
        a = word(8, UInt64.self)
        b = word(16, UInt64.self)
        c = word(24, UInt64.self)
        d = word(32, UInt64.self)
        e = word(40, UInt64.self)
    }

    /// The head into a buffer that is reused.
    func write(to bytes: inout [UInt8]) {
        bytes.removeAll(keepingCapacity: true)
        bytes.append(kind.rawValue)
        bytes.append(Self.version)
        bytes.append(0)
        bytes.append(0)
        // Invariant: each buffer is copied before its closure ends.
        unsafe withUnsafeBytes(of: number.littleEndian) { unsafe bytes.append(contentsOf: $0) }
        for value in [a, b, c, d, e] {
            unsafe withUnsafeBytes(of: value.littleEndian) { unsafe bytes.append(contentsOf: $0) }
        }
    }

    enum Phase: UInt32 {
        case starting = 0
        case running = 1
        /// The exit record is durable; kept output can still be read.
        case ended = 2
    }
}

/// How a terminal stands, as its holder told last.
struct TerminalStatus: Equatable {
    var phase = TerminalPacket.Phase.starting
    var startedAt: UInt64 = 0
    var keptFrom: UInt64 = 0
    var outputEnd: UInt64 = 0
    var inputReceived: UInt64 = 0
    var inputTaken: UInt64 = 0

    init() {}

    init?(_ packet: TerminalPacket) {
        guard packet.kind == .status, let phase = TerminalPacket.Phase(rawValue: packet.number) else { return nil }
        self.phase = phase
        startedAt = packet.a
        keptFrom = packet.b
        outputEnd = packet.c
        inputReceived = packet.d
        inputTaken = packet.e
    }

    var packet: TerminalPacket {
        TerminalPacket(
            .status, number: phase.rawValue, a: startedAt, b: keptFrom, c: outputEnd, d: inputReceived, e: inputTaken)
    }
}

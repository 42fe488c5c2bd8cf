/// What a frame is. Numbers are the wire's; Docs/agent-protocol.md describes each payload.
public enum FrameKind: UInt8, Sendable, CaseIterable {
    // Handshake, JSON payloads.
    case challenge = 0x01
    case hello = 0x02
    case coreProof = 0x03
    case agentProof = 0x04
    case accepted = 0x05
    case pending = 0x06
    case refused = 0x07
    /// The rest of the connection is sealed (only `via-proxy`): the payload is one sealed frame sequence.
    case sealed = 0x08

    // The link itself, channel 0.
    case beat = 0x10
    case beatAnswer = 0x11
    case facts = 0x12
    case close = 0x13
    case move = 0x14
    /// A fresh nonce over an accepted link, and the agent's signature over it.
    case liveness = 0x15
    case livenessProof = 0x16
    /// Core to agent: the order. Agent to core: how far it has come. Needs the feature `upgrade`, as the next three do.
    case upgrade = 0x17
    /// The core has the end, or wants the upgrade no more: one that has not begun its trial is given up.
    case upgradeForgotten = 0x18
    /// The agent asks for a piece of the file, and gets it.
    case releaseRequest = 0x19
    case releaseData = 0x1A

    // What an agent still holds after a (re)connect, channel 0 except `decision`.
    case report = 0x20
    case reportsEnd = 0x21
    case decision = 0x22
    case terminalReport = 0x23
    case terminalDecision = 0x24

    // Channels.
    case open = 0x30
    case started = 0x31
    case data = 0x32
    case credit = 0x33
    case exit = 0x34
    case exitAcknowledged = 0x35
    case cancel = 0x36

    // Terminals only.
    case resize = 0x37
    case signal = 0x38
    case attach = 0x39
    case attached = 0x3A
    case detach = 0x3B
    case inputEnd = 0x3C

    // Private files, channel 0; the offset is the number of the request.
    case privateFile = 0x40
    case privateFileAnswer = 0x41

    // Files, needs the feature `file`; channel 0 except where a transfer has one.
    /// A transfer of which the agent keeps something, before the end mark of the reports.
    case transferReport = 0x50
    case transferForget = 0x51
    case transferReady = 0x52
    case transferData = 0x53
    case transferCredit = 0x54
    case transferDurable = 0x55
    case transferEnd = 0x56
    case transferResult = 0x57
    case transferAcknowledged = 0x58
    case transferStop = 0x59
    case fileRequest = 0x5A
    case fileAnswer = 0x5B
    /// Needs the feature `file-url`: how much has moved between the client's file and the URL.
    case transferMoved = 0x5C
}

/// What runs on a channel: the flags of an `open` frame.
public enum ChannelKind: UInt8, Sendable, CaseIterable {
    case execution = 1
    /// Needs the feature `pty`.
    case terminal = 2
    /// Needs the feature `file`.
    case transfer = 3
}

/// In which order frames leave when the link is busy. A lower number is never behind a higher one by more than what
/// the socket already holds: output is handed to it only while it is below its high mark.
public enum Lane: UInt8, Sendable, CaseIterable {
    /// Heartbeat, cancel, credit, acknowledgement, exit: needs no credit.
    case control = 0
    /// A person waits for it.
    case interactive = 1
    case bulk = 2
}

/// The fixed 20 bytes before each payload, little-endian.
public struct FrameHeader: Sendable, Equatable {
    public static let byteCount = 20

    public var kind: FrameKind
    public var flags: UInt8
    /// 0 is the link itself.
    public var channel: UInt32
    /// An offset, a time or an identifier, by kind.
    public var offset: UInt64
    /// Of the payload.
    public var length: UInt32

    public init(_ kind: FrameKind, flags: UInt8 = 0, channel: UInt32 = 0, offset: UInt64 = 0, length: UInt32 = 0) {
        self.kind = kind
        self.flags = flags
        self.channel = channel
        self.offset = offset
        self.length = length
    }
}

/// Bounds of version 1. Both sides check what they receive against them.
public enum WireLimits {
    /// Of one `data` payload, so that a control frame is never behind more than this per frame.
    public static let dataBytes = 16 * 1_024
    /// Of a JSON control payload other than facts.
    public static let controlBytes = 16 * 1_024
    public static let factsBytes = 64 * 1_024
    /// Of an `open` payload: arguments, script and standard input together.
    public static let openBytes = 1 << 20
    /// Of one WebSocket message to the core, and to an agent.
    public static let messageBytesToCore = factsBytes + FrameHeader.byteCount
    public static let messageBytesToAgent = openBytes + FrameHeader.byteCount
    /// Bytes an agent may send on a stream before the first `credit` frame of the channel.
    public static let initialWindowBytes: UInt64 = 64 * 1_024
    /// Open channels of one link; the core says its own number in `accepted`, up to this.
    public static let channels = 1_024
    /// Reports of one link. An agent that holds more executions reports the oldest and the rest after these ended.
    public static let reports = 4_096
    public static let refusalCodeBytes = 64
    public static let refusalTextBytes = 4_096
    /// Arguments, environment variables, …
    public static let listCount = 4_096
    /// Channels with this bit in their number are terminals, the others executions.
    public static let terminalChannel: UInt32 = 0x8000_0000
    /// Terminals of one link, open or reported.
    public static let terminals = 256
    /// How far input of a terminal may run ahead of what its program has taken.
    public static let inputWindowBytes: UInt64 = 64 * 1_024
    /// How far a core lets output of a terminal run ahead of what has come.
    public static let terminalLeadBytes: UInt64 = 256 * 1_024
    /// A core says what has arrived at least so often; the smallest ring holds twice as much.
    public static let terminalArrivalBytes: UInt64 = 32 * 1_024
    /// Output of a terminal that its holder keeps.
    public static let terminalKeptBytes: ClosedRange<UInt64> = 64 * 1_024...4 * 1_024 * 1_024

    /// Channels with this bit, and not that of terminals, are transfers.
    public static let transferChannel: UInt32 = 0x4000_0000
    /// Transfers of one link, open or reported.
    public static let transfers = 256
    /// Of one `transfer-data` payload: large enough that its headers cost a thousandth, small enough that what a person
    /// waits for is never long behind one.
    public static let transferDataBytes = 64 * 1_024
    /// Of a path, or a name in one.
    public static let pathBytes = 4_096
    /// Of the URL at the far end of a transfer: presigned ones carry tokens of a kilobyte or two.
    public static let urlBytes = 8_192
    /// Of a `file-answer` payload.
    public static let fileAnswerBytes = 64 * 1_024

    /// How far an agent may ask for a release's file ahead of what it has written.
    public static let releaseWindowBytes: UInt64 = 256 * 1_024

    /// The largest payload of a kind.
    public static func payloadBytes(_ kind: FrameKind) -> Int {
        switch kind {
        case .challenge, .hello, .coreProof, .agentProof, .accepted, .pending, .refused, .close, .move: controlBytes
        case .liveness: LivenessCheck.nonceBytes
        case .livenessProof: LivenessCheck.signatureBytes
        case .facts: factsBytes
        case .open, .privateFile: openBytes
        case .privateFileAnswer: factsBytes
        case .data: dataBytes
        case .beatAnswer: BeatAnswer.byteCount
        case .report: ExecutionReport.headBytes + ExitRecord.maximumBytes
        case .exit: ExitRecord.maximumBytes
        case .decision: ResumeDecision.byteCount
        case .terminalReport: TerminalReport.headBytes + ExitRecord.maximumBytes
        case .terminalDecision: TerminalDecision.byteCount
        case .sealed: openBytes + FrameHeader.byteCount + 16
        case .upgrade: controlBytes
        case .upgradeForgotten: UpgradeFrames.idBytes
        case .releaseRequest: UpgradeFrames.requestBytes
        case .releaseData: UpgradeFrames.idBytes + dataBytes
        case .beat, .reportsEnd, .started, .credit, .exitAcknowledged, .cancel: 0
        case .resize, .signal, .attach, .attached, .detach, .inputEnd: 0
        case .transferReport, .transferForget: 16
        case .transferReady, .transferResult: controlBytes
        case .fileRequest: factsBytes
        case .transferData: transferDataBytes
        case .transferEnd: 32
        case .fileAnswer: fileAnswerBytes
        case .transferCredit, .transferDurable, .transferAcknowledged, .transferStop, .transferMoved: 0
        }
    }
}

/// The peer broke the protocol. The link is closed with the code; the detail says which value was wrong.
public struct WireError: Error, Sendable, Equatable, CustomStringConvertible {
    public enum Code: String, Sendable, CaseIterable {
        /// Cut short, trailing bytes, a reserved field that is not zero, text that is not UTF-8.
        case malformed = "protocol-malformed"
        case unknownKind = "protocol-unknown-kind"
        /// Known, but not now or not from this side.
        case unexpected = "protocol-unexpected"
        case oversize = "protocol-oversize"
        /// No such channel, or one that has ended.
        case foreignChannel = "protocol-foreign-channel"
        /// A gap, an overlap, or bytes beyond the announced end.
        case wrongOffset = "protocol-wrong-offset"
        case creditExceeded = "protocol-credit-exceeded"
        case tooManyChannels = "protocol-too-many-channels"
        case duplicate = "protocol-duplicate"
    }
    public var code: Code
    public var detail: String

    public init(_ code: Code, _ detail: String) {
        self.code = code
        self.detail = detail
    }

    public var description: String { "\(code.rawValue): \(detail)" }
}

import AgentProtocol
import Crypto

/// What does a session's work on files: the real one, or the simulator's.
///
/// Everything here happens on the agent's loop, and nothing of it waits for a disk. What a transfer has for good outlives
/// link and agent; `linkLost` says that nothing more comes for now.
public protocol FileExecutor: AnyObject {
    /// Told of news; set by the session that is connected, `nil` while there is none.
    var observer: (any FileObserver)? { get set }

    /// Transfers of which something is kept, for the report after a (re)connect.
    func kept() -> [TransferID]
    /// Begins, or goes on with what is kept. Answered with `fileReady` or `fileFinished`.
    func start(_ order: TransferOrder)
    /// Push: bytes that continue what came before.
    func write(_ transfer: TransferID, at offset: UInt64, _ bytes: RawSpan)
    /// Push: that was all; answered with `fileFinished`.
    func end(_ transfer: TransferID, length: UInt64, _ digest: SHA256.Digest)
    /// Pull: the next piece if it has at most `limit` bytes; pieces are never cut. `nil`: `fileReadable` says when there is
    /// one, or there is no room for it yet.
    func next(_ transfer: TransferID, limit: UInt64) -> FileChunk?
    /// Pull: the core has it for good up to here.
    func durable(_ transfer: TransferID, upTo offset: UInt64)
    /// Between file and URL: it may go up to here.
    func grant(_ transfer: TransferID, upTo offset: UInt64)
    func stop(_ transfer: TransferID, _ stop: TransferStop)
    /// The core has the end, or wants to know nothing of it: nothing is kept.
    func forget(_ transfer: TransferID)
    func linkLost()

    /// Answered with `fileAnswer` of the same number.
    func request(_ number: UInt64, _ request: FileRequest)
}

/// A piece of what a pull sends, at most `WireLimits.transferDataBytes`.
public struct FileChunk: Sendable {
    /// What the real executor makes of a file, whole pages. One message is with all its headers four records of TLS and one
    /// segment of loopback: with 64 KiB the core wakes for the first part of a message and copies it aside until the rest comes.
    static let fullBytes = 60 << 10

    /// Pieces that were read at once share these.
    public let storage: [UInt8]
    /// The piece in `storage`.
    public let range: Range<Int>
    /// Of the whole, with the last piece.
    public let digest: SHA256.Digest?

    public init(bytes: [UInt8], digest: SHA256.Digest? = nil) { self.init(in: bytes, bytes.indices, digest: digest) }

    init(in storage: [UInt8], _ range: Range<Int>, digest: SHA256.Digest?) {
        self.storage = storage
        self.range = range
        self.digest = digest
    }
}

/// Called on the agent's loop, never from inside a call into the executor about the same transfer.
public protocol FileObserver: AnyObject {
    func fileReady(_ transfer: TransferID, at offset: UInt64, _ ready: TransferReady)
    /// Push: there is room up to here.
    func fileGranted(_ transfer: TransferID, upTo offset: UInt64)
    /// Push: on the disk for good up to here.
    func fileDurable(_ transfer: TransferID, upTo offset: UInt64)
    /// Between file and URL: so much has moved.
    func fileMoved(_ transfer: TransferID, to offset: UInt64)
    /// Pull: `next` has something.
    func fileReadable(_ transfer: TransferID)
    /// Done, or failed; kept until it is forgotten.
    func fileFinished(_ transfer: TransferID, _ result: TransferResult)
    func fileAnswer(_ number: UInt64, _ answer: FileAnswer)
}

/// How the store works. The defaults are what ships; only the configuration file may lower `synchronous`.
public struct StoreOptions: Sendable {
    public enum Synchronous: String, Sendable, CaseIterable {
        /// Acknowledged is on the disk: survives power loss.
        case full = "FULL"
        /// Acknowledged survives the death of the process, but a power cut may take the last seconds.
        case normal = "NORMAL"
    }
    public var synchronous: Synchronous = .full

    /// Bounds of what waits for the writer; beyond them a write is refused with 503 `store-busy`.
    public var maximumQueuedRequests = 16_384
    public var maximumQueuedBytes = 64 << 20
    /// Bounds of one commit, so that a flood does not make each of its requests wait for all the others.
    public var maximumBatchRequests = 2_048
    public var maximumBatchBytes = 8 << 20
    /// From the start of a commit that several requests shared to the start of the next one, at least; less than a
    /// second.
    public var commitSpacingNanoseconds: UInt64 = 1_000_000

    public var readerThreads = 2
    public var maximumQueuedReads = 4_096
    /// A read that takes longer is ended with 503 `store-slow`.
    public var readMilliseconds: UInt64 = 10_000

    public var writerCacheKiB = 8_192
    public var readerCacheKiB = 2_048
    /// Pages (4 KiB) in the write-ahead log at which the checkpointer starts.
    public var checkpointPages = 8_192
    public var walBytesToKeep = 64 << 20
    /// Largest database in pages of 4 KiB; `nil`: as the disk allows.
    public var maximumPages: Int?

    public init() {}
}

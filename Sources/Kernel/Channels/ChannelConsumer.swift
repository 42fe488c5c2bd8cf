import AgentProtocol

/// Who works with a channel. Called on the loop of the client's link, one call at a time and in order; the loop is another
/// one when the client comes back over another. A call must not block, and may call the attachment.
public protocol ChannelConsumer: AnyObject, Sendable {
    /// The program runs; Unix milliseconds by the client's clock.
    func channelStarted(_ channel: ChannelAttachment, at unixMilliseconds: UInt64)
    /// Output begins, or goes on after `channelLost`, at `place.output`.
    func channelResumed(_ channel: ChannelAttachment, _ place: ChannelPlace)
    /// Output that continues. The bytes are gone when this returns.
    func channel(_ channel: ChannelAttachment, received bytes: RawSpan, at offset: UInt64)
    /// There is room again after `write` took less than it was given.
    func channelWritable(_ channel: ChannelAttachment)
    /// The end, after the last byte of output, and durable in the core.
    func channelExited(_ channel: ChannelAttachment, _ record: ExitRecord)
    /// Nothing comes for now: `client-away` (it comes back with `channelResumed`), or for good: `taken-over` by another
    /// attach. Input that was taken is kept and goes on.
    func channelLost(_ channel: ChannelAttachment, _ code: String)
}

/// Where both directions go on.
public struct ChannelPlace: Sendable, Equatable {
    /// Offset of the next byte of output.
    public var output: UInt64
    /// Bytes before it that the consumer has not seen and that are kept nowhere any more.
    public var gap: UInt64
    /// Offset of the next byte of input that `write` takes: what lies below has been taken, once and for good.
    public var input: UInt64
}

/// One consumer's hold on a channel: all that it can do. Any thread; on the loop of the client's link without a hop.
///
/// After another attach, `detach` or the end, every call does nothing.
public final class ChannelAttachment: Sendable {
    /// Of input that may wait here until the client's program has taken it.
    public static let inputBytes = Channel.inputBytes
    public static let wholeInputBytes = Channel.inputBytes / 4 * 3

    public let channel: ChannelID
    public let client: ClientID
    private let state: Channel
    let number: UInt64

    init(_ state: Channel, number: UInt64) {
        self.state = state
        self.number = number
        channel = state.id
        client = state.client
    }

    /// Takes input; less than it was given when `inputBytes` wait, and then `channelWritable` follows.
    public func write(_ bytes: RawSpan) -> Int { state.write(bytes, by: number) }

    /// The same for input that stays together: all of it, or none and `channelWritable` follows. More than
    /// `wholeInputBytes` may never fit, because what was taken is told in steps.
    public func writeWhole(_ bytes: RawSpan) -> Bool {
        state.write(bytes, by: number, isWhole: true) == bytes.byteCount
    }

    /// Lets output come up to `offset` (exclusive). At first it may come for `WireLimits.initialWindowBytes`. However far
    /// this is ahead, at most `WireLimits.terminalLeadBytes` are on their way at a time.
    public func grant(upTo offset: UInt64) { state.grant(upTo: offset, by: number) }

    public func resize(_ size: TerminalSize) { state.resize(size, by: number) }
    public func signal(_ signal: TerminalSignal) { state.signal(signal, by: number) }

    /// No more input; only for channels without a terminal.
    public func endInput() { state.endInput(by: number) }

    /// Ends the program and all that it started; the end follows.
    public func close() { state.close(by: number) }

    /// Nobody reads any more; the program goes on as its specification says. No event comes after this.
    public func detach() { state.detach(by: number) }
}

import AgentProtocol
import Synchronization

/// One channel as the core knows it, from its opening to its acknowledged end.
///
/// What crosses threads stands behind a short mutex that is free in the usual case; the consumer and the link are called
/// without it. Frames of the link come on its loop, so that for each channel they are in order.
final class Channel: Sendable {
    /// Of input that waits here: until the client's program has taken it.
    static let inputBytes = Int(WireLimits.inputWindowBytes)
    /// Credit goes out in steps of this, so that a keystroke's echo costs no frame back.
    private static let creditStep: UInt64 = 32 * 1_024

    let id: ChannelID
    let client: ClientID
    let description: ChannelDescription

    enum Life {
        /// Its record is being written, or its order was not sent yet.
        case opening
        case linked(AgentLink, UInt32)
        /// The client is away, or the core was restarted.
        case away
        case ended(ExitRecord)
    }

    struct State {
        var life = Life.opening
        var consumer: (any ChannelConsumer)?
        var attachment: ChannelAttachment?
        /// Counts attaches and detaches.
        var attaches: UInt64 = 0
        /// The count for which output was asked for last.
        var asked: UInt64 = 0
        /// Output is coming for the present consumer.
        var isFlowing = false
        /// Output that the consumer has.
        var position: UInt64 = 0
        var granted: UInt64 = 0
        var wanted: UInt64 = 0
        /// What the client was told to have arrived.
        var arrived: UInt64 = 0
        /// Input from `inputBase` on that the client may not have taken yet.
        var input: [UInt8] = []
        var inputBase: UInt64 = 0
        /// After a restart nobody here knows how much input there was; the client tells.
        var isInputKnown = true
        var isWaitingForRoom = false
        var inputEnded = false
        var size: TerminalSize?
        var startedAt: UInt64?
        var closeWanted = false
        /// The end, once it is durable.
        var record: ExitRecord?
        /// Since when (Unix milliseconds) an end waits for somebody to read the rest.
        var endedAt: UInt64 = 0
    }
    let state: Mutex<State>

    init(_ description: ChannelDescription, isNew: Bool) {
        id = description.id
        client = description.client
        self.description = description
        var state = State()
        if !isNew {
            state.life = .away
            state.isInputKnown = false
        }
        self.state = Mutex(state)
    }

    // MARK: The consumer

    /// Makes `consumer` the one that is told. The old one hears `taken-over`.
    func attach(_ consumer: any ChannelConsumer, from offset: UInt64) -> ChannelAttachment {
        let (attachment, old, link) = state.withLock { state in
            let old = state.attachment.flatMap { attachment in state.consumer.map { (attachment, $0) } }
            state.attaches += 1
            let attachment = ChannelAttachment(self, number: state.attaches)
            state.consumer = consumer
            state.attachment = attachment
            state.isFlowing = false
            state.position = offset
            state.granted = 0
            state.wanted = 0
            return (attachment, old, Self.link(state.life))
        }
        if let (attachment, consumer) = old { consumer.channelLost(attachment, "taken-over") }
        link?.reach { $0.attachTerminal(self) }
        return attachment
    }

    private static func link(_ life: Life) -> AgentLink? {
        if case .linked(let link, _) = life { return link }
        return nil
    }

    /// The link, if `number` is the attachment that counts.
    private func link(_ number: UInt64, _ change: (inout State) -> Void = { _ in }) -> AgentLink? {
        state.withLock { state in
            guard state.attaches == number else { return nil }
            change(&state)
            return Self.link(state.life)
        }
    }

    func detach(by number: UInt64) {
        let link = link(number) { state in
            state.attaches += 1
            state.consumer = nil
            state.attachment = nil
            state.isFlowing = false
        }
        link?.reach { $0.detachTerminal(self) }
    }

    func write(_ bytes: RawSpan, by number: UInt64, isWhole: Bool = false) -> Int {
        var taken = 0
        let link = link(number) { state in
            if case .ended = state.life { return }
            guard !state.inputEnded else { return }
            taken = min(bytes.byteCount, Self.inputBytes - state.input.count)
            if isWhole, taken < bytes.byteCount { taken = 0 }
            // Invariant: the buffer is copied before the closure ends.
            unsafe bytes.extracting(0..<taken).withUnsafeBytes { unsafe state.input.append(contentsOf: $0) }
            if taken < bytes.byteCount { state.isWaitingForRoom = true }
        }
        if taken > 0 { link?.flushInput(of: self) }
        return taken
    }

    func endInput(by number: UInt64) {
        link(number) { $0.inputEnded = true }?.flushInput(of: self)
    }

    func grant(upTo offset: UInt64, by number: UInt64) {
        var isDue = false
        let link = link(number) { state in
            state.wanted = max(state.wanted, offset)
            isDue = state.isFlowing && Self.credit(state) != nil
        }
        if isDue { link?.grantOutput(of: self) }
    }

    func resize(_ size: TerminalSize, by number: UInt64) {
        link(number) { $0.size = size }?.reach { $0.resizeTerminal(self, size) }
    }

    func signal(_ signal: TerminalSignal, by number: UInt64) {
        link(number)?.reach { $0.signalTerminal(self, signal) }
    }

    func close(by number: UInt64) {
        link(number) { $0.closeWanted = true }?.reach { $0.closeTerminal(self) }
    }

    /// Whoever is attached.
    func close() {
        let link = state.withLock { state in
            state.closeWanted = true
            return Self.link(state.life)
        }
        link?.reach { $0.closeTerminal(self) }
    }

    // MARK: The link, on its loop

    /// The number on `link`; `nil` when it runs over another by now.
    func number(on link: AgentLink) -> UInt32? {
        state.withLock { state in
            if case .linked(let own, let number) = state.life, own === link { return number }
            return nil
        }
    }

    /// The order was sent.
    func opened(_ link: AgentLink, _ number: UInt32) {
        state.withLock { state in
            state.life = .linked(link, number)
            // The order asked for output for the first consumer.
            state.asked = 1
        }
    }

    /// What a link asks for when the client reports this channel: `nil` leaves it without a reader. Input below
    /// `report.inputReceived` is not sent again.
    func resumption(_ report: TerminalReport) -> Resumption {
        state.withLock { state in
            if !state.isInputKnown {
                state.inputBase = report.inputReceived
                state.isInputKnown = true
            }
            let end = state.inputBase + UInt64(state.input.count)
            guard report.inputReceived >= state.inputBase, report.inputReceived <= end else { return .wrongInput(end) }
            state.input.removeFirst(Int(report.inputReceived - state.inputBase))
            state.inputBase = report.inputReceived
            guard state.consumer != nil else { return .leave }
            state.asked = state.attaches
            return .attach(from: state.position)
        }
    }

    enum Resumption {
        case leave
        case attach(from: UInt64)
        /// The client has more or less input than was sent.
        case wrongInput(UInt64)
    }

    func resumed(_ link: AgentLink, _ number: UInt32) {
        state.withLock { $0.life = .linked(link, number) }
    }

    struct Unfinished {
        var size: TerminalSize?
        var closes: Bool
    }

    /// What was wanted while the client was away.
    func unfinished() -> Unfinished {
        state.withLock { Unfinished(size: $0.size, closes: $0.closeWanted) }
    }

    /// Where the present consumer wants to read, and that this has been asked for now. `nil`: nobody reads, or it was.
    func ask() -> UInt64? {
        state.withLock { state in
            guard state.consumer != nil, state.asked != state.attaches else { return nil }
            state.asked = state.attaches
            return state.position
        }
    }

    var hasConsumer: Bool { state.withLock { $0.consumer != nil } }

    func started(at unixMilliseconds: UInt64) {
        let told = state.withLock { state -> ((any ChannelConsumer), ChannelAttachment)? in
            guard state.startedAt == nil else { return nil }
            state.startedAt = unixMilliseconds
            guard let consumer = state.consumer, let attachment = state.attachment else { return nil }
            return (consumer, attachment)
        }
        if let (consumer, attachment) = told { consumer.channelStarted(attachment, at: unixMilliseconds) }
    }

    /// Output begins at `offset`. False: not for the present consumer; ask again, or leave.
    func attached(at offset: UInt64) -> Bool {
        let told = state.withLock { state -> ((any ChannelConsumer), ChannelAttachment, ChannelPlace)? in
            guard state.asked == state.attaches, let consumer = state.consumer, let attachment = state.attachment else {
                return nil
            }
            let gap = offset - min(offset, state.position)
            state.isFlowing = true
            state.position = offset
            state.granted = offset + WireLimits.initialWindowBytes
            state.arrived = offset
            state.wanted = max(state.wanted, state.granted)
            let place = ChannelPlace(
                output: offset, gap: gap, input: state.inputBase + UInt64(state.input.count))
            return (consumer, attachment, place)
        }
        guard let (consumer, attachment, place) = told else { return false }
        consumer.channelResumed(attachment, place)
        return true
    }

    /// What the client is to be told about its output.
    struct Due {
        var credit: UInt64?
        var arrived: UInt64?
    }

    /// Output that continues. Returns what is due.
    func received(_ bytes: RawSpan, at offset: UInt64) -> Due? {
        let told = state.withLock { state -> ((any ChannelConsumer), ChannelAttachment)? in
            guard state.isFlowing, let consumer = state.consumer, let attachment = state.attachment else { return nil }
            state.position = offset + UInt64(bytes.byteCount)
            return (consumer, attachment)
        }
        guard let (consumer, attachment) = told else { return nil }
        consumer.channel(attachment, received: bytes, at: offset)
        return creditDue()
    }

    /// What may go out now, counted as told.
    func creditDue() -> Due? {
        state.withLock { state in
            guard state.isFlowing else { return nil }
            var due = Due()
            if let credit = Self.credit(state) {
                state.granted = credit
                due.credit = credit
            }
            if state.position - state.arrived >= WireLimits.terminalArrivalBytes {
                state.arrived = state.position
                due.arrived = state.position
            }
            return due.credit == nil && due.arrived == nil ? nil : due
        }
    }

    private static func credit(_ state: State) -> UInt64? {
        let most = state.position.addingReportingOverflow(WireLimits.terminalLeadBytes)
        let credit = min(state.wanted, most.overflow ? .max : most.partialValue)
        guard credit > state.granted else { return nil }
        // Small steps only when the consumer asks for no more.
        return credit - state.granted >= creditStep || credit == state.wanted ? credit : nil
    }

    /// Input that has not been sent: calls `send` with pieces of at most one frame, while there is room on the link.
    func unsent(from offset: UInt64, _ send: (borrowing RawSpan) -> Void, room: Int) {
        state.withLock { state in
            var next = Int(offset - min(offset, state.inputBase))
            var room = room
            while room > 0, next < state.input.count {
                let count = min(min(room, state.input.count - next), WireLimits.dataBytes)
                send(state.input.span.bytes.extracting(next..<next + count))
                next += count
                room -= count
            }
        }
    }

    /// True when all input was sent up to `offset` and no more will come.
    func isInputOver(at offset: UInt64) -> Bool {
        state.withLock { $0.inputEnded && offset == $0.inputBase + UInt64($0.input.count) }
    }

    /// The client has taken all input below `offset`; with 0 it only tells of room that came otherwise.
    func inputTaken(upTo offset: UInt64) {
        let told = state.withLock { state -> ((any ChannelConsumer), ChannelAttachment)? in
            let count = min(offset - min(offset, state.inputBase), UInt64(state.input.count))
            state.input.removeFirst(Int(count))
            state.inputBase += count
            guard state.isWaitingForRoom, state.input.count <= Self.inputBytes / 2, let consumer = state.consumer,
                let attachment = state.attachment
            else { return nil }
            state.isWaitingForRoom = false
            return (consumer, attachment)
        }
        if let (consumer, attachment) = told { consumer.channelWritable(attachment) }
    }

    func linkLost(_ link: AgentLink) {
        let told = state.withLock { state -> ((any ChannelConsumer), ChannelAttachment)? in
            guard case .linked(let own, _) = state.life, own === link else { return nil }
            state.life = .away
            state.isFlowing = false
            guard let consumer = state.consumer, let attachment = state.attachment else { return nil }
            return (consumer, attachment)
        }
        if let (consumer, attachment) = told { consumer.channelLost(attachment, "client-away") }
    }

    /// The end is durable. Tells the consumer, if it has everything. True: the client may forget the channel.
    func ended(_ record: ExitRecord, isOver: Bool, now: UInt64) -> Bool {
        let (told, isDone) = state.withLock {
            state -> ((any ChannelConsumer, ChannelAttachment)?, Bool) in
            state.record = record
            if state.endedAt == 0 { state.endedAt = now }
            let hasAll = state.isFlowing || isOver
            if isOver { state.life = .ended(record) }
            let isDone = isOver || state.closeWanted || (hasAll && state.consumer != nil)
            if isDone { state.life = .ended(record) }
            guard isDone, let consumer = state.consumer, let attachment = state.attachment else { return (nil, isDone) }
            state.consumer = nil
            state.attachment = nil
            state.isFlowing = false
            return ((consumer, attachment), true)
        }
        if let (consumer, attachment) = told { consumer.channelExited(attachment, record) }
        return isDone
    }
}

extension Channel {
    var view: ChannelView {
        state.withLock { state in
            let kind: ChannelView.State =
                if state.record != nil { .ended } else {
                    switch state.life {
                    case .opening: .opening
                    case .linked: .open
                    case .away: .away
                    case .ended: .ended
                    }
                }
            return ChannelView(description: description, state: kind, isAttached: state.consumer != nil)
        }
    }

    /// Its end stands in the database.
    var isRecorded: Bool { description.endedAt != nil || state.withLock { $0.record != nil } }

    /// The end, when nobody has come to read the rest for so long.
    func unclaimed(now: UInt64, after milliseconds: UInt64) -> ExitRecord? {
        state.withLock { state in
            guard state.consumer == nil, state.endedAt > 0, now >= state.endedAt + milliseconds else { return nil }
            return state.record
        }
    }

    /// Lets the client forget it.
    func acknowledge() {
        let link: AgentLink? = state.withLock { state in
            if case .linked(let link, _) = state.life { return link }
            return nil
        }
        link?.reach { $0.acknowledgeTerminal(self) }
    }
}

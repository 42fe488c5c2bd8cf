import AgentProtocol
import Crypto
import Glibc
import Program
import Reactor
import System
import Transport

/// The real file work of an agent. Confined to the agent's loop; each transfer has a line of work of its own on a small
/// pool, and what that has to say comes back by mail.
public final class AgentFiles: FileExecutor {
    /// A push may run this far ahead of what is written, and of what is durable.
    static let leadBytes: UInt64 = 4 << 20
    static let openBytes: UInt64 = 64 << 20
    private static let grantBytes: UInt64 = 512 << 10
    /// A pull reads so many pieces ahead.
    private static let aheadPieces = 12
    /// What nobody asked for since is removed, with what it has beside its target.
    static let keptSeconds: UInt64 = 7 * 86_400
    private static let requestsAtOnce = 16

    public weak var observer: (any FileObserver)?

    private let loop: EventLoop
    private let log: Log
    private let roots: FileRoots
    private let journals: String
    private let proxy: ClientProxy?
    private let pool: BlockingPool
    private let marks: BlockingPool
    private let browsing: BlockingPool
    /// Hashes take as long as their files are; who looks at a directory does not wait for them.
    private let hashing = BlockingPool(name: "file-hashes", threads: 2, queue: 32)
    private var transfers: [TransferID: Transfer] = [:]
    private var known: Set<TransferID>
    private var requests = 0

    /// One transfer on this link. A pause or a lost link makes a new one, on the same line of work.
    private final class Transfer {
        let order: TransferOrder
        let work: SerialWork
        /// Set once it runs: what its line of work does with bytes.
        var incoming: (any Incoming)?
        var outgoing: (any Outgoing)?
        /// Its far end is a URL.
        var direct: DirectTransfer?
        var pieces: [FileChunk] = []
        var isReading = false
        var hasAll = false
        var taken: UInt64 = 0
        var durable: UInt64 = 0
        var granted: UInt64 = 0
        var isOver = false

        init(_ order: TransferOrder, _ work: SerialWork) {
            self.order = order
            self.work = work
        }
    }
    /// Lines outlive their transfers while something is still under way in them.
    private var lines: [TransferID: SerialWork] = [:]

    /// - Parameters:
    ///   - directory: the agent's data directory, which exists.
    ///   - proxy: for transfers with a URL.
    public init(directory: String, proxy: ClientProxy? = nil, on loop: EventLoop, log: Log) throws(SystemError) {
        self.proxy = proxy
        self.loop = loop
        self.log = log
        roots = FileRoots(dataDirectory: directory)
        journals = directory + "/transfers"
        try Files.makeDirectories(journals)
        pool = BlockingPool(name: "files", threads: 3, queue: 1_024)
        marks = BlockingPool(name: "file-marks", threads: 2, queue: 512)
        browsing = BlockingPool(name: "file-requests", threads: 2, queue: 32)
        known = []
        try sweep()
    }

    private var me: Confined<AgentFiles> { Confined(self, on: loop) }

    /// At the start: what was half made, what is too old, and what there is.
    private func sweep() throws(SystemError) {
        let now = unixMilliseconds()
        for name in try Files.list(journals) {
            let path = journals + "/" + name
            guard let id = TransferID(name) else {
                try Files.remove(path)
                continue
            }
            let age = now &- UInt64(clamping: try Files.status(path).modifiedNanoseconds / 1_000_000)
            guard age < Self.keptSeconds * 1_000 || age > UInt64(Int64.max), let journal = try TransferJournal.open(journals, id)
            else {
                if let journal = try TransferJournal.open(journals, id) { IncomingFile.forget(journal) }
                continue
            }
            known.insert(journal.head.order.transfer)
        }
    }

    public func kept() -> [TransferID] { Array(known.sorted().suffix(WireLimits.transfers)) }

    private func line(_ id: TransferID) -> SerialWork {
        if let line = lines[id] { return line }
        let line = SerialWork(on: pool)
        lines[id] = line
        return line
    }

    // MARK: Begin

    public func start(_ order: TransferOrder) {
        let id = order.transfer
        let transfer = Transfer(order, line(id))
        transfers[id] = transfer
        known.insert(id)
        if let url = order.url { return startDirect(transfer, url) }
        let (roots, journals) = (roots, journals)
        let isTaken = transfer.work.submit { [me] in
            do throws(FileFailure) {
                let kept: TransferJournal?
                do throws(SystemError) { kept = try TransferJournal.open(journals, id) } catch {
                    throw FileFailure("agent-storage-failed", "\(error)")
                }
                switch order.direction {
                case .push:
                    let start = order.form == .file
                        ? try IncomingFile.begin(order, roots, journals, kept: kept)
                        : try IncomingTree.begin(order, roots, journals, kept: kept)
                    me.post { $0.began(transfer: id, start) }
                case .pull:
                    let start = order.form == .file
                        ? try OutgoingFile.begin(order, roots, journals, kept: kept)
                        : try OutgoingTree.begin(order, roots, journals, kept: kept)
                    me.post { $0.began(transfer: id, start) }
                }
            } catch { me.post { $0.finished(id, TransferResult(failure: error)) } }
        }
        if !isTaken { finishSoon(id, FileFailure("agent-busy", "too much file work waits on this client")) }
    }

    private func startDirect(_ transfer: Transfer, _ url: TransferURL) {
        let id = transfer.order.transfer
        let place = DirectPlace(transfer.order, url, roots, journals, transfer.work)
        let direct = DirectTransfer(
            place, proxy: proxy, on: loop,
            DirectTransfer.News(
                ready: { [weak self] in self?.observer?.fileReady(id, at: $0, $1) },
                moved: { [weak self] in self?.observer?.fileMoved(id, to: $0) },
                finished: { [weak self] in self?.finished(id, $0) },
                failed: { [weak self] in self?.fail(id, $0) }))
        transfer.direct = direct
        direct.start()
    }

    public func grant(_ id: TransferID, upTo offset: UInt64) { transfers[id]?.direct?.grant(upTo: offset) }

    private func finishSoon(_ id: TransferID, _ failure: FileFailure) {
        let me = me
        loop.post { me.assumeOnLoop { $0.finished(id, TransferResult(failure: failure)) } }
    }

    private func began(transfer id: TransferID, _ start: IncomingStart) {
        guard let transfer = transfers[id] else { return }
        switch start {
        case .over(let result): finished(id, result)
        case .goesOn(let incoming, let offset):
            transfer.incoming = incoming
            transfer.taken = offset
            transfer.durable = offset
            transfer.granted = offset
            observer?.fileReady(id, at: offset, TransferReady())
            grant(id, transfer)
        }
    }

    private func began(transfer id: TransferID, _ start: OutgoingStart) {
        guard let transfer = transfers[id] else { return }
        switch start {
        case .over(let result): finished(id, result)
        case .goesOn(let outgoing, let offset, let ready):
            transfer.outgoing = outgoing
            observer?.fileReady(id, at: offset, ready)
            readAhead(id, transfer)
        }
    }

    private func finished(_ id: TransferID, _ result: TransferResult) {
        guard let transfer = transfers[id], !transfer.isOver else { return }
        transfer.isOver = true
        transfer.pieces = []
        observer?.fileFinished(id, result)
    }

    /// It cannot go on: nothing of it is left but the word of it, until the core has that.
    private func fail(_ id: TransferID, _ failure: FileFailure) {
        guard let transfer = transfers[id], !transfer.isOver else { return }
        let journals = journals
        let result = TransferResult(failure: failure)
        transfer.work.submit { [me] in
            if let journal = try? TransferJournal.open(journals, id) {
                IncomingFile.clear(journal)
                try? journal.write(TransferJournal.Mark(phase: .ended, result: result))
            }
            me.post { $0.finished(id, result) }
        }
    }

    // MARK: Push

    public func write(_ id: TransferID, at offset: UInt64, _ bytes: RawSpan) {
        guard let transfer = transfers[id], let incoming = transfer.incoming, !transfer.isOver else { return }
        // Invariant: the array copies before the closure ends.
        let copy = unsafe bytes.withUnsafeBytes { unsafe [UInt8]($0) }
        transfer.work.submit { [me, marks] in
            do throws(FileFailure) {
                let news = try incoming.write(copy)
                me.post { $0.wrote(id, news.taken, news.durable) }
                guard let mark = news.mark else { return }
                // Beside the writing, which goes on meanwhile.
                let isTaken = marks.submit {
                    do throws(FileFailure) {
                        let durable = try mark()
                        me.post { $0.marked(id, durable) }
                    } catch { me.post { $0.fail(id, error) } }
                }
                if !isTaken { me.post { $0.fail(id, FileFailure("agent-busy", "too much file work waits on this client")) } }
            } catch { me.post { $0.fail(id, error) } }
        }
    }

    private func wrote(_ id: TransferID, _ offset: UInt64, _ durable: UInt64?) {
        guard let transfer = transfers[id], !transfer.isOver else { return }
        transfer.taken = max(transfer.taken, offset)
        if let durable, durable > transfer.durable {
            transfer.durable = durable
            observer?.fileDurable(id, upTo: durable)
        }
        grant(id, transfer)
    }

    private func marked(_ id: TransferID, _ offset: UInt64) {
        guard let transfer = transfers[id], !transfer.isOver else { return }
        transfer.durable = max(transfer.durable, offset)
        observer?.fileDurable(id, upTo: offset)
        grant(id, transfer)
    }

    private func grant(_ id: TransferID, _ transfer: Transfer) {
        // A tree is durable by members, and one of them may be larger than that.
        let open = transfer.order.form == .tree ? UInt64.max : transfer.durable + Self.openBytes
        let limit = min(transfer.taken + Self.leadBytes, open, transfer.order.size)
        // A word for each piece would be a tenth of what a loop does for it.
        guard limit >= transfer.granted + Self.grantBytes || (limit == transfer.order.size && limit > transfer.granted) else { return }
        transfer.granted = limit
        observer?.fileGranted(id, upTo: limit)
    }

    public func end(_ id: TransferID, length: UInt64, _ digest: SHA256.Digest) {
        guard let transfer = transfers[id], let incoming = transfer.incoming, !transfer.isOver else { return }
        transfer.work.submit { [me] in
            do throws(FileFailure) {
                let result = try incoming.finish(length: length, digest)
                me.post { $0.finished(id, result) }
            } catch { me.post { $0.fail(id, error) } }
        }
    }

    // MARK: Pull

    public func next(_ id: TransferID, limit: UInt64) -> FileChunk? {
        guard let transfer = transfers[id], let first = transfer.pieces.first, first.range.count <= limit else { return nil }
        let piece = transfer.pieces.removeFirst()
        readAhead(id, transfer)
        return piece
    }

    private func readAhead(_ id: TransferID, _ transfer: Transfer) {
        guard let outgoing = transfer.outgoing, !transfer.isReading, !transfer.hasAll, !transfer.isOver,
            transfer.pieces.count <= Self.aheadPieces / 3
        else { return }
        transfer.isReading = true
        let count = Self.aheadPieces - transfer.pieces.count
        transfer.work.submit { [me] in
            do throws(FileFailure) {
                var pieces: [FileChunk] = []
                while pieces.count < count, pieces.last?.digest == nil { pieces.append(try outgoing.next()) }
                let read = pieces
                me.post { $0.hasRead(id, outgoing, read) }
            } catch { me.post { $0.fail(id, error) } }
        }
    }

    private func hasRead(_ id: TransferID, _ outgoing: any Outgoing, _ pieces: [FileChunk]) {
        // Of a link before.
        guard let transfer = transfers[id], let own = transfer.outgoing, own === outgoing, !transfer.isOver else { return }
        transfer.isReading = false
        transfer.pieces += pieces
        transfer.hasAll = pieces.last?.digest != nil
        observer?.fileReadable(id)
    }

    public func durable(_ id: TransferID, upTo offset: UInt64) {
        guard let transfer = transfers[id], let outgoing = transfer.outgoing else { return }
        transfer.work.submit { outgoing.durable(upTo: offset) }
    }

    // MARK: Ends

    public func stop(_ id: TransferID, _ stop: TransferStop) {
        guard stop == .pause else { return forget(id) }
        pause(id)
    }

    private func pause(_ id: TransferID) {
        guard let transfer = transfers.removeValue(forKey: id) else { return }
        transfer.direct?.stop(kept: !transfer.isOver)
        guard let incoming = transfer.incoming, !transfer.isOver else { return }
        transfer.work.submit { incoming.pause() }
    }

    public func forget(_ id: TransferID) {
        let work = line(id)
        transfers[id]?.direct?.stop(kept: false)
        transfers[id] = nil
        known.remove(id)
        lines[id] = nil
        let journals = journals
        work.submit { [log] in
            do throws(SystemError) {
                if let journal = try TransferJournal.open(journals, id) { IncomingFile.forget(journal) }
            } catch { log.warning("transfer.not-forgotten", ["transfer": .string("\(id)"), "reason": .string("\(error)")]) }
        }
    }

    public func linkLost() {
        for id in Array(transfers.keys) { pause(id) }
    }

    // MARK: Requests

    public func request(_ number: UInt64, _ request: FileRequest) {
        let roots = roots
        let pool = if case .hash = request { hashing } else { browsing }
        let isTaken = requests < Self.requestsAtOnce && pool.submit { [me] in
            let answer: FileAnswer
            do throws(FileFailure) { answer = try FileBrowsing.answer(request, roots) } catch {
                answer = FileAnswer(failure: error)
            }
            me.post { files in
                files.requests -= 1
                files.observer?.fileAnswer(number, answer)
            }
        }
        requests += 1
        guard !isTaken else { return }
        let me = me
        loop.post {
            me.assumeOnLoop { files in
                files.requests -= 1
                files.observer?.fileAnswer(
                    number, FileAnswer(failure: FileFailure("agent-busy", "too many file requests wait on this client")))
            }
        }
    }
}

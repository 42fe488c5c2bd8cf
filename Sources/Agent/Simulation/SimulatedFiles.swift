import AgentProtocol
import Crypto
import Reactor

/// Files in memory that nobody keeps: what is pushed is hashed and dropped; a pull of `/bytes/N` brings N bytes that depend
/// on their offset, every other path leads nowhere. For load, not for work.
public final class SimulatedFiles: FileExecutor {
    private static let leadBytes: UInt64 = 1 << 20

    public weak var observer: (any FileObserver)?
    /// Pushes that came whole.
    public private(set) var received = 0

    private struct Transfer {
        let order: TransferOrder
        var hash = SHA256()
        var offset: UInt64
        var result: TransferResult?
    }

    private let loop: EventLoop
    /// Pushes stay until they are forgotten, to be gone on with.
    private var transfers: [TransferID: Transfer] = [:]

    public init(loop: EventLoop) { self.loop = loop }

    public func kept() -> [TransferID] { transfers.keys.sorted().suffix(WireLimits.transfers) }

    /// Never from inside a call: on a turn of its own.
    private func soon(_ body: @escaping @Sendable (SimulatedFiles) -> Void) {
        let me = Confined(self, on: loop)
        loop.post { me.assumeOnLoop { body($0) } }
    }

    public func start(_ order: TransferOrder) {
        let id = order.transfer
        if order.url != nil {
            return soon {
                $0.observer?.fileFinished(
                    id, TransferResult(failure: FileFailure("url-not-allowed", "a simulated machine reaches no other server")))
            }
        }
        guard order.direction == .push || size(of: order.path) != nil else {
            return soon {
                $0.observer?.fileFinished(id, TransferResult(failure: FileFailure("path-not-found", "\(order.path) is not simulated")))
            }
        }
        if transfers[id] == nil { transfers[id] = Transfer(order: order, offset: 0) }
        if order.direction == .pull { transfers[id] = Transfer(order: order, hash: hash(upTo: order.from), offset: order.from) }
        soon { files in
            guard let transfer = files.transfers[id] else { return }
            if let result = transfer.result { return files.observer?.fileFinished(id, result) ?? () }
            files.observer?.fileReady(
                id, at: transfer.offset, TransferReady(size: order.direction == .pull ? files.size(of: order.path) : nil))
            if order.direction == .push {
                files.observer?.fileGranted(id, upTo: min(order.size, transfer.offset + Self.leadBytes))
            } else {
                files.observer?.fileReadable(id)
            }
        }
    }

    public func write(_ id: TransferID, at offset: UInt64, _ bytes: RawSpan) {
        guard let order = transfers[id]?.order, transfers[id]?.offset == offset else { return }
        transfers[id]?.hash.update(bytes)
        let end = offset + UInt64(bytes.byteCount)
        transfers[id]?.offset = end
        soon {
            $0.observer?.fileDurable(id, upTo: end)
            $0.observer?.fileGranted(id, upTo: min(order.size, end + Self.leadBytes))
        }
    }

    public func end(_ id: TransferID, length: UInt64, _ digest: SHA256.Digest) {
        guard let transfer = transfers[id] else { return }
        let isWhole = transfer.offset == length && transfer.hash.digest == digest
        if isWhole { received += 1 }
        let result = TransferResult(
            failure: isWhole ? nil : FileFailure("digest-mismatch", "other bytes came than were sent"), bytes: length, entries: 1)
        transfers[id]?.result = result
        soon { $0.observer?.fileFinished(id, result) }
    }

    private func size(of path: String) -> UInt64? {
        path.hasPrefix("/bytes/") ? UInt64(path.dropFirst(7)) : nil
    }

    private func bytes(at offset: UInt64, count: Int) -> [UInt8] {
        (0..<UInt64(count)).map { SimulatedExecutor.byte(at: offset + $0) }
    }

    private func hash(upTo offset: UInt64) -> SHA256 {
        var hash = SHA256()
        var done: UInt64 = 0
        while done < offset {
            let piece = bytes(at: done, count: Int(min(64 << 10, offset - done)))
            hash.update(piece.span.bytes)
            done += UInt64(piece.count)
        }
        return hash
    }

    public func next(_ id: TransferID, limit: UInt64) -> FileChunk? {
        guard let transfer = transfers[id], let size = size(of: transfer.order.path), transfer.offset <= size else { return nil }
        let count = min(UInt64(WireLimits.transferDataBytes), size - transfer.offset)
        guard count <= limit else { return nil }
        let piece = bytes(at: transfer.offset, count: Int(count))
        transfers[id]?.hash.update(piece.span.bytes)
        transfers[id]?.offset += count
        return FileChunk(bytes: piece, digest: transfer.offset + count == size ? transfers[id]?.hash.digest : nil)
    }

    public func grant(_ id: TransferID, upTo offset: UInt64) {}
    public func durable(_ id: TransferID, upTo offset: UInt64) {}
    public func stop(_ id: TransferID, _ stop: TransferStop) { if stop == .cancel { transfers[id] = nil } }
    public func forget(_ id: TransferID) { transfers[id] = nil }
    public func linkLost() {}

    public func request(_ number: UInt64, _ request: FileRequest) {
        soon {
            $0.observer?.fileAnswer(
                number, FileAnswer(failure: FileFailure("path-not-found", "a simulated machine has no files")))
        }
    }
}

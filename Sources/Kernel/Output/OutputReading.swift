import AgentProtocol
import Glibc
import System

/// Where the output of a target can be read: while it runs, or from what its exit row says.
enum OutputSource: Sendable {
    case live(LiveOutput)
    case kept(OutputSummary)

    /// Bytes that can be read now.
    func length(_ stream: OutputStream) -> UInt64 {
        switch self {
        case .live(let output): output.readable(stream)
        case .kept(let summary): stream == .standardOutput ? summary.output : summary.errors
        }
    }
}

extension OutputStore {
    /// Most bytes of one `read`.
    public static let readBytes = 256 * 1_024

    /// Bytes of a stream from `offset` on, at most `count` and `readBytes`; empty at the present end.
    /// Problem 410 `output-expired` when the retention has removed them.
    func read(
        _ source: OutputSource, _ stream: OutputStream, at offset: UInt64, count: Int
    ) async throws(Problem) -> [UInt8] {
        let count = min(count, Self.readBytes)
        let pieces: [OutputExtents.Extent]
        switch source {
        case .live(let output):
            let found = output.state.withLock { state -> Result<[UInt8], PiecesFound> in
                guard state.isSpilled else { return .success(Self.slice(state.small[stream], offset, count)) }
                return .failure(PiecesFound(pieces: state.extents[stream].pieces(at: offset, count: UInt64(count))))
            }
            switch found {
            case .success(let bytes): return bytes
            case .failure(let found): pieces = found.pieces
            }
        case .kept(let summary):
            if let inline = summary.inline { return Self.slice(inline[stream], offset, count) }
            pieces = summary.extents?[stream].pieces(at: offset, count: UInt64(count)) ?? []
        }
        guard !pieces.isEmpty else { return [] }
        let directory = directory
        do {
            return try await reading.run { () throws(SystemError) -> [UInt8] in
                try Self.read(pieces, directory)
            }
        } catch {
            switch error {
            case .full: throw Problem(503, "output-busy", "too many reads of output at once: try again", retryAfter: 1)
            case .failed(let failure) where failure.isMissing:
                throw Problem(410, "output-expired", "this output was removed by the retention of outputs")
            case .failed(let failure): throw Problem(500, "output-failed", "the output cannot be read: \(failure)")
            }
        }
    }

    private struct PiecesFound: Error {
        var pieces: [OutputExtents.Extent]
    }

    private static func slice(_ bytes: [UInt8], _ offset: UInt64, _ count: Int) -> [UInt8] {
        guard offset < UInt64(bytes.count) else { return [] }
        let start = Int(offset)
        return Array(bytes[start..<min(bytes.count, start + count)])
    }

    private static func read(
        _ pieces: [OutputExtents.Extent], _ directory: SegmentDirectory
    ) throws(SystemError) -> [UInt8] {
        var bytes: [UInt8] = []
        for piece in pieces {
            let path = directory.file(piece.segment)
            let file = try Descriptor.open(path, O_RDONLY)
            var failure: SystemError?
            let before = bytes.count
            bytes.append(addingCapacity: Int(piece.length)) { output in
                output.withUnsafeMutableBufferPointer { buffer, initialized in
                    while initialized < Int(piece.length), let start = buffer.baseAddress {
                        let count = pread(
                            file.number, start + initialized, Int(piece.length) - initialized,
                            off_t(clamping: piece.position) + off_t(initialized))
                        if count > 0 {
                            initialized += count
                        } else if count == 0 {
                            return
                        } else if errno != EINTR {
                            failure = .last("pread", path)
                            return
                        }
                    }
                }
            }
            if let failure { throw failure }
            guard bytes.count - before == Int(piece.length) else { throw SystemError("pread", path, code: EIO) }
        }
        return bytes
    }

    /// Removes segment files that are older than `keep` (`nil`: however old), or beyond `most` bytes of newer ones; never the
    /// newest. What is only too old and is held stays, and what goes although it is held is counted.
    func prune(now unixMilliseconds: UInt64, keep: UInt64?, most: UInt64, hold: OutputHold?) async -> OutputPruned {
        let directory = directory
        let pruned = try? await reading.run { () throws(SystemError) -> OutputPruned in
            var pruned = OutputPruned()
            var total: UInt64 = 0
            let segments = try directory.segments()
            for (index, segment) in segments.reversed().enumerated() {
                let path = directory.file(segment)
                let status = try Files.status(path)
                total += status.size
                let written = UInt64(max(0, status.modifiedNanoseconds)) / 1_000_000
                let isOld = keep.map { written + $0 < unixMilliseconds } ?? false
                let isTooMany = total > most
                guard index > 0, isTooMany || isOld else { continue }
                let isHeld = hold?.holds(segment, written: written) ?? false
                guard isTooMany || !isHeld else {
                    pruned.waiting += 1
                    continue
                }
                try Files.remove(path)
                pruned.removed += 1
                guard isHeld else { continue }
                pruned.dropped += 1
                pruned.droppedBytes += status.size
            }
            return pruned
        }
        return pruned ?? OutputPruned()
    }
}

/// An object on its way from one store into another: one thread reads, another one writes, and little lies between.
final class Pipe: ByteSink, ByteSource, Sendable {
    private struct State {
        var pieces: [[UInt8]] = []
        var bytes = 0
        var info: ObjectInfo?
        var hasEnded = false
        var failure: CloudError?
        /// The writing side takes no more.
        var isClosed = false
    }
    private static let room = 4 << 20
    private let state = Monitor(State())
    private let cancellation: Cancellation

    init(_ cancellation: Cancellation) { self.cancellation = cancellation }

    // MARK: The side that reads the source

    func begin(_ info: ObjectInfo, range: ClosedRange<Int64>?) throws(CloudError) { state.update { $0.info = info } }

    func write(_ bytes: UnsafeRawBufferPointer) throws(CloudError) {
        let piece = [UInt8](bytes)
        while !cancellation.isCancelled {
            let isTaken: Bool? = state.wait(milliseconds: 250) { state in
                if state.isClosed { return false }
                guard state.bytes < Self.room else { return nil }
                state.pieces.append(piece)
                state.bytes += piece.count
                return true
            }
            if isTaken == true { return }
            if isTaken == false { break }
        }
        throw CloudError(.cancelled, "the other side takes no more")
    }

    /// The same without waiting. `nil`: there is no room at the moment; false: the other side takes no more.
    func offer(_ piece: [UInt8]) -> Bool? {
        state.update { state in
            if state.isClosed || state.hasEnded { return false }
            guard state.bytes < Self.room else { return nil }
            if !piece.isEmpty { state.pieces.append(piece) }
            state.bytes += piece.count
            return true
        }
    }

    /// The first word on how it ended counts.
    func finish(_ failure: CloudError?) {
        state.update { state in
            guard !state.hasEnded else { return }
            state.failure = failure
            state.hasEnded = true
        }
    }

    // MARK: The side that writes the target

    /// Waits for what is known of the object.
    func info() throws(CloudError) -> ObjectInfo {
        while !cancellation.isCancelled {
            let found: Result<ObjectInfo, CloudError>? = state.wait(milliseconds: 250) { state in
                if let info = state.info { return .success(info) }
                return state.hasEnded ? .failure(state.failure ?? CloudError(.answer, "the source ended before it began")) : nil
            }
            if let found { return try found.get() }
        }
        throw CloudError(.cancelled, "the work was called off")
    }

    var length: Int64? { state.update { $0.info?.size } }

    func read(_ limit: Int, into buffer: inout [UInt8]) throws(CloudError) -> Bool {
        var wanted = limit
        while wanted > 0 {
            if cancellation.isCancelled { throw CloudError(.cancelled, "the work was called off") }
            let most = wanted
            let taken: Result<[UInt8]?, CloudError>? = state.wait(milliseconds: 250) { state in
                if let first = state.pieces.first {
                    state.bytes -= min(first.count, most)
                    if first.count <= most {
                        state.pieces.removeFirst()
                        return .success(first)
                    }
                    state.pieces[0] = Array(first[most...])
                    return .success(Array(first[..<most]))
                }
                guard state.hasEnded else { return nil }
                // A source that failed is not an end: the target must not take what came for the whole.
                if let failure = state.failure { return .failure(failure) }
                return .success(nil)
            }
            guard let taken else { continue }
            guard let piece = try taken.get() else { return false }
            buffer += piece
            wanted -= piece.count
        }
        return true
    }

    func close() { state.update { $0.isClosed = true } }
}

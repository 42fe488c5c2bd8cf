import Reactor
import Synchronization

/// Where a streamed body goes: the connection, on its loop.
public protocol ResponseSink: AnyObject {
    /// Takes the bytes. False when the peer has gone away.
    func writeBody(_ bytes: [UInt8]) -> Bool
    /// More than the high mark waits for the peer: stop writing until `ResponseWriter.drained`.
    var isOverHighMark: Bool { get }
    /// Ends the answer at once, before its end.
    func abort()
}

/// Writes a streamed body with back-pressure: `write` returns when the connection can take more. Used by one task.
public final class ResponseWriter: Sendable {
    private struct State: ~Copyable {
        var isClosed = false
        var waiting: UnsafeContinuation<Void, Never>?
    }
    private let sink: Confined<any ResponseSink>
    private let state = Mutex(State())

    public init(sink: Confined<any ResponseSink>) { self.sink = sink }

    /// - Throws: when the peer has gone away or the server stops.
    public func write(_ bytes: [UInt8]) async throws(StreamClosed) {
        guard !isClosed else { throw StreamClosed() }
        let (taken, full) = sink.assumeOnLoop { ($0.writeBody(bytes), $0.isOverHighMark) }
        guard taken else { throw StreamClosed() }
        if full { await waitForDrain() }
        guard !isClosed else { throw StreamClosed() }
    }

    public var isClosed: Bool { state.withLock { $0.isClosed } }

    /// The connection says that what was piled up is low again.
    public func drained() { state.withLock { $0.waiting.take() }?.resume() }

    /// The connection is gone: whoever waits gets `StreamClosed`.
    public func close() {
        state.withLock { state in
            state.isClosed = true
            return state.waiting.take()
        }?.resume()
    }

    /// From any thread: the answer ends here and now, also if its peer does not read.
    public func cut() {
        close()
        sink.post { $0.abort() }
    }

    private func waitForDrain() async {
        await withUnsafeContinuation { (continuation: UnsafeContinuation<Void, Never>) in
            let closed = state.withLock { state in
                if !state.isClosed { state.waiting = continuation }
                return state.isClosed
            }
            if closed { continuation.resume() }
        }
    }
}

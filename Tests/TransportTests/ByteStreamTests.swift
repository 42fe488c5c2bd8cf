import Glibc
import Reactor
import Testing

@testable import Transport

/// Notes what comes, and the end.
private final class Witness: StreamHandler {
    private(set) var bytes: [UInt8] = []
    private(set) var end: StreamEnd?
    private let signal = LoopSignal()

    override func received(_ input: inout MutableRawSpan, on stream: ByteStream) -> Int {
        input.bytes.withUnsafeBytes { bytes.append(contentsOf: $0) }
        signal.wake()
        return input.byteCount
    }
    override func closed(_ stream: ByteStream, _ end: StreamEnd) {
        self.end = end
        signal.wake()
    }
    func wait(forBytes count: Int = .max) async {
        while end == nil, bytes.count < count { await signal.wait { end != nil || bytes.count >= count } }
    }
}

@Suite struct ByteStreamTests {
    private static func pair() -> (Int32, Int32) {
        var pair: [Int32] = [0, 0]
        #expect(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue), 0, &pair) == 0)
        return (pair[0], pair[1])
    }

    private static func stream(_ descriptor: Int32, _ handler: Witness, _ loop: EventLoop) throws -> ByteStream {
        let stream = ByteStream(descriptor: descriptor, peer: SocketAddress(ip: .loopback, port: 0), context: .of(loop))
        try stream.start(handler)
        return stream
    }

    /// A sender holds what it sends, so its handler must not hear of the end from inside the call: what it does then may
    /// write to the same buffer. The end comes by itself afterwards.
    @Test(arguments: [false, true]) func aLargeFrameThatCannotGoDoesNotEndTheStreamInsideTheCall(masked: Bool) async throws {
        let (during, end) = try await onLoop { loop -> (Bool, StreamEnd?) in
            let (near, far) = Self.pair()
            let handler = Witness()
            let stream = try Self.stream(near, handler, loop)
            close(far)
            let payload = [UInt8](repeating: 7, count: 64 << 10)
            let key: UInt32? = masked ? 0x0102_0304 : nil
            let header = WebSocketFrameHeader(opcode: .binary, final: true, payload: payload.count, mask: key)
            for _ in 0..<3 {
                if let key {
                    stream.send(header: header, payload: payload.span.bytes, maskedWith: key)
                } else {
                    stream.send(header: header, payload: payload.span.bytes)
                }
            }
            let during = handler.end != nil
            await handler.wait()
            return (during, handler.end)
        }
        #expect(!during)
        #expect(end != nil)
    }

    @Test func largeFramesArriveWholeAndInOrderWhetherTheyWaitOrNot() async throws {
        let (sent, got) = try await onLoop { loop -> ([UInt8], [UInt8]) in
            let (near, far) = Self.pair()
            let reader = Witness()
            let stream = try Self.stream(near, Witness(), loop)
            let other = try Self.stream(far, reader, loop)
            var sent: [UInt8] = []
            // More than the socket takes at once, large and small ones in turn.
            for number in 0..<40 {
                let payload = [UInt8](repeating: UInt8(number), count: number % 3 == 0 ? 200 : 60 << 10)
                let header = WebSocketFrameHeader(opcode: .binary, final: true, payload: payload.count, mask: nil)
                stream.send(header: header, payload: payload.span.bytes)
                for index in 0..<header.count { sent.append(header.bytes[index]) }
                sent += payload
            }
            await reader.wait(forBytes: sent.count)
            other.close(.closed)
            stream.close(.closed)
            return (sent, reader.bytes)
        }
        #expect(got == sent)
    }
}

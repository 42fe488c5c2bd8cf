import Glibc
import Reactor
import Synchronization

@testable import Transport

/// A proxy of both kinds on loopback, for who logs in as user:secret. It knows one name, which leads to `target`; other
/// destinations are addresses of loopback.
final class FarProxy: Sendable {
    let loop: EventLoop
    let port: UInt16
    private let seen: Mutex<[String]>
    private let listener = Mutex<Confined<Listening>?>(nil)

    static func start(_ name: String, _ target: SocketAddress) async throws -> FarProxy {
        let loop = try EventLoop.start(name: "far-proxy")
        let descriptor = try ListeningSocket.open(SocketAddress(ip: .loopback, port: 0))
        let proxy = FarProxy(loop, ListeningSocket.localAddress(descriptor)?.port ?? 0)
        let listening = Confined(Listening(descriptor, proxy, name, target), on: loop)
        listening.post { try? $0.loop.add($0) }
        proxy.listener.withLock { $0 = listening }
        return proxy
    }

    private init(_ loop: EventLoop, _ port: UInt16) {
        (self.loop, self.port) = (loop, port)
        seen = Mutex([])
    }

    func stop() {
        listener.withLock { $0 }?.post { source in
            source.loop.remove(source)
            close(source.descriptor)
        }
        listener.withLock { $0 = nil }
        loop.stop()
        loop.join()
    }

    /// Where it was asked to go, each time.
    var destinations: [String] { seen.withLock { $0 } }
    func note(_ destination: String) { seen.withLock { $0.append(destination) } }

    final class Listening: Source {
        let loop: EventLoop
        private let proxy: FarProxy
        private let name: String
        private let target: SocketAddress

        init(_ descriptor: Int32, _ proxy: FarProxy, _ name: String, _ target: SocketAddress) {
            (self.proxy, self.name, self.target) = (proxy, name, target)
            loop = proxy.loop
            super.init(descriptor: descriptor)
        }

        override func ready(_ readiness: Readiness) {
            var storage = sockaddr_storage()
            while true {
                let accepted = acceptConnection(descriptor, &storage)
                guard accepted >= 0, let peer = SocketAddress(storage: storage) else { return }
                let stream = ByteStream(descriptor: accepted, peer: peer, context: StreamLoop.of(proxy.loop))
                try? stream.start(Greeter(self))
            }
        }

        func relay(_ near: ByteStream, to host: String, _ port: UInt16) {
            proxy.note("\(host):\(port)")
            let address: SocketAddress
            if host == name { address = target } else {
                guard let ip = IPAddress(host), ip.isLoopback else { return near.close(.closed) }
                address = SocketAddress(ip: ip, port: port)
            }
            let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0)
            _ = address.withSocketAddress { connect(descriptor, $0, $1) }
            let far = ByteStream(descriptor: descriptor, peer: address, context: StreamLoop.of(proxy.loop), connecting: true)
            near.hand(to: Pipe(far))
            try? far.start(Pipe(near))
        }
    }

    private final class Greeter: StreamHandler {
        private let listening: Listening
        private var isFirst = true

        init(_ listening: Listening) {
            self.listening = listening
            super.init()
        }

        override func received(_ bytes: inout MutableRawSpan, on stream: ByteStream) -> Int {
            let input = bytes.bytes.withUnsafeBytes { Array($0) }
            defer { isFirst = false }
            if input[0] == 5, isFirst {
                stream.send(([5, input.dropFirst(2).contains(2) ? 2 : 255] as [UInt8]).span.bytes)
            } else if input[0] == 1 {
                let isRight = input == [1, 4] + Array("user".utf8) + [6] + Array("secret".utf8)
                stream.send(([1, isRight ? 0 : 1] as [UInt8]).span.bytes)
            } else if input[0] == 5 {
                // A name: its length stands before it.
                guard input.count > 7, input[3] == 3, input.count == 7 + Int(input[4]) else { return address(input, stream) }
                stream.send(([5, 0, 0, 1, 0, 0, 0, 0, 0, 0] as [UInt8]).span.bytes)
                let port = UInt16(input[input.count - 2]) << 8 | UInt16(input[input.count - 1])
                listening.relay(stream, to: String(decoding: input[5..<input.count - 2], as: UTF8.self), port)
            } else {
                let text = String(decoding: input, as: UTF8.self)
                let words = text.split(separator: " ", maxSplits: 2)
                let place = words.count > 1 && words[0] == "CONNECT" ? words[1].split(separator: ":") : []
                guard place.count == 2, let port = UInt16(place[1]), text.contains("Basic dXNlcjpzZWNyZXQ=") else {
                    stream.send(Array("HTTP/1.1 407 No\r\n\r\n".utf8).span.bytes)
                    stream.close(.closed)
                    return input.count
                }
                stream.send(Array("HTTP/1.1 200 Connected\r\n\r\n".utf8).span.bytes)
                listening.relay(stream, to: String(place[0]), port)
            }
            return input.count
        }

        private func address(_ input: [UInt8], _ stream: ByteStream) -> Int {
            guard input.count == 10, input[3] == 1 else {
                stream.close(.closed)
                return input.count
            }
            stream.send(([5, 0, 0, 1, 0, 0, 0, 0, 0, 0] as [UInt8]).span.bytes)
            let host = input[4..<8].map { String($0) }.joined(separator: ".")
            listening.relay(stream, to: host, UInt16(input[8]) << 8 | UInt16(input[9]))
            return input.count
        }
    }

    private final class Pipe: StreamHandler {
        private weak var other: ByteStream?
        init(_ other: ByteStream) {
            self.other = other
            super.init()
        }
        override func received(_ bytes: inout MutableRawSpan, on stream: ByteStream) -> Int {
            other?.send(bytes.bytes)
            return bytes.byteCount
        }
        override func closed(_ stream: ByteStream, _ end: StreamEnd) { other?.close(.closed) }
    }
}

import Glibc
import Reactor
import System

/// Turns names into addresses on a thread of its own: the C library's resolver blocks. One per loop.
final class Resolver {
    private let pool = BlockingPool(name: "cm-resolver", threads: 2, queue: 64)

    private init() {}

    static func of(_ loop: EventLoop) -> Resolver { loop.resident { _ in Resolver() } }

    /// At most eight addresses, in the resolver's order of preference.
    func addresses(of host: String, port: UInt16) async throws(TransportError) -> [SocketAddress] {
        if let ip = IPAddress(host) { return [SocketAddress(ip: ip, port: port)] }
        do {
            return try await pool.run { () throws(TransportError) in try Self.lookUp(host, port) }
        } catch {
            switch error {
            case .full: throw TransportError(.resolve, "too many names wait for the resolver")
            case .failed(let error): throw error
            }
        }
    }

    private static func lookUp(_ host: String, _ port: UInt16) throws(TransportError) -> [SocketAddress] {
        var hints = addrinfo()
        hints.ai_family = AF_UNSPEC
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        hints.ai_flags = AI_ADDRCONFIG
        var list: UnsafeMutablePointer<addrinfo>?
        let status = getaddrinfo(host, nil, &hints, &list)
        guard status == 0 else {
            let reason = gai_strerror(status).map { String(cString: $0) } ?? "error \(status)"
            throw TransportError(.resolve, "\(host): \(reason)")
        }
        defer { freeaddrinfo(list) }
        var addresses: [SocketAddress] = []
        var next = list
        while let entry = next?.pointee, addresses.count < 8 {
            if let raw = entry.ai_addr {
                var storage = sockaddr_storage()
                memcpy(&storage, raw, min(Int(entry.ai_addrlen), MemoryLayout<sockaddr_storage>.size))
                if let address = SocketAddress(storage: storage) {
                    addresses.append(SocketAddress(ip: address.ip, port: port))
                }
            }
            next = entry.ai_next
        }
        guard !addresses.isEmpty else { throw TransportError(.resolve, "\(host) has no address") }
        return addresses
    }
}

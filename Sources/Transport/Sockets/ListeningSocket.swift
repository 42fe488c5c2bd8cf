import Glibc

/// Makes listening sockets. They can be opened by one process and served by another, which inherits them.
public enum ListeningSocket {
    /// `count` sockets that share one port at `address`, and where they listen in fact. Throws `socket-error` if the
    /// address cannot be had.
    public static func openAll(
        at address: SocketAddress, count: Int
    ) throws(TransportError) -> (descriptors: [Int32], address: SocketAddress) {
        // Sockets that share a port would let a second program in silently; one that does not share finds it.
        if address.port != 0 { try checkFree(address) }
        var descriptors: [Int32] = []
        var bound = address
        do throws(TransportError) {
            for _ in 0..<count {
                let descriptor = try open(bound)
                descriptors.append(descriptor)
                guard let local = localAddress(descriptor) else { throw TransportError(.system, "getsockname failed") }
                bound = local
            }
        } catch {
            for descriptor in descriptors { close(descriptor) }
            throw error
        }
        return (descriptors, bound)
    }

    /// Takes over listening sockets that this process inherited: not for its own children, and never waiting.
    public static func adopt(_ descriptors: [Int32]) throws(TransportError) -> SocketAddress {
        var address: SocketAddress?
        for descriptor in descriptors {
            guard let local = localAddress(descriptor) else {
                throw TransportError(.system, "descriptor \(descriptor), which should be a listening socket, is none")
            }
            _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
            _ = fcntl(descriptor, F_SETFL, O_NONBLOCK)
            address = local
        }
        guard let address else { throw TransportError(.system, "no listening socket was inherited") }
        return address
    }

    /// Throws if anybody listens at `address`.
    static func checkFree(_ address: SocketAddress) throws(TransportError) {
        close(try bound(address, sharesPort: false))
    }

    /// A non-blocking socket that listens at `address` and shares its port with the other loops of this process.
    static func open(_ address: SocketAddress) throws(TransportError) -> Int32 {
        let descriptor = try bound(address, sharesPort: true)
        guard listen(descriptor, 4_096) == 0 else {
            let number = errno
            close(descriptor)
            throw TransportError(.system, "listen at \(address) failed with errno \(number)")
        }
        return descriptor
    }

    private static func bound(_ address: SocketAddress, sharesPort: Bool) throws(TransportError) -> Int32 {
        let family = address.ip.isV4 ? AF_INET : AF_INET6
        let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        let descriptor = socket(family, kind, 0)
        guard descriptor >= 0 else { throw TransportError(.system, "socket failed with errno \(errno)") }
        var on: Int32 = 1
        let size = socklen_t(MemoryLayout<Int32>.size)
        setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &on, size)
        if sharesPort { setsockopt(descriptor, SOL_SOCKET, SO_REUSEPORT, &on, size) }
        let bound = address.withSocketAddress { bind(descriptor, $0, $1) }
        guard bound == 0 else {
            let number = errno
            close(descriptor)
            let reason = number == EADDRINUSE ? "another program listens there" : "errno \(number)"
            throw TransportError(.system, "cannot listen at \(address): \(reason)")
        }
        return descriptor
    }

    /// Where it listens in fact, after port 0.
    static func localAddress(_ descriptor: Int32) -> SocketAddress? {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        let status = withUnsafeMutablePointer(to: &storage) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &length) }
        }
        return status == 0 ? SocketAddress(storage: storage) : nil
    }
}

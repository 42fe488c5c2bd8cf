import Glibc

/// TCP and Unix connections whose waits are bounded.
enum Socket {
    /// Connects to the first address of `host` that answers. The resolver has bounds of its own (resolv.conf(5)).
    static func connect(_ host: String, _ port: Int, _ watch: Watch, seconds: Double) throws(Failure) -> Int32 {
        var hints = addrinfo()
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        hints.ai_flags = Int32(AI_ADDRCONFIG)
        var list: UnsafeMutablePointer<addrinfo>?
        let found = getaddrinfo(host, "\(port)", &hints, &list)
        guard found == 0 else {
            throw Failure("ssh-unreachable", "\(host) is not known: \(String(cString: gai_strerror(found)))")
        }
        defer { freeaddrinfo(list) }
        let deadline = Deadline(seconds: seconds)
        var reason = "it has no address"
        var next = list
        while let item = next?.pointee {
            next = item.ai_next
            let descriptor = socket(
                item.ai_family, item.ai_socktype | Int32(SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), item.ai_protocol)
            guard descriptor >= 0 else { continue }
            if Glibc.connect(descriptor, item.ai_addr, item.ai_addrlen) == 0 { return ready(descriptor) }
            if errno == EINPROGRESS {
                do throws(Failure) {
                    guard try watch.wait(descriptor, POLLOUT, until: deadline) else {
                        close(descriptor)
                        throw Failure("ssh-unreachable", "\(host) port \(port) did not answer within \(Int(seconds)) s")
                    }
                } catch {
                    close(descriptor)
                    throw error
                }
                var failure: Int32 = 0
                var size = socklen_t(MemoryLayout<Int32>.size)
                getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &failure, &size)
                if failure == 0 { return ready(descriptor) }
                errno = failure
            }
            reason = String(cString: strerror(errno))
            close(descriptor)
        }
        throw Failure("ssh-unreachable", "\(host) port \(port) cannot be reached: \(reason)")
    }

    private static func ready(_ descriptor: Int32) -> Int32 {
        var one: Int32 = 1
        setsockopt(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, &one, socklen_t(MemoryLayout<Int32>.size))
        return descriptor
    }

    /// Connects to a Unix socket.
    static func connect(path: String) throws(Failure) -> Int32 {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        let room = MemoryLayout.size(ofValue: address.sun_path)
        guard bytes.count < room else { throw Failure("ssh-agent-unavailable", "the agent socket's path is too long") }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
        guard descriptor >= 0 else { throw Failure("ssh-agent-unavailable", "no socket for the agent") }
        let status = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Glibc.connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        guard status == 0 else {
            let reason = String(cString: strerror(errno))
            close(descriptor)
            throw Failure("ssh-agent-unavailable", "the SSH agent at \(path) does not answer: \(reason)")
        }
        return descriptor
    }
}

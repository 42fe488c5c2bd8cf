import CLinux
import Glibc

/// Takes one waiting connection from a listening socket, non-blocking and close-on-exec; its peer's address goes to
/// `address`. The descriptor, or -errno.
public func acceptConnection(_ listener: Int32, _ address: inout sockaddr_storage) -> Int32 {
    cm_accept_peer(listener, &address)
}

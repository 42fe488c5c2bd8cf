import CLinux
import Glibc

/// Unix sockets that keep packets whole (`SOCK_SEQPACKET`), for processes of one machine and one data directory.
/// All are non-blocking and close-on-exec.
public enum PacketSocket {
    /// Listens at `name` in a directory. A left-over socket file of that name is replaced.
    ///
    /// The name is reached through the directory's descriptor, because a socket's address holds 107 bytes at most.
    public static func listen(in directory: borrowing Descriptor, name: String, backlog: Int32 = 8) throws(SystemError)
        -> Descriptor
    {
        if unlinkat(directory.number, name, 0) != 0, errno != ENOENT { throw .last("unlinkat", name) }
        let number = cm_packet_socket()
        guard number >= 0 else { throw SystemError("socket", name, code: -number) }
        let socket = Descriptor(owning: number)
        let status = cm_unix_bind(number, "/proc/self/fd/\(directory.number)/\(name)", backlog)
        guard status == 0 else { throw SystemError("bind", name, code: -status) }
        return socket
    }

    /// `ECONNREFUSED`: nobody listens any more; `ENOENT`: nobody ever did.
    public static func connect(in directory: borrowing Descriptor, name: String) throws(SystemError) -> Descriptor {
        let number = cm_packet_socket()
        guard number >= 0 else { throw SystemError("socket", name, code: -number) }
        let socket = Descriptor(owning: number)
        let status = cm_unix_connect(number, "/proc/self/fd/\(directory.number)/\(name)")
        guard status == 0 else { throw SystemError("connect", name, code: -status) }
        return socket
    }

    /// The next waiting connection, `nil` if there is none.
    public static func accept(_ listener: borrowing Descriptor) throws(SystemError) -> Descriptor? {
        let number = cm_accept(listener.number)
        if number >= 0 { return Descriptor(owning: number) }
        if [-EAGAIN, -EINTR, -ECONNABORTED].contains(number) { return nil }
        throw SystemError("accept", code: -number)
    }

    /// False: the peer's buffer is full; try again when writable.
    public static func send(_ packet: [UInt8], to socket: borrowing Descriptor) throws(SystemError) -> Bool {
        while Glibc.send(socket.number, packet, packet.count, Int32(MSG_NOSIGNAL)) < 0 {
            if errno == EAGAIN { return false }
            if errno != EINTR { throw .last("send") }
        }
        return true
    }

    public enum Received: Sendable, Equatable {
        /// So many bytes stand in the buffer.
        case packet(Int)
        case nothingYet
        case ended
    }

    /// One packet into `buffer`; what is longer than the buffer is cut.
    public static func receive(
        _ socket: borrowing Descriptor, into buffer: inout [UInt8]
    ) throws(SystemError) -> Received {
        while true {
            let count = recv(socket.number, &buffer, buffer.count, 0)
            if count > 0 { return .packet(count) }
            if count == 0 || errno == ECONNRESET { return .ended }
            if errno == EAGAIN { return .nothingYet }
            if errno != EINTR { throw .last("recv") }
        }
    }

    /// The same into memory of the caller's.
    public static func receive(
        _ socket: borrowing Descriptor, into buffer: UnsafeMutableRawBufferPointer
    ) throws(SystemError) -> Received {
        while true {
            let count = recv(socket.number, buffer.baseAddress, buffer.count, 0)
            if count > 0 { return .packet(count) }
            if count == 0 || errno == ECONNRESET { return .ended }
            if errno == EAGAIN { return .nothingYet }
            if errno != EINTR { throw .last("recv") }
        }
    }
}

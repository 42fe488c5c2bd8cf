import CLinux
import Glibc

/// A failed system call: which one, on what, and the kernel's reason.
public struct SystemError: Error, Sendable, Equatable, CustomStringConvertible {
    /// Name of the call as in its manual page, for example `rename`.
    public let call: String
    /// The path or thing that the call was about; empty when there is none.
    public let subject: String
    /// `errno` of the call, always positive.
    public let code: Int32

    public init(_ call: String, _ subject: String = "", code: Int32) {
        self.call = call
        self.subject = subject
        self.code = code
    }

    /// Takes `errno` of the calling thread; only right directly after the failed call.
    public static func last(_ call: String, _ subject: String = "") -> SystemError {
        SystemError(call, subject, code: errno)
    }

    /// The disk or the quota is full.
    public var isOutOfSpace: Bool { code == ENOSPC || code == EDQUOT }
    public var isMissing: Bool { code == ENOENT || code == ENOTDIR }
    public var alreadyExists: Bool { code == EEXIST }
    /// Somebody else holds the lock, or a non-blocking call would have waited.
    public var wouldBlock: Bool { code == EAGAIN }

    public var description: String {
        subject.isEmpty ? "\(call): \(reason)" : "\(call) \(subject): \(reason)"
    }

    /// The kernel's reason in words, for example "No space left on device".
    public var reason: String {
        cm_error_text(code).map { String(cString: $0) } ?? "error \(code)"
    }
}

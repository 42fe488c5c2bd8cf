import CPluginABI

/// Why a call between plugin and core failed.
public struct PluginError: Error, Sendable, Equatable {
    /// `CM_E_…` of the header; a struct, so that a newer core's value is no trap.
    public struct Status: RawRepresentable, Sendable, Equatable, Hashable {
        public let rawValue: Int32
        public init(rawValue: Int32) { self.rawValue = rawValue }

        public static let invalid = Status(rawValue: CM_E_INVALID)
        public static let denied = Status(rawValue: CM_E_DENIED)
        public static let notFound = Status(rawValue: CM_E_NOT_FOUND)
        public static let exists = Status(rawValue: CM_E_EXISTS)
        public static let busy = Status(rawValue: CM_E_BUSY)
        public static let tooSmall = Status(rawValue: CM_E_TOO_SMALL)
        public static let tooLarge = Status(rawValue: CM_E_TOO_LARGE)
        public static let gone = Status(rawValue: CM_E_GONE)
        public static let state = Status(rawValue: CM_E_STATE)
        public static let thread = Status(rawValue: CM_E_THREAD)
        public static let unsupported = Status(rawValue: CM_E_UNSUPPORTED)
        public static let timeout = Status(rawValue: CM_E_TIMEOUT)
        public static let unavailable = Status(rawValue: CM_E_UNAVAILABLE)
        public static let `internal` = Status(rawValue: CM_E_INTERNAL)
    }

    public var status: Status
    /// What a route would answer; 0 for none.
    public var httpStatus: UInt32
    /// For machines; may be empty.
    public var code: String
    /// For people.
    public var text: String

    public init(_ status: Status, _ text: String, code: String = "", httpStatus: UInt32 = 0) {
        self.status = status
        self.text = text
        self.code = code
        self.httpStatus = httpStatus
    }

    /// The core's table ends before this function.
    static func missing(_ function: String) -> PluginError {
        PluginError(.unsupported, "this core has no \(function); a newer one is needed")
    }

    /// A failure without a text of the core's.
    static func failed(_ status: cm_status, _ function: String) -> PluginError {
        PluginError(Status(rawValue: status), "\(function) answered \(status)")
    }
}

extension PluginError: CustomStringConvertible {
    public var description: String { code.isEmpty ? "\(text) (\(status.rawValue))" : "\(text) (\(code))" }
}

extension PluginError {
    init(_ status: cm_status, _ error: cm_error, _ function: String) {
        let code = withUnsafeBytes(of: error.code) { String(decoding: $0.prefix(Int(error.code_size)), as: UTF8.self) }
        let text = withUnsafeBytes(of: error.text) { String(decoding: $0.prefix(Int(error.text_size)), as: UTF8.self) }
        self.init(
            Status(rawValue: status), text.isEmpty ? "\(function) answered \(status)" : text, code: code,
            httpStatus: error.http_status)
    }

    /// Into the caller's error, if it wants one. A text that is too long is cut between two characters.
    func fill(_ out: UnsafeMutablePointer<cm_error>?) {
        guard let out else { return }
        out.pointee.status = status.rawValue
        out.pointee.http_status = httpStatus
        out.pointee.code_size = Self.copy(code, into: &out.pointee.code)
        out.pointee.text_size = Self.copy(text, into: &out.pointee.text)
    }

    private static func copy<Room>(_ text: String, into room: inout Room) -> UInt32 {
        withUnsafeMutableBytes(of: &room) { room in
            var cut = Array(text.utf8.prefix(room.count))
            if cut.count < text.utf8.count {
                while let last = cut.last, last & 0xC0 == 0x80 { cut.removeLast() }
                if let last = cut.last, last >= 0x80 { cut.removeLast() }
            }
            room.copyBytes(from: cut)
            return UInt32(cut.count)
        }
    }
}

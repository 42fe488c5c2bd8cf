import CPluginABI
import Glibc
import Kernel

/// What crosses the boundary, turned into Swift values and back. Everything a plugin passes may be wrong: sizes are
/// bounded before a byte is read.

/// An opaque pointer of a plugin's: never looked at, only handed back to the same plugin.
///
/// `@unchecked Sendable`: the host does nothing with it but pass it on; what it points to is the plugin's own business.
struct Foreign: @unchecked Sendable {
    let pointer: UnsafeMutableRawPointer?
    init(_ pointer: UnsafeMutableRawPointer?) { self.pointer = pointer }
}

extension cm_text {
    /// `nil` when it is longer than `limit`, is not UTF-8 or holds a NUL.
    func string(limit: Int) -> String? {
        guard size <= UInt64(limit) else { return nil }
        guard size > 0 else { return "" }
        guard let data else { return nil }
        let bytes = UnsafeRawBufferPointer(start: data, count: Int(size))
        guard !bytes.contains(0) else { return nil }
        return String(validating: bytes, as: UTF8.self)
    }

    /// The bytes as they are.
    func bytes(limit: Int) -> [UInt8]? { cm_bytes(data: data.map { UnsafeRawPointer($0).assumingMemoryBound(to: UInt8.self) }, size: size).array(limit: limit) }
}

extension cm_bytes {
    func array(limit: Int) -> [UInt8]? {
        guard size <= UInt64(limit) else { return nil }
        guard size > 0 else { return [] }
        guard let data else { return nil }
        return Array(UnsafeBufferPointer(start: data, count: Int(size)))
    }
}

/// Calls `body` with a text that lives as long as the call.
func withText<Result>(_ text: String, _ body: (cm_text) -> Result) -> Result {
    var text = text
    return text.withUTF8 { bytes in
        body(cm_text(data: bytes.baseAddress.map { UnsafeRawPointer($0).assumingMemoryBound(to: CChar.self) }, size: UInt64(bytes.count)))
    }
}

func withText<Result>(_ bytes: [UInt8], _ body: (cm_text) -> Result) -> Result {
    bytes.withUnsafeBytes { body(cm_text(data: $0.baseAddress?.assumingMemoryBound(to: CChar.self), size: UInt64($0.count))) }
}

func withBytes<Result>(_ bytes: [UInt8], _ body: (cm_bytes) -> Result) -> Result {
    bytes.withUnsafeBufferPointer { body(cm_bytes(data: $0.baseAddress, size: UInt64($0.count))) }
}

extension UnsafeMutablePointer<cm_buffer> {
    /// Puts a whole result into the caller's room, or says how much is needed.
    func fill(_ bytes: some Collection<UInt8>) -> cm_status {
        pointee.size = UInt64(bytes.count)
        guard UInt64(bytes.count) <= pointee.capacity else { return CM_E_TOO_SMALL }
        guard !bytes.isEmpty else { return CM_OK }
        guard let data = pointee.data else { return CM_E_TOO_SMALL }
        _ = UnsafeMutableBufferPointer(start: data, count: bytes.count).initialize(fromContentsOf: bytes)
        return CM_OK
    }

    func fill(_ text: String) -> cm_status { fill(Array(text.utf8)) }
}

extension UnsafeMutablePointer<cm_error>? {
    /// Fills in the caller's error, if there is one, and gives the status for the return value.
    @discardableResult
    func set(_ status: cm_status, _ code: String, _ text: String, http: Int = 0) -> cm_status {
        guard let error = self else { return status }
        error.pointee.status = status
        error.pointee.http_status = UInt32(clamping: http)
        error.pointee.code_size = Self.copy(code, &error.pointee.code)
        error.pointee.text_size = Self.copy(text, &error.pointee.text)
        return status
    }

    /// Fills the caller's room; says so in the error when it is too small.
    func fill(_ buffer: UnsafeMutablePointer<cm_buffer>, _ bytes: [UInt8]) -> cm_status {
        let status = buffer.fill(bytes)
        guard status != CM_OK else { return status }
        return set(status, "plugin-buffer", "the result has \(bytes.count) bytes, and there is room for \(buffer.pointee.capacity)")
    }

    func set(_ problem: Problem) -> cm_status { set(problem.pluginStatus, problem.code, problem.detail, http: problem.status) }

    /// Cuts at a character's border, so that what is there is UTF-8.
    private static func copy<Room>(_ text: String, _ room: inout Room) -> UInt32 {
        withUnsafeMutableBytes(of: &room) { room in
            var count = 0
            for character in text.unicodeScalars {
                let bytes = UTF8.encode(character)
                guard let bytes, count + bytes.count <= room.count else { break }
                for byte in bytes {
                    room[count] = byte
                    count += 1
                }
            }
            return UInt32(count)
        }
    }
}

extension cm_error {
    /// What a plugin says went wrong, cut to what is there.
    var described: (code: String, text: String) {
        (Self.text(code, code_size), Self.text(text, text_size))
    }

    private static func text<Room>(_ room: Room, _ size: UInt32) -> String {
        withUnsafeBytes(of: room) { String(decoding: $0.prefix(Int(min(size, UInt32($0.count)))).prefix { $0 != 0 }, as: UTF8.self) }
    }
}

extension Problem {
    /// The nearest status of the header.
    var pluginStatus: cm_status {
        switch status {
        case 400, 415, 422: CM_E_INVALID
        case 401, 403: CM_E_DENIED
        case 404: CM_E_NOT_FOUND
        case 409, 412: CM_E_EXISTS
        case 410: CM_E_GONE
        case 413: CM_E_TOO_LARGE
        case 429: CM_E_BUSY
        case 503, 507: CM_E_UNAVAILABLE
        case 504: CM_E_TIMEOUT
        default: CM_E_INTERNAL
        }
    }
}

/// Reads a sized table of callbacks as far as its owner filled it in; the rest is zero. `nil`: the head is senseless.
func adopt<Table>(_ pointer: UnsafePointer<Table>, empty: Table) -> Table? {
    let size = Int(UnsafeRawPointer(pointer).load(as: cm_head.self).size)
    guard size >= MemoryLayout<cm_head>.size, size <= 65_536 else { return nil }
    var table = empty
    withUnsafeMutableBytes(of: &table) { target in
        target.copyMemory(from: UnsafeRawBufferPointer(start: pointer, count: min(size, MemoryLayout<Table>.size)))
    }
    return table
}

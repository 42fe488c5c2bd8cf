import CPluginABI
import JSON

// What the plugin hands over, copied at once and looked at with suspicion.

extension PlayedHost {
    /// A text that must be UTF-8.
    func text(_ text: cm_text, _ what: StaticString) -> String {
        guard text.size > 0 else { return "" }
        guard let data = text.data, text.size <= 64 << 20 else {
            misuse("\(what): a text of \(text.size) bytes at no address")
            return ""
        }
        let bytes = UnsafeRawBufferPointer(start: data, count: Int(text.size))
        guard let string = String(validating: bytes, as: UTF8.self) else {
            misuse("\(what): a text that is not UTF-8")
            return String(decoding: bytes, as: UTF8.self)
        }
        return string
    }

    func bytes(_ bytes: cm_bytes, _ what: StaticString) -> [UInt8] {
        guard bytes.size > 0 else { return [] }
        guard let data = bytes.data, bytes.size <= 64 << 20 else {
            misuse("\(what): \(bytes.size) bytes at no address")
            return []
        }
        return [UInt8](UnsafeRawBufferPointer(start: data, count: Int(bytes.size)))
    }

    func bytes(_ text: cm_text, _ what: StaticString) -> [UInt8] { Array(self.text(text, what).utf8) }

    func json(_ text: cm_text, _ what: StaticString) -> JSONValue {
        let string = self.text(text, what)
        guard let value = try? JSONValue(parsing: string) else {
            misuse("\(what): no JSON: \(string.prefix(80))")
            return .null
        }
        return value
    }

    /// Into the plugin's buffer, by its rules.
    func put(_ bytes: [UInt8], _ buffer: UnsafeMutablePointer<cm_buffer>, _ what: StaticString) -> cm_status {
        buffer.pointee.size = UInt64(bytes.count)
        guard buffer.pointee.capacity >= UInt64(bytes.count) else { return CM_E_TOO_SMALL }
        guard !bytes.isEmpty else { return CM_OK }
        guard let data = buffer.pointee.data else {
            misuse("\(what): a buffer with room for \(buffer.pointee.capacity) bytes at no address")
            return CM_E_INVALID
        }
        UnsafeMutableRawBufferPointer(start: data, count: bytes.count).copyBytes(from: bytes)
        return CM_OK
    }

    /// The size that a callback table's owner filled in.
    func checkHead(_ head: cm_head, atLeast size: Int, _ what: StaticString) {
        if Int(head.size) < size { misuse("\(what): the callbacks' head says \(head.size) bytes, revision 1 has \(size)") }
    }
}

func fail(
    _ status: cm_status, _ error: UnsafeMutablePointer<cm_error>?, _ text: String
) -> cm_status {
    if let error {
        error.pointee = cm_error()
        error.pointee.status = status
        withUnsafeMutableBytes(of: &error.pointee.text) { room in
            let bytes = Array(text.utf8.prefix(room.count))
            room.copyBytes(from: bytes)
            error.pointee.text_size = UInt32(bytes.count)
        }
    }
    return status
}

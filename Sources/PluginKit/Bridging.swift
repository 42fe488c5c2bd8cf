import CPluginABI
import JSON

// Borrowed memory crosses here and nowhere else. What comes in is copied or seen as a span that cannot outlive the call;
// what goes out is pinned for the length of the call.

extension String {
    /// The text's bytes for the length of one call.
    func withText<Result>(_ body: (cm_text) -> Result) -> Result {
        var copy = self
        return copy.withUTF8 { bytes in
            bytes.withMemoryRebound(to: CChar.self) { body(cm_text(data: $0.baseAddress, size: UInt64($0.count))) }
        }
    }

    init(_ text: cm_text) {
        self.init(decoding: UnsafeRawBufferPointer(start: text.data, count: Int(text.size)), as: UTF8.self)
    }
}

extension [UInt8] {
    func withBytes<Result>(_ body: (cm_bytes) -> Result) -> Result {
        withUnsafeBufferPointer { body(cm_bytes(data: $0.baseAddress, size: UInt64($0.count))) }
    }

    /// The bytes seen as text that is known to be UTF-8 (JSON that our writer made).
    func withText<Result>(_ body: (cm_text) -> Result) -> Result {
        withUnsafeBytes { bytes in
            body(cm_text(data: bytes.baseAddress?.assumingMemoryBound(to: CChar.self), size: UInt64(bytes.count)))
        }
    }

    init(_ bytes: cm_bytes) {
        self.init(UnsafeRawBufferPointer(start: bytes.data, count: Int(bytes.size)))
    }

    /// A copy of what a callback was shown.
    public init(_ bytes: RawSpan) {
        self = unsafe bytes.withUnsafeBytes { [UInt8]($0) }
    }
}

extension String {
    /// A copy of what a callback was shown, read as UTF-8.
    public init(_ bytes: RawSpan) {
        self = unsafe bytes.withUnsafeBytes { String(decoding: $0, as: UTF8.self) }
    }
}

extension cm_bytes {
    /// The bytes without a copy; the span lives no longer than `body`.
    func withSpan(_ body: (RawSpan) -> Void) {
        let buffer = UnsafeRawBufferPointer(start: data, count: Int(size))
        body(buffer.bytes)
    }
}

extension RawSpan {
    func withBytes<Result>(_ body: (cm_bytes) -> Result) -> Result {
        unsafe withUnsafeBytes { bytes in
            body(cm_bytes(data: bytes.baseAddress?.assumingMemoryBound(to: UInt8.self), size: UInt64(bytes.count)))
        }
    }
}

/// A result of variable size: asks again with more room as long as the core says that it is too small. What is asked for
/// may grow in between, but not for ever: four times, then the last refusal stands.
func readResult(
    _ function: String, expecting capacity: Int = 512,
    _ call: (UnsafeMutablePointer<cm_buffer>, UnsafeMutablePointer<cm_error>) -> cm_status
) throws(PluginError) -> [UInt8] {
    var error = cm_error()
    var status = CM_E_TOO_SMALL
    var room = capacity
    for _ in 0..<4 {
        let result = [UInt8](unsafeUninitializedCapacity: room) { memory, count in
            var buffer = cm_buffer(data: memory.baseAddress, capacity: UInt64(room), size: 0)
            status = call(&buffer, &error)
            count = status == CM_OK ? min(Int(buffer.size), room) : 0
            if status == CM_E_TOO_SMALL { room = max(Int(buffer.size), room) }
        }
        if status == CM_OK { return result }
        if status != CM_E_TOO_SMALL { break }
    }
    throw PluginError(status, error, function)
}

func readText(
    _ function: String, expecting capacity: Int = 512,
    _ call: (UnsafeMutablePointer<cm_buffer>, UnsafeMutablePointer<cm_error>) -> cm_status
) throws(PluginError) -> String {
    String(decoding: try readResult(function, expecting: capacity, call), as: UTF8.self)
}

/// A call that fills an error.
func attempt(
    _ function: String, _ call: (UnsafeMutablePointer<cm_error>) -> cm_status
) throws(PluginError) {
    var error = cm_error()
    let status = call(&error)
    guard status == CM_OK else { throw PluginError(status, error, function) }
}

/// A call that answers a status and nothing else.
func check(_ status: cm_status, _ function: String) throws(PluginError) {
    guard status == CM_OK else { throw PluginError.failed(status, function) }
}

/// Gives back what `Unmanaged.passRetained` gave to the core as a callback's context: `destroy` of every callback table.
func releaseContext(_ context: UnsafeMutableRawPointer?) {
    guard let context else { return }
    Unmanaged<AnyObject>.fromOpaque(context).release()
}

/// Runs `body` with the object that the core keeps as a callback's context, without touching its reference count.
@inline(__always)
func withContext<Object: AnyObject>(
    _ context: UnsafeMutableRawPointer?, as: Object.Type, _ body: (Object) -> Void
) {
    guard let context else { return }
    Unmanaged<Object>.fromOpaque(context)._withUnsafeGuaranteedRef(body)
}

/// A result of variable size that is a JSON text.
func readJSON(
    _ function: String, _ call: (UnsafeMutablePointer<cm_buffer>, UnsafeMutablePointer<cm_error>) -> cm_status
) throws(PluginError) -> JSONValue {
    let text = try readResult(function, expecting: 4096, call)
    do throws(JSONError) {
        return try JSONValue(parsing: text)
    } catch {
        throw PluginError(.internal, "\(function) gave no JSON: \(error)")
    }
}

extension [UInt8] {
    /// Lets one call fill the array, which has room enough by the contract; answers how much of it.
    mutating func filled(
        _ function: String, _ call: (UnsafeMutablePointer<cm_buffer>, UnsafeMutablePointer<cm_error>) -> cm_status
    ) throws(PluginError) -> Int {
        var error = cm_error()
        var size = 0
        let status = withUnsafeMutableBufferPointer { memory in
            var buffer = cm_buffer(data: memory.baseAddress, capacity: UInt64(memory.count), size: 0)
            let status = call(&buffer, &error)
            size = Swift.min(Int(buffer.size), memory.count)
            return status
        }
        guard status == CM_OK else { throw PluginError(status, error, function) }
        return size
    }
}

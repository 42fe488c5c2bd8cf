import JSON

/// The frames `private-file` (a request of the core) and `private-file-answer`. The header's flags are the action, its
/// offset is the core's number of the request, which the answer repeats.
extension PrivateFileRequest {
    private enum Action: UInt8 {
        case put = 1
        case remove = 2
        case list = 3
    }

    /// A whole frame: u32 length of a JSON object, the object, then the content of a put.
    public func writeFrame(number: UInt64, to writer: inout FrameWriter) {
        let (action, head, content): (Action, [UInt8], [UInt8]) =
            switch self {
            case .put(let order, let content): (.put, order.head, content)
            case .remove(let name, let keeper): (.remove, PrivateFileOrder(name: name, keeper: keeper).head, [])
            case .list(let keeper): (.list, PrivateFileOrder(name: "", keeper: keeper).head, [])
            }
        writer.begin(.privateFile, flags: action.rawValue, offset: number)
        writer.u32(UInt32(head.count))
        writer.raw(head)
        writer.raw(content)
        writer.end()
    }

    public init(action: UInt8, reading bytes: borrowing RawSpan) throws(WireError) {
        guard let action = Action(rawValue: action) else {
            throw WireError(.malformed, "private file action \(action) is not 1 (put), 2 (remove) or 3 (list)")
        }
        var reader = ByteReader()
        let length = Int(try reader.u32(bytes))
        guard length <= PrivateFileLimits.headBytes else {
            throw WireError(.oversize, "a private file's head has \(length) bytes; at most \(PrivateFileLimits.headBytes) are allowed")
        }
        guard bytes.byteCount - reader.offset >= length else { throw ByteReader.short(at: reader.offset) }
        let order = try PrivateFileOrder(reading: bytes.extracting(reader.offset..<reader.offset + length))
        reader.offset += length
        switch action {
        case .put:
            let rest = bytes.byteCount - reader.offset
            guard rest <= PrivateFileLimits.contentBytes else {
                throw WireError(.oversize, "a private file of \(rest) bytes; at most \(PrivateFileLimits.contentBytes) are allowed")
            }
            if let fault = order.fault { throw WireError(.malformed, fault) }
            self = .put(order, content: try reader.array(bytes, count: rest))
        case .remove:
            try reader.end(bytes)
            if let fault = PrivateFileOrder.fault(inName: order.name) { throw WireError(.malformed, fault) }
            self = .remove(name: order.name, keeper: order.keeper)
        case .list:
            try reader.end(bytes)
            self = .list(keeper: order.keeper)
        }
    }
}

extension PrivateFileOrder {
    fileprivate var head: [UInt8] {
        var writer = JSONWriter(reserving: 256)
        writer.object {
            if !name.isEmpty { $0.field("name", name) }
            $0.field("keeper", keeper)
            $0.field("owner", ifPresent: owner)
            $0.field("group", ifPresent: group)
            $0.field("mode", Int(mode))
            $0.field("lifetime_ms", ifPresent: lifetimeMilliseconds)
            if !hook.isEmpty { $0.array("hook") { for word in hook { $0.value(word) } } }
        }
        return writer.finish()
    }

    fileprivate init(reading payload: borrowing RawSpan) throws(WireError) {
        self = try readControl(payload) { reader throws(JSONError) in
            var order = PrivateFileOrder(name: "", keeper: "")
            try reader.object { key, reader throws(JSONError) in
                if key.is("name") {
                    order.name = try reader.text(atMost: PrivateFileLimits.nameBytes)
                } else if key.is("keeper") {
                    order.keeper = try reader.text(atMost: PrivateFileLimits.keeperBytes)
                } else if key.is("owner") {
                    order.owner = try reader.text(atMost: 64)
                } else if key.is("group") {
                    order.group = try reader.text(atMost: 64)
                } else if key.is("mode") {
                    order.mode = UInt16(try reader.integer(in: 0...0o777))
                } else if key.is("lifetime_ms") {
                    order.lifetimeMilliseconds = UInt64(try reader.integer(in: 1...Int(PrivateFileLimits.lifetimeMilliseconds)))
                } else if key.is("hook") {
                    order.hook = try reader.texts(atMost: PrivateFileLimits.hookWords, bytes: PrivateFileLimits.hookWordBytes)
                }
            }
            guard !order.keeper.isEmpty else { throw reader.fail("keeper is missing") }
            return order
        }
    }
}

extension PrivateFileAnswer {
    /// A whole frame.
    public func writeFrame(number: UInt64, to writer: inout FrameWriter) {
        writer.frame(.privateFileAnswer, offset: number, payload: payload)
    }

    private var payload: [UInt8] {
        var writer = JSONWriter(reserving: 512)
        writer.object {
            switch self {
            case .refused(let code, let message):
                $0.field("code", code)
                $0.field("message", String(message.prefix(1_000)))
            case .done(let files, let isChanged):
                $0.field("changed", isChanged)
                $0.array("files") { for file in files { $0.object(file.write(to:)) } }
            }
        }
        return writer.finish()
    }

    public init(reading payload: borrowing RawSpan) throws(WireError) {
        self = try readControl(payload) { reader throws(JSONError) in
            var files: [PrivateFileState] = []
            var isChanged = false
            var code: String?
            var message = ""
            try reader.object { key, reader throws(JSONError) in
                if key.is("code") {
                    code = try reader.text(atMost: WireLimits.refusalCodeBytes)
                } else if key.is("message") {
                    message = try reader.text(atMost: WireLimits.refusalTextBytes)
                } else if key.is("changed") {
                    isChanged = try reader.bool()
                } else if key.is("files") {
                    try reader.array { reader throws(JSONError) in
                        guard files.count < PrivateFileLimits.files else { throw reader.fail("more than \(PrivateFileLimits.files) files") }
                        files.append(try PrivateFileState(&reader))
                    }
                }
            }
            if let code {
                guard !code.isEmpty else { throw reader.fail("code is empty") }
                return .refused(code: code, message: message)
            }
            return .done(files, isChanged: isChanged)
        }
    }
}

extension PrivateFileState {
    /// As on the wire and in the host interface: the members of one JSON object.
    public func write(to writer: inout JSONWriter) {
        writer.field("name", name)
        writer.field("path", path)
        writer.field("bytes", bytes)
        writer.field("sha256", sha256)
        writer.field("owner", owner)
        writer.field("mode", Int(mode))
        writer.field("expires_in_ms", ifPresent: expiresInMilliseconds)
        writer.field("hook_fault", ifPresent: hookFault)
    }

    fileprivate init(_ reader: inout JSONReader) throws(JSONError) {
        var state = PrivateFileState(name: "", path: "", bytes: 0, sha256: "", owner: "", mode: 0)
        try reader.object { key, reader throws(JSONError) in
            if key.is("name") {
                state.name = try reader.text(atMost: PrivateFileLimits.nameBytes)
            } else if key.is("path") {
                state.path = try reader.text(atMost: 512)
            } else if key.is("bytes") {
                state.bytes = UInt64(try reader.integer(in: 0...PrivateFileLimits.totalBytes))
            } else if key.is("sha256") {
                state.sha256 = try reader.text(atMost: 64)
            } else if key.is("owner") {
                state.owner = try reader.text(atMost: 64)
            } else if key.is("mode") {
                state.mode = UInt16(try reader.integer(in: 0...0o7777))
            } else if key.is("expires_in_ms") {
                state.expiresInMilliseconds = UInt64(try reader.integer(in: 0...Int(PrivateFileLimits.lifetimeMilliseconds)))
            } else if key.is("hook_fault") {
                state.hookFault = try reader.text(atMost: 4 * PrivateFileLimits.faultBytes)
            }
        }
        guard PrivateFileOrder.fault(inName: state.name) == nil, state.sha256.utf8.count == 64 else {
            throw reader.fail("a private file without a name or a hash of 64 digits")
        }
        self = state
    }
}

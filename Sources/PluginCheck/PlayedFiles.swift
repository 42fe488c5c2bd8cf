import CPluginABI
import JSON

// cm.files/1: a store of files for as long as the check runs.

/// A file of the played store; kept while it is written and afterwards.
struct PlayedFile {
    var name: String
    var bytes: [UInt8] = []
    var isWhole = false
    var writer: UInt64 = 0
}

private func fileJSON(_ id: String, _ file: PlayedFile) -> JSONValue {
    [
        "id": .string(id), "name": .string(file.name), "form": "file", "state": .string(file.isWhole ? "whole" : "unfinished"),
        "size": file.isWhole ? .integer(Int64(file.bytes.count)) : .null, "offset": .integer(Int64(file.bytes.count)),
        "source": "plugin", "created_ms": 0, "expires_ms": .null,
    ]
}

private func begin(
    _ context: Context, _ function: StaticString, _ error: CError = nil, _ tag: ThreadTag = .wait, canFail: Bool = true,
    _ body: (PlayedHost) -> cm_status
) -> cm_status {
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let status = host.enter(function, tag, canFail: canFail) { return fail(status, error, "played refusal") }
    return body(host)
}

/// Changes the file that this writer holds; `nil` from `body` keeps the writer.
private func written(
    _ host: PlayedHost, _ writer: UInt64, _ function: StaticString, _ error: CError, ends: Bool,
    _ body: (inout PlayedFile?) -> cm_status
) -> cm_status {
    let status = host.with { state -> cm_status? in
        guard writer != 0, let id = state.files.first(where: { $0.value.writer == writer })?.key else { return nil }
        var file = state.files[id]
        let status = body(&file)
        if ends, status == CM_OK { file?.writer = 0 }
        state.files[id] = file
        return status
    }
    if let status { return status }
    host.misuse("\(function): no writer \(writer); it has ended already, or was never given out")
    return fail(CM_E_GONE, error, "no writer")
}

func filesCreate(
    _ context: Context, _ actor: UInt64, _ options: cm_text, _ writer: UnsafeMutablePointer<UInt64>, _ id: CBuffer, _ error: CError
) -> cm_status {
    let function: StaticString = "cm.files/1 create"
    return begin(context, function, error) { host in
        let name = host.json(options, function)["name"]?.string ?? ""
        if name.isEmpty || name.contains("/") { host.misuse("\(function): the name \"\(name)\"") }
        guard id.pointee.capacity >= 26 else {
            id.pointee.size = 26
            return fail(CM_E_TOO_SMALL, error, "an id has 26 bytes")
        }
        let handle = host.handle()
        let digits = String(handle)
        let number = String(repeating: "0", count: 26 - digits.count) + digits
        host.with { $0.files[number] = PlayedFile(name: name, writer: handle) }
        writer.pointee = handle
        return host.put(Array(number.utf8), id, function)
    }
}

func filesResume(
    _ context: Context, _ actor: UInt64, _ id: cm_text, _ writer: UnsafeMutablePointer<UInt64>,
    _ offset: UnsafeMutablePointer<UInt64>, _ error: CError
) -> cm_status {
    let function: StaticString = "cm.files/1 resume"
    return begin(context, function, error) { host in
        let (number, handle) = (host.text(id, function), host.handle())
        let found = host.with { state -> (isWhole: Bool, count: Int)? in
            guard let file = state.files[number] else { return nil }
            if !file.isWhole { state.files[number]?.writer = handle }
            return (file.isWhole, file.bytes.count)
        }
        guard let found else { return fail(CM_E_NOT_FOUND, error, "no file \(number)") }
        guard !found.isWhole else { return fail(CM_E_EXISTS, error, "the file is whole") }
        writer.pointee = handle
        offset.pointee = UInt64(found.count)
        return CM_OK
    }
}

func filesAppend(_ context: Context, _ writer: UInt64, _ bytes: cm_bytes, _ error: CError) -> cm_status {
    let function: StaticString = "cm.files/1 append"
    return begin(context, function, error) { host in
        guard bytes.size <= 8 << 20 else { return fail(CM_E_TOO_LARGE, error, "more than 8 MiB at once") }
        let piece = host.bytes(bytes, function)
        return written(host, writer, function, error, ends: false) { file in
            file?.bytes += piece
            return CM_OK
        }
    }
}

func filesSync(_ context: Context, _ writer: UInt64, _ offset: UnsafeMutablePointer<UInt64>, _ error: CError) -> cm_status {
    let function: StaticString = "cm.files/1 sync"
    return begin(context, function, error) { host in
        written(host, writer, function, error, ends: false) { file in
            offset.pointee = UInt64(file?.bytes.count ?? 0)
            return CM_OK
        }
    }
}

func filesSeal(
    _ context: Context, _ writer: UInt64, _ sha256: UnsafePointer<UInt8>?, _ json: CBuffer, _ error: CError
) -> cm_status {
    let function: StaticString = "cm.files/1 seal"
    return begin(context, function, error) { host in
        var text: [UInt8] = []
        let id = host.with { state in state.files.first { $0.value.writer == writer }?.key ?? "" }
        let status = written(host, writer, function, error, ends: true) { file in
            file?.isWhole = true
            if let file { text = fileJSON(id, file).serialized() }
            return CM_OK
        }
        return status == CM_OK ? host.put(text, json, function) : status
    }
}

func filesRelease(_ context: Context, _ writer: UInt64) -> cm_status {
    begin(context, "cm.files/1 release", canFail: false) { host in
        written(host, writer, "cm.files/1 release", nil, ends: true) { _ in CM_OK }
    }
}

func filesDiscard(_ context: Context, _ writer: UInt64) -> cm_status {
    begin(context, "cm.files/1 discard", canFail: false) { host in
        written(host, writer, "cm.files/1 discard", nil, ends: true) { file in
            file = nil
            return CM_OK
        }
    }
}

func filesGet(_ context: Context, _ actor: UInt64, _ id: cm_text, _ json: CBuffer, _ error: CError) -> cm_status {
    let function: StaticString = "cm.files/1 get"
    return begin(context, function, error) { host in
        let number = host.text(id, function)
        guard let file = host.with({ $0.files[number] }) else { return fail(CM_E_NOT_FOUND, error, "no file \(number)") }
        return host.put(fileJSON(number, file).serialized(), json, function)
    }
}

func filesList(
    _ context: Context, _ actor: UInt64, _ after: cm_text, _ limit: UInt32, _ json: CBuffer, _ error: CError
) -> cm_status {
    let function: StaticString = "cm.files/1 list"
    return begin(context, function, error) { host in
        if !(1...1_000).contains(limit) { host.misuse("\(function): limit \(limit); 1 to 1,000 are allowed") }
        let last = host.text(after, function)
        let files = host.with { $0.files }.filter { last.isEmpty || $0.key < last }.sorted { $0.key > $1.key }
        let page: JSONValue = [
            "items": .array(files.prefix(Int(limit)).map { fileJSON($0.key, $0.value) }),
            "next": files.count > Int(limit) ? .string(files[Int(limit) - 1].key) : .null,
        ]
        return host.put(page.serialized(), json, function)
    }
}

func filesOpen(
    _ context: Context, _ actor: UInt64, _ id: cm_text, _ reader: UnsafeMutablePointer<UInt64>,
    _ size: UnsafeMutablePointer<UInt64>, _ error: CError
) -> cm_status {
    let function: StaticString = "cm.files/1 open"
    return begin(context, function, error) { host in
        let number = host.text(id, function)
        guard let file = host.with({ $0.files[number] }) else { return fail(CM_E_NOT_FOUND, error, "no file \(number)") }
        guard file.isWhole else { return fail(CM_E_EXISTS, error, "the file is not whole yet") }
        let handle = host.handle()
        host.with { $0.fileReaders[handle] = file.bytes }
        reader.pointee = handle
        size.pointee = UInt64(file.bytes.count)
        return CM_OK
    }
}

func filesRead(_ context: Context, _ reader: UInt64, _ offset: UInt64, _ buffer: CBuffer, _ error: CError) -> cm_status {
    let function: StaticString = "cm.files/1 read"
    return begin(context, function, error) { host in
        guard let bytes = host.with({ $0.fileReaders[reader] }) else {
            host.misuse("\(function): no reader \(reader); it was closed already, or never opened")
            return fail(CM_E_GONE, error, "no reader")
        }
        let count = min(Int(clamping: buffer.pointee.capacity), 1 << 20)
        return host.put(Array(bytes.dropFirst(Int(clamping: offset)).prefix(count)), buffer, function)
    }
}

func filesClose(_ context: Context, _ reader: UInt64) -> cm_status {
    let function: StaticString = "cm.files/1 close"
    return begin(context, function, nil, .any, canFail: false) { host in
        guard host.with({ $0.fileReaders.removeValue(forKey: reader) }) == nil else { return CM_OK }
        host.misuse("\(function): no reader \(reader); it was closed already, or never opened")
        return CM_E_GONE
    }
}

func filesRemove(_ context: Context, _ actor: UInt64, _ id: cm_text, _ error: CError) -> cm_status {
    let function: StaticString = "cm.files/1 remove"
    return begin(context, function, error) { host in
        let number = host.text(id, function)
        guard host.with({ $0.files.removeValue(forKey: number) }) != nil else {
            return fail(CM_E_NOT_FOUND, error, "no file \(number)")
        }
        return CM_OK
    }
}

// MARK: Transfers: there are no clients while a plugin is checked

func filesTransferStart(
    _ context: Context, _ actor: UInt64, _ specification: cm_text, _ callbacks: UnsafePointer<cm_transfer_callbacks>?,
    _ own: Opaque, _ transfer: UnsafeMutablePointer<UInt64>, _ id: CBuffer, _ error: CError
) -> cm_status {
    let function: StaticString = "cm.files/1 transfer_start"
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let callbacks { host.checkHead(callbacks.pointee.head, atLeast: MemoryLayout<cm_transfer_callbacks>.size, function) }
    let status = host.enter(function, .wait) ?? CM_E_NOT_FOUND
    if host.json(specification, function).object == nil { host.misuse("\(function): the specification is no JSON object") }
    callbacks?.pointee.destroy?(own)
    return fail(status, error, "there are no clients while a plugin is checked")
}

func filesTransferWatch(
    _ context: Context, _ actor: UInt64, _ id: cm_text, _ callbacks: UnsafePointer<cm_transfer_callbacks>, _ own: Opaque,
    _ transfer: UnsafeMutablePointer<UInt64>, _ error: CError
) -> cm_status {
    let function: StaticString = "cm.files/1 transfer_watch"
    guard let host = core(context, function) else { return CM_E_INVALID }
    host.checkHead(callbacks.pointee.head, atLeast: MemoryLayout<cm_transfer_callbacks>.size, function)
    let status = host.enter(function, .wait) ?? CM_E_NOT_FOUND
    callbacks.pointee.destroy?(own)
    return fail(status, error, "no such transfer")
}

func filesTransferUnwatch(_ context: Context, _ transfer: UInt64) -> cm_status {
    begin(context, "cm.files/1 transfer_unwatch", nil, .any, canFail: false) { _ in CM_E_NOT_FOUND }
}

func filesTransferCancel(_ context: Context, _ actor: UInt64, _ id: cm_text, _ error: CError) -> cm_status {
    begin(context, "cm.files/1 transfer_cancel", error) { _ in fail(CM_E_NOT_FOUND, error, "no such transfer") }
}

import CPluginABI
import JSON

// cm.clients, cm.commands, cm.channels and cm.private_files of the played core: a fleet of nobody.

/// A client of a fleet that has none.
private func noClient(_ error: CError) -> cm_status { fail(CM_E_NOT_FOUND, error, "no such client while a plugin is checked") }

func clientsGet(_ context: Context, _ actor: UInt64, _ client: cm_text, _ json: CBuffer, _ error: CError) -> cm_status {
    guard let host = core(context, "cm.clients/1 get") else { return CM_E_INVALID }
    if let status = host.enter("cm.clients/1 get", .wait) { return fail(status, error, "played refusal") }
    _ = host.text(client, "cm.clients/1 get")
    return noClient(error)
}

func clientsSelect(
    _ context: Context, _ actor: UInt64, _ selector: cm_text, _ after: cm_text, _ limit: UInt32, _ json: CBuffer,
    _ error: CError
) -> cm_status { select("cm.clients/1 select", context, selector, limit, json, error) }

func clientsSelectAsserted(
    _ context: Context, _ actor: UInt64, _ selector: cm_text, _ after: cm_text, _ limit: UInt32, _ json: CBuffer,
    _ error: CError
) -> cm_status { select("cm.clients/1 select_asserted", context, selector, limit, json, error) }

private func select(
    _ function: StaticString, _ context: Context, _ selector: cm_text, _ limit: UInt32, _ json: CBuffer, _ error: CError
) -> cm_status {
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let status = host.enter(function, .any) { return fail(status, error, "played refusal") }
    _ = host.text(selector, function)
    if !(1...10_000).contains(limit) { host.misuse("\(function): limit \(limit)") }
    return host.put(Array(#"{"items":[],"next":null}"#.utf8), json, function)
}

func clientsIsOnline(_ context: Context, _ client: cm_text) -> Int32 {
    guard let host = core(context, "cm.clients/1 is_online") else { return 0 }
    _ = host.enter("cm.clients/1 is_online", .any, canFail: false)
    _ = host.text(client, "cm.clients/1 is_online")
    return 0
}

func clientsSetLabels(
    _ context: Context, _ actor: UInt64, _ client: cm_text, _ labels: cm_text, _ error: CError
) -> cm_status {
    let function: StaticString = "cm.clients/1 set_labels"
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let status = host.enter(function, .wait) { return fail(status, error, "played refusal") }
    if !host.note.capabilities.contains("clients.write") {
        host.misuse("\(function): the note does not ask for the capability clients.write")
        return fail(CM_E_DENIED, error, "not granted")
    }
    if host.json(labels, function).object == nil { host.misuse("\(function): labels are no JSON object") }
    return noClient(error)
}

// MARK: cm.commands/1

func commandsRun(
    _ context: Context, _ actor: UInt64, _ specification: cm_text, _ callbacks: UnsafePointer<cm_command_callbacks>?,
    _ own: Opaque, _ command: UnsafeMutablePointer<UInt64>, _ id: CBuffer, _ error: CError
) -> cm_status {
    runNothing(context, "cm.commands/1 run", specification, callbacks, own, error)
}

func commandsRunWithSecrets(
    _ context: Context, _ actor: UInt64, _ specification: cm_text, _ variables: cm_bytes,
    _ callbacks: UnsafePointer<cm_command_callbacks>?, _ own: Opaque, _ command: UnsafeMutablePointer<UInt64>, _ id: CBuffer,
    _ error: CError
) -> cm_status {
    runNothing(context, "cm.commands/1 run_with_secrets", specification, callbacks, own, error)
}

private func runNothing(
    _ context: Context, _ function: StaticString, _ specification: cm_text,
    _ callbacks: UnsafePointer<cm_command_callbacks>?, _ own: Opaque, _ error: CError
) -> cm_status {
    guard let host = core(context, function) else { return CM_E_INVALID }
    func refuse(_ status: cm_status, _ text: String) -> cm_status {
        callbacks?.pointee.destroy?(own)
        return fail(status, error, text)
    }
    if let callbacks { host.checkHead(callbacks.pointee.head, atLeast: MemoryLayout<cm_command_callbacks>.size, function) }
    if let status = host.enter(function, .wait) { return refuse(status, "played refusal") }
    if host.json(specification, function).object == nil { host.misuse("\(function): the specification is no JSON object") }
    return refuse(CM_E_NOT_FOUND, "the selector finds no client while a plugin is checked")
}

func commandsWatch(
    _ context: Context, _ actor: UInt64, _ id: cm_text, _ callbacks: UnsafePointer<cm_command_callbacks>, _ own: Opaque,
    _ command: UnsafeMutablePointer<UInt64>, _ error: CError
) -> cm_status {
    let function: StaticString = "cm.commands/1 watch"
    guard let host = core(context, function) else { return CM_E_INVALID }
    host.checkHead(callbacks.pointee.head, atLeast: MemoryLayout<cm_command_callbacks>.size, function)
    let status = host.enter(function, .wait) ?? CM_E_NOT_FOUND
    callbacks.pointee.destroy?(own)
    return fail(status, error, "no such command")
}

func commandsUnwatch(_ context: Context, _ command: UInt64) -> cm_status {
    guard let host = core(context, "cm.commands/1 unwatch") else { return CM_E_INVALID }
    return host.enter("cm.commands/1 unwatch", .any, canFail: false) ?? CM_E_NOT_FOUND
}

func commandsCancel(_ context: Context, _ actor: UInt64, _ id: cm_text, _ error: CError) -> cm_status {
    guard let host = core(context, "cm.commands/1 cancel") else { return CM_E_INVALID }
    return fail(host.enter("cm.commands/1 cancel", .wait) ?? CM_E_NOT_FOUND, error, "no such command")
}

func commandsOutput(
    _ context: Context, _ actor: UInt64, _ id: cm_text, _ client: cm_text, _ stream: UInt32, _ offset: UInt64,
    _ buffer: CBuffer, _ error: CError
) -> cm_status {
    guard let host = core(context, "cm.commands/1 output") else { return CM_E_INVALID }
    let status = host.enter("cm.commands/1 output", .wait)
    if !(1...2).contains(stream) { host.misuse("cm.commands/1 output: stream \(stream)") }
    return fail(status ?? CM_E_NOT_FOUND, error, "no such command")
}

// MARK: cm.channels/1

func channelsOpen(
    _ context: Context, _ actor: UInt64, _ specification: cm_text, _ callbacks: UnsafePointer<cm_channel_callbacks>,
    _ own: Opaque, _ channel: UnsafeMutablePointer<UInt64>, _ id: CBuffer, _ error: CError
) -> cm_status {
    let function: StaticString = "cm.channels/1 open"
    guard let host = core(context, function) else { return CM_E_INVALID }
    host.checkHead(callbacks.pointee.head, atLeast: MemoryLayout<cm_channel_callbacks>.size, function)
    let status = host.enter(function, .wait)
    if host.json(specification, function).object == nil { host.misuse("\(function): the specification is no JSON object") }
    callbacks.pointee.destroy?(own)
    guard status == nil else { return fail(CM_E_UNAVAILABLE, error, "played refusal") }
    return noClient(error)
}

func channelsAttach(
    _ context: Context, _ actor: UInt64, _ id: cm_text, _ offset: UInt64, _ isInline: UInt32,
    _ callbacks: UnsafePointer<cm_channel_callbacks>, _ own: Opaque, _ channel: UnsafeMutablePointer<UInt64>,
    _ error: CError
) -> cm_status {
    let function: StaticString = "cm.channels/1 attach"
    guard let host = core(context, function) else { return CM_E_INVALID }
    host.checkHead(callbacks.pointee.head, atLeast: MemoryLayout<cm_channel_callbacks>.size, function)
    let status = host.enter(function, .wait) ?? CM_E_NOT_FOUND
    callbacks.pointee.destroy?(own)
    return fail(status, error, "no such channel")
}

func channelsList(_ context: Context, _ json: CBuffer, _ error: CError) -> cm_status {
    guard let host = core(context, "cm.channels/1 list") else { return CM_E_INVALID }
    if let status = host.enter("cm.channels/1 list", .wait) { return fail(status, error, "played refusal") }
    return host.put(Array(#"{"items":[]}"#.utf8), json, "cm.channels/1 list")
}

/// A handle that was never given out.
private func noChannel(_ context: Context, _ channel: UInt64, _ function: StaticString) -> cm_status {
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let status = host.enter(function, .any, canFail: false) { return status }
    host.misuse("\(function): no channel \(channel)")
    return CM_E_NOT_FOUND
}

func channelsWrite(_ context: Context, _ channel: UInt64, _ bytes: cm_bytes) -> cm_status {
    noChannel(context, channel, "cm.channels/1 write")
}
func channelsGrant(_ context: Context, _ channel: UInt64, _ offset: UInt64) -> cm_status {
    noChannel(context, channel, "cm.channels/1 grant")
}
func channelsResize(_ context: Context, _ channel: UInt64, _ rows: UInt32, _ columns: UInt32) -> cm_status {
    noChannel(context, channel, "cm.channels/1 resize")
}
func channelsClose(_ context: Context, _ channel: UInt64) -> cm_status {
    noChannel(context, channel, "cm.channels/1 close")
}
func channelsDetach(_ context: Context, _ channel: UInt64) -> cm_status {
    noChannel(context, channel, "cm.channels/1 detach")
}

// MARK: cm.private_files/1

private func noPrivateFile(
    _ context: Context, _ function: StaticString, _ client: cm_text, _ callbacks: UnsafePointer<cm_private_file_callbacks>,
    _ own: Opaque, _ error: CError, _ check: (PlayedHost) -> Void
) -> cm_status {
    guard let host = core(context, function) else { return CM_E_INVALID }
    host.checkHead(callbacks.pointee.head, atLeast: MemoryLayout<cm_private_file_callbacks>.size, function)
    let status = host.enter(function, .any)
    _ = host.text(client, function)
    check(host)
    callbacks.pointee.destroy?(own)
    guard status == nil else { return fail(CM_E_BUSY, error, "played refusal") }
    return noClient(error)
}

func privateFilesPut(
    _ context: Context, _ actor: UInt64, _ client: cm_text, _ specification: cm_text, _ content: cm_bytes,
    _ callbacks: UnsafePointer<cm_private_file_callbacks>, _ own: Opaque, _ error: CError
) -> cm_status {
    let function: StaticString = "cm.private_files/1 put"
    return noPrivateFile(context, function, client, callbacks, own, error) { host in
        if host.json(specification, function).object == nil { host.misuse("\(function): the specification is no JSON object") }
    }
}

func privateFilesRemove(
    _ context: Context, _ actor: UInt64, _ client: cm_text, _ name: cm_text,
    _ callbacks: UnsafePointer<cm_private_file_callbacks>, _ own: Opaque, _ error: CError
) -> cm_status {
    let function: StaticString = "cm.private_files/1 remove"
    return noPrivateFile(context, function, client, callbacks, own, error) { _ = $0.text(name, function) }
}

func privateFilesList(
    _ context: Context, _ actor: UInt64, _ client: cm_text, _ callbacks: UnsafePointer<cm_private_file_callbacks>,
    _ own: Opaque, _ error: CError
) -> cm_status {
    noPrivateFile(context, "cm.private_files/1 list", client, callbacks, own, error) { _ in }
}

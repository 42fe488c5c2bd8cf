import CPluginABI

// The part of cm.files/1 about files of clients: there are no clients while a plugin is checked.

private func noClientFile(
    _ context: Context, _ function: StaticString, _ client: cm_text, _ path: cm_text,
    _ callbacks: UnsafePointer<cm_client_file_callbacks>, _ own: Opaque, _ error: CError, _ check: (PlayedHost) -> Void = { _ in }
) -> cm_status {
    guard let host = core(context, function) else { return CM_E_INVALID }
    host.checkHead(callbacks.pointee.head, atLeast: MemoryLayout<cm_client_file_callbacks>.size, function)
    let status = host.enter(function, .any)
    _ = host.text(client, function)
    let place = host.text(path, function)
    if !place.hasPrefix("/") { host.misuse("\(function): the path \"\(place)\" is not absolute") }
    check(host)
    callbacks.pointee.destroy?(own)
    guard status == nil else { return fail(CM_E_BUSY, error, "played refusal") }
    return fail(CM_E_NOT_FOUND, error, "no such client while a plugin is checked")
}

func filesClientList(
    _ context: Context, _ actor: UInt64, _ client: cm_text, _ path: cm_text, _ after: cm_text, _ limit: UInt32,
    _ callbacks: UnsafePointer<cm_client_file_callbacks>, _ own: Opaque, _ error: CError
) -> cm_status {
    let function: StaticString = "cm.files/1 client_list"
    return noClientFile(context, function, client, path, callbacks, own, error) { host in
        _ = host.text(after, function)
        if !(1...1_000).contains(limit) { host.misuse("\(function): limit \(limit); 1 to 1,000 are allowed") }
    }
}

func filesClientStatus(
    _ context: Context, _ actor: UInt64, _ client: cm_text, _ path: cm_text, _ follow: UInt32,
    _ callbacks: UnsafePointer<cm_client_file_callbacks>, _ own: Opaque, _ error: CError
) -> cm_status {
    let function: StaticString = "cm.files/1 client_status"
    return noClientFile(context, function, client, path, callbacks, own, error)
}

func filesClientHash(
    _ context: Context, _ actor: UInt64, _ client: cm_text, _ path: cm_text, _ algorithm: cm_text,
    _ callbacks: UnsafePointer<cm_client_file_callbacks>, _ own: Opaque, _ error: CError
) -> cm_status {
    let function: StaticString = "cm.files/1 client_hash"
    return noClientFile(context, function, client, path, callbacks, own, error) { host in
        let word = host.text(algorithm, function)
        if word != "sha256" && word != "md5" { host.misuse("\(function): the algorithm \"\(word)\"") }
    }
}

func filesClientMakeDirectory(
    _ context: Context, _ actor: UInt64, _ client: cm_text, _ path: cm_text, _ parents: UInt32, _ mode: UInt32,
    _ callbacks: UnsafePointer<cm_client_file_callbacks>, _ own: Opaque, _ error: CError
) -> cm_status {
    let function: StaticString = "cm.files/1 client_make_directory"
    return noClientFile(context, function, client, path, callbacks, own, error) { host in
        if mode > 0o7777 { host.misuse("\(function): the mode \(mode)") }
    }
}

func filesClientRename(
    _ context: Context, _ actor: UInt64, _ client: cm_text, _ path: cm_text, _ target: cm_text, _ replace: UInt32,
    _ callbacks: UnsafePointer<cm_client_file_callbacks>, _ own: Opaque, _ error: CError
) -> cm_status {
    let function: StaticString = "cm.files/1 client_rename"
    return noClientFile(context, function, client, path, callbacks, own, error) { host in
        let place = host.text(target, function)
        if !place.hasPrefix("/") { host.misuse("\(function): the target \"\(place)\" is not absolute") }
    }
}

func filesClientRemove(
    _ context: Context, _ actor: UInt64, _ client: cm_text, _ path: cm_text, _ recursive: UInt32,
    _ callbacks: UnsafePointer<cm_client_file_callbacks>, _ own: Opaque, _ error: CError
) -> cm_status {
    let function: StaticString = "cm.files/1 client_remove"
    return noClientFile(context, function, client, path, callbacks, own, error)
}

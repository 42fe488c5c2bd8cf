import CPluginABI
import JSON

// cm.enrollment of the played core: an agent's file of a few bytes, and tokens that let nobody in.

private let playedAgent = Array("a played agent".utf8)
private let playedHash = String(repeating: "0", count: 64)

func enrollmentCore(_ context: Context, _ json: CBuffer, _ error: CError) -> cm_status {
    let function: StaticString = "cm.enrollment/1 core"
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let status = host.enter(function, .any) { return fail(status, error, "played refusal") }
    return host.put(Array(#"{"url":"https://core.invalid:8443","fingerprint":"\#(playedHash)"}"#.utf8), json, function)
}

func enrollmentTokenCreate(
    _ context: Context, _ actor: UInt64, _ request: cm_text, _ json: CBuffer, _ error: CError
) -> cm_status {
    let function: StaticString = "cm.enrollment/1 token_create"
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let status = host.enter(function, .wait) { return fail(status, error, "played refusal") }
    if host.json(request, function).object == nil { host.misuse("\(function): the request is no JSON object") }
    if json.pointee.capacity < 1_024 { host.misuse("\(function): room for \(json.pointee.capacity) bytes, 1,024 are needed") }
    let text = #"{"id":"01K00000000000000000000000","token":"cmt1.\#(playedHash).\#(playedHash)","expires_ms":4000000000000}"#
    return host.put(Array(text.utf8), json, function)
}

func enrollmentTokenRevoke(_ context: Context, _ actor: UInt64, _ id: cm_text, _ error: CError) -> cm_status {
    let function: StaticString = "cm.enrollment/1 token_revoke"
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let status = host.enter(function, .wait) { return fail(status, error, "played refusal") }
    _ = host.text(id, function)
    return CM_OK
}

func enrollmentAgent(_ context: Context, _ json: CBuffer, _ error: CError) -> cm_status {
    let function: StaticString = "cm.enrollment/1 agent"
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let status = host.enter(function, .wait) { return fail(status, error, "played refusal") }
    let text =
        #"{"version":"1.0.0","bytes":\#(playedAgent.count),"sha256":"\#(playedHash)","machine":"x86_64","glibc":"2.34","libraries":[]}"#
    return host.put(Array(text.utf8), json, function)
}

func enrollmentAgentRead(
    _ context: Context, _ sha256: cm_text, _ offset: UInt64, _ bytes: CBuffer, _ error: CError
) -> cm_status {
    let function: StaticString = "cm.enrollment/1 agent_read"
    guard let host = core(context, function) else { return CM_E_INVALID }
    if let status = host.enter(function, .wait) { return fail(status, error, "played refusal") }
    _ = host.text(sha256, function)
    let rest = playedAgent.dropFirst(Int(clamping: offset))
    return host.put(Array(rest.prefix(Int(clamping: bytes.pointee.capacity))), bytes, function)
}

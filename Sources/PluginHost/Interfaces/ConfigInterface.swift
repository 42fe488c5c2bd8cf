import CPluginABI
import JSON

let configTable = HostTable(cm_config(head: head(of: cm_config.self), read: configRead, get: configGet))

private func configRead(_ host: OpaquePointer, _ json: UnsafeMutablePointer<cm_buffer>) -> cm_status {
    hostCall(host, .any, "config.read") { json.fill($0.configuration.serialized()) }
}

private func configGet(_ host: OpaquePointer, _ pointer: cm_text, _ text: UnsafeMutablePointer<cm_buffer>) -> cm_status {
    hostCall(host, .any, "config.get") { instance in
        guard let pointer = pointer.string(limit: 512) else { return CM_E_INVALID }
        switch member(instance.configuration, pointer) {
        case .string(let value): return text.fill(value)
        case .bool(let value): return text.fill(value ? "true" : "false")
        case .integer(let value): return text.fill(String(value))
        case .number(let value): return text.fill(String(value))
        case nil, .null: return CM_E_NOT_FOUND
        case .array, .object: return CM_E_INVALID
        }
    }
}

/// RFC 6901.
private func member(_ root: JSONValue, _ pointer: String) -> JSONValue? {
    guard pointer.isEmpty || pointer.hasPrefix("/") else { return nil }
    var value = root
    for part in pointer.split(separator: "/", omittingEmptySubsequences: false).dropFirst() {
        var name = ""
        var rest = part[...]
        while let character = rest.popFirst() {
            if character == "~", let next = rest.first, next == "0" || next == "1" {
                name.append(next == "0" ? "~" : "/")
                rest.removeFirst()
            } else {
                name.append(character)
            }
        }
        if let array = value.array, let index = Int(name), array.indices.contains(index) {
            value = array[index]
        } else if let found = value[name] {
            value = found
        } else {
            return nil
        }
    }
    return value
}

import CPluginABI
import JSON

/// `cm.config/1`: the plugin's own section, checked against the schema of its note before it is loaded.
public struct Configuration: Sendable {
    let table: HostTable<cm_config>

    /// The whole section; an empty object if there is none.
    public func section() throws(PluginError) -> JSONObject {
        guard let read = table.functions.read else { throw .missing("cm.config/1 read") }
        let text = try readResult("cm.config/1 read") { buffer, _ in read(table.context, buffer) }
        do throws(JSONError) {
            return try JSONValue(parsing: text).object ?? [:]
        } catch {
            throw PluginError(.invalid, "the configuration is no JSON object: \(error)")
        }
    }

    /// One string, number or boolean as text, by JSON pointer (RFC 6901): "/greeting".
    public func text(_ pointer: String) throws(PluginError) -> String? {
        guard let get = table.functions.get else { throw .missing("cm.config/1 get") }
        do throws(PluginError) {
            return try readText("cm.config/1 get") { buffer, _ in pointer.withText { get(table.context, $0, buffer) } }
        } catch where error.status == .notFound {
            return nil
        }
    }
}

extension Host {
    public func configuration() throws(PluginError) -> Configuration {
        Configuration(table: try interface(CM_INTERFACE_CONFIG, cm_config()))
    }
}

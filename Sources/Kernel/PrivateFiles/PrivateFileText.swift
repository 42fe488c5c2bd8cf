import AgentProtocol
import JSON

/// Private files as JSON, for the layers above.
extension PrivateFiles {
    /// - Parameter specification: {"name", "owner", "group", "mode", "ttl_s", "hook"}.
    /// - Throws: 400 `invalid`, which names the member.
    public static func order(_ specification: [UInt8], keeper: String) throws(Problem) -> PrivateFileOrder {
        let value: JSONValue
        do throws(JSONError) {
            value = try JSONValue(parsing: specification, limits: JSONLimits(depth: 4, bytes: 16_384))
        } catch { throw .invalid("the specification of a private file: \(error)") }
        guard let object = value.object else { throw .invalid("the specification of a private file is a JSON object") }
        var order = PrivateFileOrder(name: "", keeper: keeper)
        for member in object {
            switch member.key {
            case "name": order.name = try text(member)
            case "owner": order.owner = try text(member)
            case "group": order.group = try text(member)
            case "mode":
                guard let mode = member.value.integer, (0...0o777).contains(mode) else {
                    throw .invalid("\"mode\" is a number, at most 432 (0660)")
                }
                order.mode = UInt16(mode)
            case "ttl_s":
                guard let seconds = member.value.integer, (1...Int64(PrivateFileLimits.lifetimeMilliseconds / 1_000)).contains(seconds)
                else { throw .invalid("\"ttl_s\" is a number from 1 on") }
                order.lifetimeMilliseconds = UInt64(seconds) * 1_000
            case "hook":
                let words = member.value.array?.compactMap(\.string)
                guard let words, words.count == member.value.array?.count else { throw .invalid("\"hook\" is a list of texts") }
                order.hook = words
            default:
                throw .invalid("unknown member \"\(member.key.prefix(64))\"; known: name, owner, group, mode, ttl_s, hook")
            }
        }
        if let fault = order.fault { throw .invalid(fault) }
        return order
    }

    private static func text(_ member: JSONObject.Member) throws(Problem) -> String {
        guard let text = member.value.string else { throw .invalid("\"\(member.key)\" is a text") }
        return text
    }

    /// What became of a put.
    public static func text(_ file: PrivateFileState, isChanged: Bool) -> [UInt8] {
        var writer = JSONWriter(reserving: 512)
        writer.object {
            $0.field("changed", isChanged)
            $0.object("file", file.write(to:))
        }
        return writer.finish()
    }

    public static func text(_ files: [PrivateFileState]) -> [UInt8] {
        var writer = JSONWriter(reserving: 64 + 400 * files.count)
        writer.object { writer in
            writer.array("items") { writer in for file in files { writer.object(file.write(to:)) } }
        }
        return writer.finish()
    }
}

import CPluginABI
import JSON

/// `cm.enrollment/1`: what it takes to bring an agent to a machine. Needs the capability "enrollment".
public struct Enrollment: Sendable {
    let table: HostTable<cm_enrollment>

    /// Where agents find this core.
    public struct Core: Sendable {
        /// What `cm-agent run --server` gets; `nil` where the core's configuration does not say it.
        public var url: String?
        /// What an agent is given as its pin.
        public var fingerprint: String
    }

    /// A token that lets machines in. Keep its text in memory for as long as it takes, and nowhere else.
    public struct Token: Sendable {
        public var id: String
        public var text: String
        /// Unix time in milliseconds.
        public var expiresAt: Int64
    }

    /// The agent's program that the core hands out.
    public struct AgentProgram: Sendable {
        public var version: String
        public var bytes: UInt64
        public var sha256: String
        /// As in `uname -m`.
        public var machine: String
        /// The oldest glibc that it runs with.
        public var glibc: String?
        /// What it needs besides.
        public var libraries: [String]
    }

    public func core() throws(PluginError) -> Core {
        guard let core = table.functions.core else { throw .missing("cm.enrollment/1 core") }
        let json = try readJSON("cm.enrollment/1 core") { buffer, error in core(table.context, buffer, error) }
        return Core(url: json["url"]?.string, fingerprint: json["fingerprint"]?.string ?? "")
    }

    /// Makes a token in the actor's name, who needs the right to.
    public func createToken(
        seconds: Int, uses: Int = 1, description: String = "", labels: [(String, String)] = [], as actor: Actor = .plugin
    ) throws(PluginError) -> Token {
        guard let create = table.functions.token_create else { throw .missing("cm.enrollment/1 token_create") }
        var writer = JSONWriter()
        writer.object { writer in
            writer.field("ttl_s", seconds)
            writer.field("uses", uses)
            writer.field("description", description)
            writer.object("labels") { for (key, value) in labels { $0.member(key, value) } }
        }
        let text = writer.finish()
        // With room enough from the beginning: a second call would make a second token.
        var room = [UInt8](repeating: 0, count: 4_096)
        let size = try room.filled("cm.enrollment/1 token_create") { buffer, error in
            text.withText { create(table.context, actor.handle, $0, buffer, error) }
        }
        guard let json = try? JSONValue(parsing: Array(room[..<size])), let id = json["id"]?.string, let token = json["token"]?.string
        else { throw PluginError(.internal, "cm.enrollment/1 token_create gave no token") }
        return Token(id: id, text: token, expiresAt: json["expires_ms"]?.integer ?? 0)
    }

    /// Ends a token; clients that it let in stay. May be repeated.
    public func revokeToken(_ id: String, as actor: Actor = .plugin) throws(PluginError) {
        guard let revoke = table.functions.token_revoke else { throw .missing("cm.enrollment/1 token_revoke") }
        try attempt("cm.enrollment/1 token_revoke") { error in id.withText { revoke(table.context, actor.handle, $0, error) } }
    }

    public func agentProgram() throws(PluginError) -> AgentProgram {
        guard let agent = table.functions.agent else { throw .missing("cm.enrollment/1 agent") }
        let json = try readJSON("cm.enrollment/1 agent") { buffer, error in agent(table.context, buffer, error) }
        return AgentProgram(
            version: json["version"]?.string ?? "", bytes: UInt64(clamping: json["bytes"]?.integer ?? 0),
            sha256: json["sha256"]?.string ?? "", machine: json["machine"]?.string ?? "", glibc: json["glibc"]?.string,
            libraries: json["libraries"]?.array?.compactMap(\.string) ?? [])
    }

    /// At most `limit` bytes of the program from `offset`; empty at its end. Throws `.gone` where it has become another since.
    public func read(_ program: AgentProgram, from offset: UInt64, limit: Int = 262_144) throws(PluginError) -> [UInt8] {
        guard let read = table.functions.agent_read else { throw .missing("cm.enrollment/1 agent_read") }
        return try readResult("cm.enrollment/1 agent_read", expecting: limit) { buffer, error in
            program.sha256.withText { read(table.context, $0, offset, buffer, error) }
        }
    }
}

extension Host {
    public func enrollment() throws(PluginError) -> Enrollment {
        Enrollment(table: try interface(CM_INTERFACE_ENROLLMENT, cm_enrollment()))
    }
}

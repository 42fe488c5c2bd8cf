import AgentProtocol

/// Names under `A/executions`. A directory `<command>` is always complete: it is made as `.new-<command>` and renamed
/// when its order is synced, and leaves as `.gone-<command>`.
enum ExecutionFiles {
    static let socket = "socket"
    static let newPrefix = ".new-"
    static let gonePrefix = ".gone-"

    static func journal(_ directory: String) -> String { directory + "/journal" }
    static func exit(_ directory: String) -> String { directory + "/exit" }

    static func spool(_ directory: String, _ stream: OutputStream) -> String {
        switch stream {
        case .standardOutput: directory + "/stdout"
        case .standardError: directory + "/stderr"
        }
    }
}

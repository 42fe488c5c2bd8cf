import System

/// Where the bytes lie: `D/files/whole/ID` and `D/files/unfinished/ID`. Other names there are nobody's business here.
struct FileDirectory: Sendable {
    let path: String

    var whole: String { path + "/whole" }
    var unfinished: String { path + "/unfinished" }
    func whole(_ id: FileID) -> String { "\(whole)/\(id)" }
    func unfinished(_ id: FileID) -> String { "\(unfinished)/\(id)" }

    func make() throws(SystemError) {
        try Files.makeDirectories(whole)
        try Files.makeDirectories(unfinished)
    }

    /// The store's own files in a directory, by their ids.
    static func ids(in directory: String) throws(SystemError) -> [FileID] {
        try Files.list(directory).compactMap { name in
            guard let id = FileID(name), id.description == name else { return nil }
            return id
        }
    }
}

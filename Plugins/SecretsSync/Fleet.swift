import JSON
import PluginKit

/// A file as it is ordered from a client.
struct FileOrder: Sendable {
    var name: String
    var owner: String?
    var group: String?
    var mode: Int
    var lifetimeSeconds: Int?
    var hook: [String]
}

/// What a client said.
enum FileAnswer: Sendable {
    /// The file as it stands there; `nil` after a removal.
    case done(PrivateFiles.File?)
    /// Nothing was changed.
    case refused(code: String, text: String)
    /// Nobody knows: the link broke.
    case lost
}

/// The clients, as far as secrets are concerned.
struct Fleet {
    private let clients: Clients
    private let files: PrivateFiles

    init(_ host: Host) throws(PluginError) {
        clients = try host.clients()
        files = try host.privateFiles()
    }

    func isOnline(_ client: String) -> Bool { clients.isOnline(client) }

    /// Clients that a selector finds by what operators assert. What a machine says about itself finds nobody: a selector that
    /// asks for it is refused.
    func asserted(_ selector: String) throws(PluginError) -> [String] {
        var found: [String] = []
        var after = ""
        // Bounded by the size of a fleet.
        for _ in 0..<1_000 {
            let page = try clients.selectAsserted(selector, after: after, limit: 10_000)
            found += page.items
            guard let next = page.next else { break }
            after = next
        }
        return found
    }

    func put(_ order: FileOrder, _ content: [UInt8], on client: String, _ done: @escaping (FileAnswer) -> Void) throws(PluginError) {
        let specification = PrivateFiles.Specification(
            name: order.name, owner: order.owner, group: order.group, mode: order.mode, lifetimeSeconds: order.lifetimeSeconds,
            hook: order.hook)
        try files.put(specification, content: content, on: client) { result in
            switch result {
            case .success(let (file, _)): done(.done(file))
            case .failure(let error): done(Self.answer(error))
            }
        }
    }

    func remove(_ name: String, on client: String, _ done: @escaping (FileAnswer) -> Void) throws(PluginError) {
        try files.remove(name, on: client) { result in
            switch result {
            case .success: done(.done(nil))
            case .failure(let error): done(Self.answer(error))
            }
        }
    }

    private static func answer(_ error: PluginError) -> FileAnswer {
        error.code == "client-offline" ? .lost : .refused(code: error.code.isEmpty ? "delivery-failed" : error.code, text: error.text)
    }
}

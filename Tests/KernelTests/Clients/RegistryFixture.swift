import AgentProtocol
import Crypto
import JSON
import Synchronization

@testable import Kernel

/// A registry on a store of its own, with a clock that only the test moves, and the news it published.
final class RegistryFixture: Sendable {
    let directory = TemporaryDirectory()
    private let time = Mutex<UInt64>(1_700_000_000_000)
    private let news = Mutex<[RegistryEvent]>([])
    private let current = Mutex<(store: Store, enrollment: Enrollment)?>(nil)
    /// What an older link says to a fresh challenge.
    let olderLinkAnswers = Atomic<Bool>(false)

    let admin = Principal(kind: .user, id: "admin", address: "127.0.0.1")

    struct NotOpen: Error {}

    func open(_ options: Clients.Options = Clients.Options()) async throws -> Enrollment {
        let store = try Store.open(directory: directory.path, migrations: Clients.migrations)
        let clients = try await Clients.load(
            store: store, options: options, publish: { event in self.news.withLock { $0.append(event) } },
            clock: { self.now })
        let enrollment = try await Enrollment.load(
            clients: clients, fingerprint: { String(repeating: "a", count: 64) },
            answers: { _ in self.olderLinkAnswers.load(ordering: .relaxed) })
        current.withLock { $0 = (store, enrollment) }
        return enrollment
    }

    /// As `kill -9` would: nothing that memory still held is written.
    func crash() {
        current.withLock { open in
            open?.store.close()
            open = nil
        }
    }

    var now: UInt64 { time.withLock { $0 } }
    func pass(seconds: UInt64) { time.withLock { $0 += seconds * 1_000 } }

    func kinds() -> [String] { news.withLock { $0.map(\.kind) } }

    func audited(_ action: String, _ outcome: String = "allowed") async throws -> Int {
        guard let store = current.withLock({ $0?.store }) else { throw NotOpen() }
        return try await store.read { (reader) throws(StoreError) in
            try reader.count("SELECT count(*) FROM audit_records WHERE action = ? AND outcome = ?", action, outcome)
        }
    }
}

/// A machine as far as the registry can tell.
struct Machine {
    var key: P256.PrivateKey
    var client: ClientID?
    var token: String?
    var epoch: UInt64 = 0
    var boot = "boot-1"
    var address = "192.0.2.1"
    var succession: [UInt8]?

    init() throws { key = try P256.PrivateKey.generate() }

    /// Counts its epoch up, as an agent does before each hello.
    mutating func hello() -> AgentHello {
        epoch += 1
        return AgentHello(
            publicKey: key.publicKey.spki, client: client, enrollmentToken: token, bootID: boot, epoch: epoch,
            agentVersion: "1.0", hostname: "machine", succession: succession, address: address, correlation: "c")
    }
}

extension Admission {
    var accepted: AdmittedClient? {
        if case .accepted(let client) = self { client } else { nil }
    }
    var refusal: String? {
        if case .refused(let code, _) = self { code } else { nil }
    }
    var enrollment: String? {
        if case .pending(let enrollment, _) = self { enrollment } else { nil }
    }
}

extension Enrollment {
    /// A link as it would be up after the machine was accepted.
    func linkUp(_ admitted: AdmittedClient, address: String = "192.0.2.1") -> AgentLink {
        let link = AgentLink(client: admitted.client, epoch: admitted.epoch, address: address)
        linkUp(link)
        return link
    }
}

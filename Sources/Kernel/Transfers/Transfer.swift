import AgentProtocol
import Crypto
import JSON

public typealias TransferID = AgentProtocol.TransferID
public typealias TransferDirection = AgentProtocol.TransferDirection
public typealias TransferURL = AgentProtocol.TransferURL
public typealias TransferForm = AgentProtocol.TransferForm
public typealias LinkPolicy = AgentProtocol.LinkPolicy
public typealias FileRequest = AgentProtocol.FileRequest
public typealias FileEntry = AgentProtocol.FileEntry
public typealias FileAnswer = AgentProtocol.FileAnswer
public typealias FileHash = AgentProtocol.FileHash

/// One file or tree between the store and one client, as of one moment.
public struct Transfer: Sendable, Equatable {
    public let id: TransferID
    /// Transfers of one request share the id of its first.
    public let group: TransferID
    public let client: ClientID
    public let direction: TransferDirection
    public let form: TransferForm
    /// On the client.
    public let path: String
    /// In the store: what is sent, or what has come, once that has begun.
    public var file: FileID?
    /// What it is called in the store.
    public let name: String
    /// Push: known from the beginning. Pull: when the client has said so; a tree's at its end.
    public var size: UInt64?
    public var digest: SHA256.Digest?
    public var mode: UInt16?
    public var modified: Int64?
    public let replaces: Bool
    public let makesParents: Bool
    public let links: LinkPolicy
    /// Bytes per second at most; 0: no limit of its own.
    public let rate: UInt64
    public let ownerKind: Principal.Kind
    public let owner: String
    public let createdAt: UInt64
    /// Not later than this, whatever keeps it waiting.
    public let deadline: UInt64
    public var machine = TransferStateMachine()
    /// Bytes at the far end, and how many of them are there for good.
    public var bytes: UInt64 = 0
    public var durable: UInt64 = 0
    public var entries: UInt64 = 0
    public var skipped: UInt64 = 0
    /// Between the client and this URL, of which the secret part is left out; `nil`: the store is the far end.
    public var far: String?

    public var state: TransferState { machine.state }

    func order(from offset: UInt64, limit: UInt64) -> TransferOrder {
        TransferOrder(
            transfer: id, direction: direction, form: form, path: path,
            size: direction == .push && far == nil ? size ?? 0 : limit,
            from: offset, mode: direction == .push ? mode : nil, modified: direction == .push ? modified : nil,
            replaces: replaces, makesParents: makesParents, links: links)
    }

    func isOwned(by principal: Principal) -> Bool { ownerKind == principal.kind && owner == principal.id }
}

/// What somebody wants moved.
public struct TransferRequest: Sendable {
    public enum Targets: Sendable {
        case selector(Selector)
        case clients([ClientID])
    }
    /// What happens when a client is not connected.
    public enum Offline: String, Sendable, CaseIterable {
        case fail, queue
    }

    public var direction: TransferDirection
    public var form: TransferForm?
    public var targets: Targets
    public var path: String
    /// Push: what is sent.
    public var file: FileID?
    /// The far end in place of the store: where a push comes from, or a pull goes to.
    public var url: TransferURL?
    /// Pull: what it is called in the store; else the last part of the path.
    public var name: String?
    public var mode: UInt16?
    public var modified: Int64?
    public var replaces = true
    public var makesParents = false
    public var links = LinkPolicy.keep
    public var rate: UInt64 = 0
    public var offline = Offline.queue
    /// How long it may take, all interruptions and pauses included.
    public var withinMilliseconds: UInt64 = 86_400_000
    /// Known as long as the record of the first transfer is kept: `transfer_retention_days` after its end.
    public var idempotencyKey: IdempotencyKey?

    public static let maximumTargets = 10_000
    public static let within: ClosedRange<UInt64> = 1_000...30 * 86_400_000

    public init(_ direction: TransferDirection, targets: Targets, path: String) {
        self.direction = direction
        self.targets = targets
        self.path = path
    }

    func validate() throws(Problem) {
        try idempotencyKey?.validate()
        try FilePaths.validate(path, pointer: "/path")
        guard Self.within.contains(withinMilliseconds) else {
            throw .invalid("a transfer may take 1 second to 30 days", pointer: "/within_s")
        }
        if let url {
            guard file == nil, name == nil, form != .tree else {
                throw .invalid("with \"url\" there is no \"file\", no \"name\" and no tree", pointer: "/url")
            }
            try Self.validate(url)
        }
        guard url != nil || (direction == .push) == (file != nil) else {
            throw .invalid("a push names the \"file\" of the store that it sends, a pull names none", pointer: "/file")
        }
        guard direction == .push || (mode == nil && modified == nil) else {
            throw .invalid("\"mode\" and \"modified_ns\" are for what is written on a client", pointer: "/mode")
        }
    }

    /// Nothing of the address is repeated: it is a secret.
    private static func validate(_ url: TransferURL) throws(Problem) {
        let address = url.address
        let scheme = ["https://", "http://"].first { address.hasPrefix($0) }
        let rest = address.dropFirst(scheme?.count ?? 0)
        let host = rest.prefix { $0 != "/" && $0 != "?" }
        guard scheme != nil, !host.isEmpty, !host.contains("@"), address.utf8.count <= WireLimits.urlBytes,
            rest.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F && $0 != UInt8(ascii: "#") })
        else {
            throw .invalid(
                "the URL has to be https://HOST/… of at most \(WireLimits.urlBytes) ASCII bytes, without a user and a fragment",
                pointer: "/url")
        }
    }

    /// The last part of the path.
    var defaultName: String {
        let last = path.split(separator: "/").last.map(String.init) ?? "root"
        return form == .tree ? String(decoding: last.utf8.prefix(250), as: UTF8.self) + ".tar" : String(decoding: last.utf8.prefix(255), as: UTF8.self)
    }
}

extension TransferURL {
    /// - Parameter sha256: 64 hexadecimal digits.
    public init(address: String, size: UInt64?, sha256: String?) throws(Problem) {
        self.init(address: address, size: size)
        guard let sha256 else { return }
        guard let digest = SHA256.Digest(hex: sha256) else {
            throw .invalid("a SHA-256 has 64 hexadecimal digits", pointer: "/sha256")
        }
        self.digest = digest
    }
}

/// Paths on clients: the agent decides what they lead to, the core only refuses what no agent would take.
enum FilePaths {
    static func validate(_ path: String, pointer: String? = nil) throws(Problem) {
        let parts = path.split(separator: "/", omittingEmptySubsequences: true)
        guard path.utf8.first == 0x2F, path.utf8.count <= WireLimits.pathBytes, !path.utf8.contains(0),
            !parts.contains("."), !parts.contains("..")
        else {
            throw .invalid(
                "a path on a client is absolute, has no \".\" or \"..\" and at most \(WireLimits.pathBytes) bytes", pointer: pointer)
        }
    }
}

/// Which transfers a list shows, newest first.
public struct TransferQuery: Sendable {
    public var limit = 100
    public var before: TransferID?
    public var state: TransferState?
    public var client: ClientID?
    public var group: TransferID?
    public init() {}
}

extension Right {
    public static let readTransfers: Right = "transfer.read"
    public static let createTransfers: Right = "transfer.create"
    /// Pause and resume too.
    public static let cancelTransfers: Right = "transfer.cancel"
    /// Files of clients: to look, to fetch.
    static let fileRead: Right = "file.read"
    /// To change.
    static let fileWrite: Right = "file.write"
}

extension Setting {
    public static let transfersAtOnce = Setting(
        "transfers_at_once", .integer(1...1_024), initial: 64, "transfers that run at the same time; others wait")
    public static let transfersPerClient = Setting(
        "transfers_per_client", .integer(1...64), initial: 4, "of those, on one client")
    public static let transferRateKiB = Setting(
        "transfer_rate_kib", .integer(0...1 << 30), initial: 0, "KiB per second that all transfers together may take; 0: no limit")
    public static let transferClientRateKiB = Setting(
        "transfer_client_rate_kib", .integer(0...1 << 30), initial: 0, "the same for one client's transfers together")
    public static let transferQuotaMiB = Setting(
        "transfer_client_quota_mib", .integer(0...1 << 40), initial: 0,
        "MiB that files from one client may have in the store together; 0: no limit")
    public static let transferRetentionDays = Setting(
        "transfer_retention_days", .integer(1...3_650), initial: 30, "days that the record of a transfer is kept after its end")

    static let transfers = [
        transfersAtOnce, transfersPerClient, transferRateKiB, transferClientRateKiB, transferQuotaMiB, transferRetentionDays,
    ]
}

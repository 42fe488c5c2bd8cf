import AgentProtocol
import Crypto
import Reactor

/// Private files of a simulated agent: in the memory of its process, with the proof of uptake that a real one gives.
///
/// Only the hash of a content is kept: a thousand agents hold no secret.
public final class SimulatedPrivateFiles: PrivateFileExecutor {
    private struct File {
        var keeper: String
        var state: PrivateFileState
        /// Unix milliseconds.
        var endsAt: UInt64?
    }

    private var files: [String: File] = [:]
    /// Contents that were taken in so far.
    public private(set) var placed = 0

    public init() {}

    public func handle(_ request: PrivateFileRequest, _ reply: @escaping (PrivateFileAnswer) -> Void) {
        let now = unixMilliseconds()
        files = files.filter { ($0.value.endsAt ?? .max) > now }
        switch request {
        case .put(let order, let content):
            if let known = files[order.name], known.keeper != order.keeper {
                return reply(.refused(code: "private-file-foreign", message: "\(order.name) was placed by \(known.keeper)"))
            }
            guard files[order.name] != nil || files.count < PrivateFileLimits.files else {
                return reply(.refused(code: "private-file-limit", message: "\(PrivateFileLimits.files) private files are kept"))
            }
            let state = PrivateFileState(
                name: order.name, path: "/run/client-manager-agent/" + order.name, bytes: UInt64(content.count),
                sha256: SHA256.digest(content).hex, owner: order.owner ?? "root", mode: order.mode)
            let isChanged = files[order.name]?.state != state
            if isChanged { placed += 1 }
            files[order.name] = File(keeper: order.keeper, state: state, endsAt: order.lifetimeMilliseconds.map { now + $0 })
            reply(.done([described(order.name, now)].compactMap { $0 }, isChanged: isChanged))
        case .remove(let name, let keeper):
            guard let known = files[name] else { return reply(.done([], isChanged: false)) }
            guard known.keeper == keeper else {
                return reply(.refused(code: "private-file-foreign", message: "\(name) was placed by \(known.keeper)"))
            }
            files[name] = nil
            reply(.done([], isChanged: true))
        case .list(let keeper):
            let names = files.filter { $0.value.keeper == keeper }.map(\.key).sorted()
            reply(.done(names.compactMap { described($0, now) }, isChanged: false))
        }
    }

    private func described(_ name: String, _ now: UInt64) -> PrivateFileState? {
        guard let file = files[name] else { return nil }
        var state = file.state
        state.expiresInMilliseconds = file.endsAt.map { $0 > now ? $0 - now : 0 }
        return state
    }
}

import JSON

/// Waits for the transfers of one request: shows how far they are together, cancels them on Ctrl-C, and comes back when the
/// connection to the core is lost. They do not depend on it.
final class TransferFollowing {
    private let session: Session
    private let core: Core
    private let group: String
    private let progress: ProgressLine
    private var interruptions = 0
    private static let attempts = 8

    init(_ session: Session, core: Core, group: String, progress: ProgressLine) {
        self.session = session
        self.core = core
        self.group = group
        self.progress = progress
    }

    /// All of them in their final states.
    func wait() async throws(OperatorError) -> [JSONValue] {
        session.interrupts.handler = { [self] in interruptions += 1 }
        defer { session.interrupts.handler = nil }
        var failures = 0
        var cancelled = false
        var pause: UInt64 = 20
        while true {
            do throws(OperatorError) {
                let items = try await look()
                failures = 0
                show(items)
                let open = items.filter { !Self.isFinal($0) }
                if open.isEmpty, !items.isEmpty { return items }
                if interruptions > 0, !cancelled {
                    cancelled = true
                    try await cancel(open)
                    pause = 20
                }
            } catch {
                guard error.status == .unreachable else { throw error }
                failures += 1
                guard failures < Self.attempts, interruptions == 0 else {
                    throw OperatorError(
                        .unreachable, "lost the core while it copies: \(error.what)",
                        advice: "The copy goes on. 'cmctl transfers list --group \(group)' shows it.")
                }
            }
            await session.pause(failures > 0 ? UInt64(100) << UInt64(min(failures, 5)) : pause)
            pause = min(pause * 2, 400)
        }
    }

    private func look() async throws(OperatorError) -> [JSONValue] {
        var request = APIRequest("GET", "/api/v1/transfers")
        request.query = [(name: "group", value: group), (name: "limit", value: "1000")]
        return try await core.list(request, limit: 10_000).items
    }

    private func show(_ items: [JSONValue]) {
        var (done, total): (UInt64, UInt64?) = (0, 0)
        for item in items {
            let size = item["size"]?.integer.map { UInt64(clamping: $0) }
            done += item["state"]?.string == "succeeded" ? size ?? 0 : UInt64(clamping: item["bytes"]?.integer ?? 0)
            if let size, let sum = total { total = sum + size } else { total = nil }
        }
        progress.moved(to: done, total: total)
    }

    private func cancel(_ items: [JSONValue]) async throws(OperatorError) {
        progress.clear()
        session.console.complain("Cancelling …")
        for item in items {
            guard let id = item["id"]?.string else { continue }
            let request = APIRequest("POST", "/api/v1/transfers/\(APIRequest.encoded(id))/cancel")
            let response = try await core.transport.send(request)
            // 409: it has ended by itself meanwhile.
            guard (200..<300).contains(response.status) || response.status == 409 else { throw core.failure(response, of: request) }
        }
    }

    static func isFinal(_ item: JSONValue) -> Bool {
        ["succeeded", "failed", "cancelled"].contains(item["state"]?.string ?? "")
    }
}

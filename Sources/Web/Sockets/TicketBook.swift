import Kernel
import Reactor
import Synchronization

/// One-time tickets with which a browser, which cannot set headers there, opens a WebSocket: 30 s, one use, good for one
/// path, one origin and one address. They stand in a URL, so they are worth nothing afterwards; they are not kept on disk.
public final class TicketBook: Sendable {
    public static let lifetimeMilliseconds: UInt64 = 30_000
    public static let maximum = 4_096
    public static let maximumPerPrincipal = 64

    private struct Ticket {
        let principal: Principal
        let path: [String]
        let origin: String?
        let expires: UInt64
    }
    private let tickets = Mutex<[String: Ticket]>([:])
    private let now: @Sendable () -> UInt64

    /// - Parameter now: monotonic nanoseconds.
    init(now: @escaping @Sendable () -> UInt64 = { monotonicNanoseconds() }) { self.now = now }

    /// - Parameters:
    ///   - path: decoded segments.
    ///   - origin: the `Origin` of the page that asks; the WebSocket must come from the same.
    func issue(_ principal: Principal, path: [String], origin: String?) throws(Problem) -> String {
        let now = now()
        var generator = SystemRandomNumberGenerator()
        var text = ""
        for _ in 0..<4 {
            let word = String(generator.next() as UInt64, radix: 16)
            text += String(repeating: "0", count: 16 - word.count) + word
        }
        let ticket = Ticket(
            principal: principal, path: path, origin: origin, expires: now + TicketBook.lifetimeMilliseconds * 1_000_000)
        let isTaken = tickets.withLock { tickets in
            if tickets.count >= TicketBook.maximum / 2 { tickets = tickets.filter { $0.value.expires > now } }
            let own = tickets.values.count(where: { $0.principal.id == principal.id && $0.expires > now })
            guard tickets.count < TicketBook.maximum, own < TicketBook.maximumPerPrincipal else { return false }
            tickets[text] = ticket
            return true
        }
        guard isTaken else {
            throw Problem(
                503, "too-many-tickets", "more than \(TicketBook.maximumPerPrincipal) unused tickets of \(principal.id), or \(TicketBook.maximum) of all",
                retryAfter: 30)
        }
        return text
    }

    /// Uses the ticket up, whatever comes of it.
    func redeem(_ text: String, path: [String], origin: String?, address: String) -> Principal? {
        guard let ticket = tickets.withLock({ $0.removeValue(forKey: text) }) else { return nil }
        guard ticket.expires > now(), ticket.path == path, ticket.origin == origin, ticket.principal.address == address
        else { return nil }
        return ticket.principal
    }
}

import JSON
import PluginKit

/// Reaches a host: through the jump host where there is one, its key checked before anything secret is sent, logged in.
struct Connector {
    let plan: Plan
    let secrets: Secrets
    let agentSocket: String?
    /// What was seen at a first use of a host, "HOST:PORT" to the key's text; and where a new one is kept.
    let kept: (String) throws(Failure) -> String?
    let keep: (String, String) throws(Failure) -> Void

    func connect(_ watch: Watch) throws(Failure) -> (session: SSHSession, key: HostKey) {
        guard let jump = plan.jump else {
            return try reach(plan.destination, secrets.host) { (host, port, methods) throws(Failure) in
                try SSHSession(to: host, port, watch, hostKeyMethods: methods)
            }
        }
        let outer = try reach(jump, secrets.jump) { (host, port, methods) throws(Failure) in
            try SSHSession(to: host, port, watch, hostKeyMethods: methods)
        }
        return try reach(plan.destination, secrets.host) { (host, port, methods) throws(Failure) in
            try SSHSession(to: host, port, through: outer.session, hostKeyMethods: methods)
        }
    }

    private typealias Dial = (String, Int, String?) throws(Failure) -> SSHSession

    private func reach(
        _ place: Destination, _ credentials: Credentials, _ dial: Dial
    ) throws(Failure) -> (session: SSHSession, key: HostKey) {
        let policy = try policy(place)
        let found = try trusted(place, policy, dial)
        try found.session.logIn(as: place.user, credentials, agentSocket: agentSocket)
        return found
    }

    private func policy(_ place: Destination) throws(Failure) -> HostKeyPolicy {
        if let lines = place.hostKey["known_hosts"]?.string { return .knownHosts(lines) }
        if let text = place.hostKey["fingerprint"]?.string {
            return .fingerprints(text.split(whereSeparator: { $0 == "," || $0 == " " }).map { Self.normal(String($0)) })
        }
        guard place.hostKey["trust_first_use"]?.bool == true else {
            throw Failure("host-key-policy", "nothing says which host key to believe")
        }
        return .firstUse(kept: try kept(place.name))
    }

    /// "SHA256:" in front and no padding, however it was written.
    private static func normal(_ text: String) -> String {
        let bare = text.hasPrefix("SHA256:") ? String(text.dropFirst(7)) : text
        return "SHA256:" + bare.prefix { $0 != "=" }
    }

    /// A host has keys of several kinds. Where the one that it shows first is not the one that is wanted, the others are asked
    /// for, one kind after the other; a key that no kind matches is refused.
    private func trusted(
        _ place: Destination, _ policy: HostKeyPolicy, _ dial: Dial
    ) throws(Failure) -> (session: SSHSession, key: HostKey) {
        var refusal: Failure?
        for methods in [nil] + SSHSession.hostKeyFamilies.map(Optional.some) {
            let session: SSHSession
            do throws(Failure) {
                session = try dial(place.host, place.port, methods)
            } catch {
                // This host has no key of that kind; what was seen before counts.
                guard refusal != nil, error.code == "ssh-handshake" else { throw error }
                continue
            }
            let key = try session.hostKey()
            do throws(Failure) {
                try session.check(key, policy, host: place.host, port: place.port)
            } catch {
                // Another kind of key does not make up for one that is revoked.
                guard error.code != "host-key-revoked" else { throw error }
                refusal = refusal ?? error
                continue
            }
            if case .firstUse(nil) = policy { try keep(place.name, key.text) }
            return (session, key)
        }
        throw refusal ?? Failure("ssh-handshake", "no SSH connection to \(place.name)")
    }
}

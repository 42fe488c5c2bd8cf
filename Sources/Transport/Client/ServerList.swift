/// The cores that an agent may connect to, `URL[*WEIGHT][,…]`. Immutable.
public struct ServerList: Sendable, Equatable {
    public struct Server: Sendable, Equatable {
        public let url: ServerURL
        /// 1 to 1,000; the share of agents that choose it first.
        public let weight: UInt64
    }

    public let servers: [Server]
    /// As it was given.
    public let text: String

    /// Throws `invalid-argument` with the part that is wrong. At most 16 servers.
    public init(_ text: String) throws(TransportError) {
        var servers: [Server] = []
        for part in text.split(separator: ",", omittingEmptySubsequences: false) {
            var address = part
            var weight: UInt64 = 1
            if let star = part.lastIndex(of: "*") {
                address = part[..<star]
                guard let number = UInt64(part[part.index(after: star)...]), (1...1_000).contains(number) else {
                    throw TransportError(.invalid, "'\(part)': the weight after * must be a number from 1 to 1000")
                }
                weight = number
            }
            let url = try ServerURL(String(address))
            servers.append(Server(url: url.target == "/" ? url.with(target: "/agent") : url, weight: weight))
        }
        guard (1...16).contains(servers.count) else {
            throw TransportError(.invalid, "\(servers.count) servers; from 1 to 16 can be given")
        }
        self.servers = servers
        self.text = text
    }

    /// One server by weight among those that are not in `failed`; among all when every one has failed.
    public func choose(excluding failed: Set<Int>, random: UInt64) -> Int {
        let candidates = servers.indices.filter { !failed.contains($0) }
        let pool = candidates.isEmpty ? Array(servers.indices) : candidates
        var point = random % pool.reduce(0) { $0 + servers[$1].weight }
        for index in pool {
            if point < servers[index].weight { return index }
            point -= servers[index].weight
        }
        return pool[0]
    }
}

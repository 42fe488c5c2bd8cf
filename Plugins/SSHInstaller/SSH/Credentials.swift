/// What proves to a host who we are. In memory, for as long as an installation takes; never written, logged or shown.
struct Credentials: Sendable {
    var password: [UInt8] = []
    /// A private key's text.
    var privateKey: [UInt8] = []
    var passphrase: [UInt8] = []
    /// The SSH agent of the core's configuration is asked.
    var usesAgent = false
    var sudoPassword: [UInt8] = []

    var isEmpty: Bool { password.isEmpty && privateKey.isEmpty && !usesAgent }

    /// Overwrites what it holds. Copies that the runtime made are beyond reach; said in the documentation.
    mutating func wipe() {
        for path in [\Credentials.password, \.privateKey, \.passphrase, \.sudoPassword] {
            for index in self[keyPath: path].indices { self[keyPath: path][index] = 0 }
            self[keyPath: path] = []
        }
    }
}

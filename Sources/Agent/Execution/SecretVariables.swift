import AgentProtocol
import Glibc
import System

/// The secret variables of an order on their way to its holder: a file without a name, in memory, as descriptor 5.
enum SecretVariables {
    static let descriptor: Int32 = 5
    static let goneMessage = "the agent was restarted before the start, and secret variables are kept in memory only"
    private static let maximumBytes = WireLimits.openBytes

    /// `NAME=VALUE` and a NUL each.
    static func write(_ variables: [String: String]) throws(SystemError) -> Descriptor {
        let file = try Descriptor.memoryFile("order")
        var bytes: [UInt8] = []
        for (name, value) in variables { bytes += Array("\(name)=\(value)".utf8) + [0] }
        try file.write(bytes.span.bytes)
        return file
    }

    /// What the agent left there; closes it, so that no program inherits it. Variables that it does not have are missing.
    static func take(_ names: some Collection<String>) -> [String: String]? {
        var found: [String: String] = [:]
        do throws(SystemError) {
            // Nothing else may be closed in its place.
            guard try Files.readLink("/proc/self/fd/\(descriptor)").hasPrefix("/memfd:order") else { return nil }
            let file = Descriptor(owning: descriptor)
            let bytes = try Files.read("/proc/self/fd/\(file.number)", limit: maximumBytes)
            for part in bytes.split(separator: 0) {
                guard let mark = part.firstIndex(of: UInt8(ascii: "=")) else { continue }
                found[String(decoding: part[..<mark], as: UTF8.self)] = String(decoding: part[(mark + 1)...], as: UTF8.self)
            }
        } catch { return nil }
        return names.allSatisfy { found[$0] != nil } ? found : nil
    }
}

import Kernel

/// The host's own rules for what a plugin registers, for `client-manager plugin check`: so both say the same.
public enum PluginRules {
    /// Why the host would refuse a route with this specification; `nil`: it would not.
    public static func fault(ofRoute specification: [UInt8], grants: [String]) -> String? {
        do throws(Problem) {
            _ = try RouteSpecification(parsing: specification, grants: Set(grants.compactMap { Capability(rawValue: $0) }))
            return nil
        } catch {
            return error.detail
        }
    }
}

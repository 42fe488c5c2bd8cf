import Kernel
import Web

/// Everything about who may do what.
public func securityRoutes(_ security: Security, identity: IdentityService) -> [Route] {
    sessionRoutes(security) + userRoutes(security) + tokenRoutes(security) + roleRoutes(security) + policyRoutes(security)
        + limitRoutes(security) + identityRoutes(identity, security)
}

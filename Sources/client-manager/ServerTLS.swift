import Kernel
import Program
import Reactor
import System
import Transport

/// The server's certificate: made and renewed by the core itself, or read from files.
struct ServerTLS: Sendable {
    let context: TLSContext
    private let source: Source

    private enum Source: Sendable {
        case identity(IdentityService)
        case files(certificate: String, key: String)
    }

    /// `nil` when `tls.mode` is off.
    init?(_ identity: IdentityService, _ configuration: Configuration) throws {
        switch configuration[CoreConfiguration.tlsMode] {
        case .off: return nil
        case .auto: source = .identity(identity)
        case .files:
            let certificate = configuration[CoreConfiguration.tlsCertificate]
            let key = configuration[CoreConfiguration.tlsKey]
            guard !certificate.isEmpty, !key.isEmpty else {
                throw Problem(400, "invalid", "tls.mode files needs both tls.certificate and tls.key")
            }
            source = .files(certificate: certificate, key: key)
        }
        let (chain, key) = try Self.read(source)
        let authorities = configuration[CoreConfiguration.tlsClientAuthorities]
        context = try TLSContext.server(
            chain: chain, key: key,
            clientAuthorities: authorities.isEmpty
                ? nil : String(decoding: try Files.read(authorities, limit: 1 << 20), as: UTF8.self))
        // Those that are there serve from the first agent on; renewing them can wait for `keepFresh`.
        context.use(ticketKeys: identity.keptTicketKeys())
    }

    /// Takes the present certificate into use for new connections. If it throws, the old one stays.
    func reload() throws {
        let (chain, key) = try Self.read(source)
        try context.reload(chain: chain, key: key)
    }

    /// Looks now and each hour whether the keys of session tickets or the core's own certificate must be renewed, and
    /// renews the certificate when the identity is rotated.
    func keepFresh(on loop: EventLoop, _ kernel: Kernel, _ log: Log) {
        let reloadOwn: @Sendable () -> Void = {
            guard case .identity = source else { return }
            do { try reload() } catch { log.error("tls.renewal-failed", ["detail": .string("\(error)")]) }
        }
        kernel.identity.whenRotated(reloadOwn)
        loop.spawn {
            while true {
                do throws(Problem) {
                    context.use(ticketKeys: try await kernel.security.ticketKeys(kernel.identity))
                } catch { log.error("tls.ticket-keys-failed", ["detail": .string(error.detail)]) }
                await loop.sleep(milliseconds: 3_600_000)
                reloadOwn()
            }
        }
    }

    private static func read(_ source: Source) throws -> (chain: String, key: String) {
        switch source {
        case .identity(let identity):
            let certificate = try identity.serverCertificate(now: unixMilliseconds())
            return (certificate.chain, certificate.privateKey)
        case .files(let certificate, let key):
            return (
                String(decoding: try Files.read(certificate, limit: 1 << 20), as: UTF8.self),
                String(decoding: try Files.read(key, limit: 1 << 20), as: UTF8.self)
            )
        }
    }
}

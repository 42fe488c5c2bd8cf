import AgentProtocol
import System
import Transport

/// The far end of a transfer between a file of this machine and a URL, after this machine's owner has been asked.
///
/// The address is a secret, so no message of this file repeats more of it than scheme, host and port.
struct DirectAddress: Sendable {
    let server: ServerURL
    let options: ClientOptions

    /// Reads policy and authorities: may wait for the disk.
    /// - Parameter proxy: of the agent; loopback is reached without it.
    init(_ url: TransferURL, policyPath: String, proxy: ClientProxy?) throws(FileFailure) {
        let address = url.address
        guard address.hasPrefix("https://") || address.hasPrefix("http://"), let server = try? ServerURL(address) else {
            throw FileFailure("url-invalid", "the far end is not a usable https:// URL")
        }
        let policy = LocalPolicy.load(policyPath)
        if let refusal = policy.refusal(ofTransferWith: server, policyPath) { throw FileFailure("url-not-allowed", refusal) }
        var options = ClientOptions()
        if server.isSecure { options.tls = try Self.trust(policy.directTransfers.caFile) }
        if !Self.isLoopback(server.host) { options.proxy = proxy }
        options.headers.set("user-agent", "cm-agent")
        self.server = server
        self.options = options
    }

    static func isLoopback(_ host: String) -> Bool { host == "localhost" || IPAddress(host)?.isLoopback ?? false }

    private static func trust(_ path: String?) throws(FileFailure) -> TLSContext {
        do {
            guard let path else { return try TLSContext.client(.systemRoots) }
            let pem = String(decoding: try Files.read(path, limit: 1 << 20), as: UTF8.self)
            return try TLSContext.client(.authorities(pem: pem))
        } catch {
            throw FileFailure("url-failed", "the certificate authorities \(path ?? "of the system") cannot be used: \(error)")
        }
    }
}

/// Why one attempt with the server came to an end.
enum DirectEnd: Error {
    /// It makes no sense to try again.
    case failed(FileFailure)
    /// It may be better the next time.
    case dropped(String)
    /// Nobody waits for it any more.
    case stopped

    /// What an answer other than the wanted ones means. Of its body only S3's error code is told: the rest may repeat the
    /// signature of the request.
    init(_ status: Int, _ headers: HTTPHeaders, _ body: [UInt8], host: String) {
        var words = "\(host) answered \(status)"
        if let code = Self.code(body) { words += " \(code)" }
        for name in ["x-amz-request-id", "x-request-id"] {
            guard let id = headers[name], id.utf8.count <= 128 else { continue }
            words += " (request \(id))"
            break
        }
        switch status {
        case 300..<400:
            self = .failed(FileFailure("url-redirected", "\(words), a redirection, and none is followed: give the address itself"))
        case 408, 429, 500...: self = .dropped(words)
        default: self = .failed(FileFailure("url-refused", words))
        }
    }

    init(_ error: TransportError, host: String) {
        switch error.code {
        case .untrusted:
            self = .failed(
                FileFailure("url-untrusted", "the certificate of \(host) is not trusted; see \"ca_file\" of direct_transfers"))
        // What it says could repeat the target.
        case .invalid: self = .failed(FileFailure("url-invalid", "the far end is not a usable https:// URL"))
        default: self = .dropped("\(host): \(error)")
        }
    }

    private static func code(_ body: [UInt8]) -> String? {
        let tag = Array("<Code>".utf8)
        guard body.count > tag.count,
            let start = (0..<body.count - tag.count).first(where: { body[$0..<$0 + tag.count].elementsEqual(tag) })
        else { return nil }
        let code = String(decoding: body[(start + tag.count)...].prefix(64), as: UTF8.self)
            .prefix { $0.isASCII && ($0.isLetter || $0.isNumber) }
        return code.isEmpty ? nil : String(code)
    }
}

import Transport

/// Delivers over the transport's own client: one connection per message, certificates checked against the system's
/// roots. Used on a loop.
public struct HTTPWebhookSender: WebhookSender {
    private let options: ClientOptions

    /// - Throws: 500 when the system's roots cannot be loaded.
    public init() throws(Problem) {
        var options = ClientOptions()
        options.connectMilliseconds = 5_000
        options.handshakeMilliseconds = 5_000
        do { options.tls = try TLSContext.client(.systemRoots) } catch {
            throw Problem(500, "tls-roots", "the system's root certificates cannot be used: \(error)")
        }
        self.options = options
    }

    public func post(
        url: String, headers: [(name: String, value: String)], body: [UInt8]
    ) async throws(DeliveryFailure) -> Int {
        do throws(TransportError) {
            let address = try ServerURL(url)
            var fields: HTTPHeaders = [:]
            for (name, value) in headers { fields.set(name, value) }
            let client = HTTPClient(address, options: options)
            let answer = try await client.request(
                .post, address.target, headers: fields, body: body, headMilliseconds: 10_000)
            let status = answer.status
            // What the endpoint says beyond its status is not read: it could be endless.
            answer.cancel()
            client.close()
            return status
        } catch {
            throw DeliveryFailure(error.description)
        }
    }
}

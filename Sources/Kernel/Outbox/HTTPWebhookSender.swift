import Synchronization
import System
import Transport

/// Delivers over the transport's own client: one connection per message, certificates checked against the system's
/// roots. Used on a loop.
///
/// The roots are read at the first delivery, not at start: decoding some 140 certificates takes half of a core's start
/// and 1.5 MB, and most cores deliver nothing.
public final class HTTPWebhookSender: WebhookSender {
    private let reading = BlockingPool(name: "webhook-roots", threads: 1, queue: 256)
    private let roots = Mutex<TLSContext?>(nil)

    public init() {}

    public func post(
        url: String, headers: [(name: String, value: String)], body: [UInt8]
    ) async throws(DeliveryFailure) -> Int {
        let address: ServerURL
        do throws(TransportError) { address = try ServerURL(url) } catch { throw DeliveryFailure(error.description) }
        var options = ClientOptions()
        options.connectMilliseconds = 5_000
        options.handshakeMilliseconds = 5_000
        if address.isSecure { options.tls = try await systemRoots() }
        do throws(TransportError) {
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

    private func systemRoots() async throws(DeliveryFailure) -> TLSContext {
        if let known = roots.withLock({ $0 }) { return known }
        do throws(BlockingPool.Failure<TransportError>) {
            let read = try await reading.run { () throws(TransportError) in try TLSContext.client(.systemRoots) }
            roots.withLock { $0 = read }
            return read
        } catch {
            switch error {
            case .full: throw DeliveryFailure("too many deliveries wait for the system's root certificates")
            case .failed(let cause):
                throw DeliveryFailure("the system's root certificates cannot be used: \(cause.description)")
            }
        }
    }
}

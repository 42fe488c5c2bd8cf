import Program
import Transport

/// The real way to a core: HTTP over TLS, plain only on loopback unless asked for. Confined to its loop.
public final class NetworkTransport: APITransport {
    /// Time for the head of an ordinary answer, in milliseconds. A request that waits at the core says how long.
    private static let patience: UInt64 = 120_000
    private static let longestAnswer = 64 << 20

    private let calls: HTTPClient
    private let url: ServerURL
    private let options: ClientOptions
    private var streaming: HTTPClient?

    public init(_ choice: ServerChoice) throws(OperatorError) {
        let advice: String
        do throws(TransportError) {
            url = try ServerURL(choice.server)
            var options = ClientOptions()
            options.headers = ["user-agent": "cmctl/\(BuildID.version)", "accept": "application/json"]
            if let token = choice.token { options.headers.add("authorization", "Bearer \(token)") }
            if url.isSecure { options.tls = try TLSContext.client(try Self.trust(choice)) }
            self.options = options
            calls = HTTPClient(url, options: options)
            return
        } catch {
            advice = error.message
        }
        throw .usage("\(choice.server): \(advice)")
    }

    /// A pin says more than any authority; without one the authorities decide.
    private static func trust(_ choice: ServerChoice) throws(TransportError) -> TLSTrust {
        if let pin = choice.pin { return .pins([pin]) }
        guard let path = choice.caFile else { return .systemRoots }
        do throws(FileReadError) {
            return .authorities(pem: String(decoding: try readSmallFile(path, limit: 1 << 20), as: UTF8.self))
        } catch {
            throw TransportError(.invalid, error.description)
        }
    }

    public func send(_ request: APIRequest) async throws(OperatorError) -> APIResponse {
        do throws(TransportError) {
            let response = try await begin(request, on: calls, Self.patience)
            return APIResponse(
                status: response.status, headers: response.head.headers.all, body: try await response.body(maximum: Self.longestAnswer))
        } catch {
            throw failure(error)
        }
    }

    public func stream(
        _ request: APIRequest, _ receive: ([UInt8]) async throws(OperatorError) -> Void
    ) async throws(OperatorError) -> APIResponse {
        let client = HTTPClient(url, options: options)
        streaming = client
        defer {
            client.close()
            streaming = nil
        }
        let response: HTTPClientResponse
        do throws(TransportError) {
            response = try await begin(request, on: client, 0)
            guard (200..<300).contains(response.status) else {
                return APIResponse(
                    status: response.status, headers: response.head.headers.all,
                    body: try await response.body(maximum: Self.longestAnswer))
            }
        } catch {
            throw failure(error)
        }
        while let piece = try await next(response) { try await receive(piece) }
        return APIResponse(status: response.status, headers: response.head.headers.all)
    }

    public func upload(
        _ request: APIRequest, length: UInt64?, _ next: () async throws(OperatorError) -> [UInt8]?
    ) async throws(OperatorError) -> APIResponse {
        let client = HTTPClient(url, options: options)
        streaming = client
        defer {
            client.close()
            streaming = nil
        }
        guard let method = HTTPMethod(rawValue: request.method) else { throw .usage("'\(request.method)' is no HTTP method") }
        var headers = HTTPHeaders()
        for (name, value) in request.headers { headers.add(name, value) }
        // What ended the source is not what the connection says afterwards.
        var fault: OperatorError?
        do throws(TransportError) {
            let response = try await client.request(
                method, request.target, headers: headers, length: length,
                body: { () async throws(TransportError) -> [UInt8]? in
                    do throws(OperatorError) { return try await next() } catch {
                        fault = error
                        throw TransportError(.closed, error.what)
                    }
                }, headMilliseconds: Self.patience)
            return APIResponse(
                status: response.status, headers: response.head.headers.all,
                body: try await response.body(maximum: Self.longestAnswer))
        } catch {
            if let fault { throw fault }
            throw failure(error)
        }
    }

    private func next(_ response: HTTPClientResponse) async throws(OperatorError) -> [UInt8]? {
        do throws(TransportError) {
            return try await response.nextPiece()
        } catch {
            throw failure(error)
        }
    }

    private func begin(
        _ request: APIRequest, on client: HTTPClient, _ milliseconds: UInt64
    ) async throws(TransportError) -> HTTPClientResponse {
        guard let method = HTTPMethod(rawValue: request.method) else {
            throw TransportError(.invalid, "'\(request.method)' is no HTTP method")
        }
        var headers = HTTPHeaders()
        for (name, value) in request.headers { headers.add(name, value) }
        if request.body != nil, !headers.contains("content-type") { headers.add("content-type", "application/json") }
        return try await client.request(
            method, request.target, headers: headers, body: request.body ?? [], headMilliseconds: milliseconds)
    }

    public func webSocket(
        _ request: APIRequest, _ receive: @escaping (APIMessage) -> Void
    ) async throws(OperatorError) -> any APISocket {
        let socket = NetworkSocket(receive)
        do throws(TransportError) {
            let place = ServerURL(isSecure: url.isSecure, host: url.host, port: url.port, target: request.target)
            socket.connection = try await WebSocketClient.connect(to: place, options: options, delegate: socket)
            return socket
        } catch {
            // A refusal of the core is a status in the message; what cannot be reached may be there again later.
            if error.code == .http {
                throw OperatorError(error.message.split(separator: " ").contains { $0.hasPrefix("401") } ? .refused : .remoteFailure, error.message)
            }
            throw failure(error)
        }
    }

    public func interrupt() { streaming?.close() }

    private func failure(_ error: TransportError) -> OperatorError {
        let what = "cannot reach \(url.isSecure ? "https" : "http")://\(url.authority): \(error.message)"
        switch error.code {
        case .invalid: return .usage(error.message)
        case .tooLarge: return OperatorError(.remoteFailure, error.message)
        case .refused: return OperatorError(.unreachable, what, advice: "Is the core running there?")
        case .resolve: return OperatorError(.unreachable, what, advice: "Check the name in --server or CM_SERVER.")
        case .untrusted, .tls:
            return OperatorError(
                .unreachable, what,
                advice: "Give --pin FINGERPRINT (the core prints it when it starts) or --ca FILE.")
        case .http: return OperatorError(.unreachable, what, advice: "Is this the address of a Client Manager core?")
        default: return OperatorError(.unreachable, what)
        }
    }
}

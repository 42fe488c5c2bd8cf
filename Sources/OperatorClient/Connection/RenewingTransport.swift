import JSON

/// A way to the core whose short session renews itself: an answer 401 makes it trade the saved refresh token for a new pair
/// and repeat the request once. A refresh token counts once, so several `cmctl` at a time take turns over the saved file.
final class RenewingTransport: APITransport {
    private var choice: ServerChoice
    private var current: any APITransport
    private let path: String
    private let files: LocalFiles
    private let pause: (UInt64) async -> Void
    private let connect: (ServerChoice) throws(OperatorError) -> any APITransport

    init(
        _ choice: ServerChoice, path: String, files: LocalFiles, pause: @escaping (UInt64) async -> Void,
        connect: @escaping (ServerChoice) throws(OperatorError) -> any APITransport
    ) throws(OperatorError) {
        self.choice = choice
        self.path = path
        self.files = files
        self.pause = pause
        self.connect = connect
        current = try connect(choice)
    }

    func send(_ request: APIRequest) async throws(OperatorError) -> APIResponse {
        let response = try await current.send(request)
        guard response.status == 401, try await renew() else { return response }
        return try await current.send(request)
    }

    func stream(
        _ request: APIRequest, _ receive: ([UInt8]) async throws(OperatorError) -> Void
    ) async throws(OperatorError) -> APIResponse {
        let response = try await current.stream(request, receive)
        guard response.status == 401, try await renew() else { return response }
        return try await current.stream(request, receive)
    }

    /// A body that has begun cannot be sent again: whoever sends it asks for the state of things first, and that renews.
    func upload(
        _ request: APIRequest, length: UInt64?, _ next: () async throws(OperatorError) -> [UInt8]?
    ) async throws(OperatorError) -> APIResponse {
        try await current.upload(request, length: length, next)
    }

    func webSocket(
        _ request: APIRequest, _ receive: @escaping (APIMessage) -> Void
    ) async throws(OperatorError) -> any APISocket {
        do throws(OperatorError) {
            return try await current.webSocket(request, receive)
        } catch {
            guard error.status == .refused, try await renew() else { throw error }
            return try await current.webSocket(request, receive)
        }
    }

    func interrupt() { current.interrupt() }

    /// False when there is nothing to renew with any more.
    private func renew() async throws(OperatorError) -> Bool {
        let lock = await takeLock()
        defer { withExtendedLifetime(lock) {} }
        guard let content = files.read(path), let saved = try? SavedLogin(parsing: content, path: path) else { return false }
        if saved.choice.token != choice.token {
            // Somebody else has renewed it meanwhile.
            try use(saved.choice)
            return true
        }
        guard let refresh = saved.choice.refresh else { return false }
        let body: JSONValue = ["refresh_token": .string(refresh)]
        let response = try await current.send(APIRequest("POST", "/api/v1/sessions/refresh", body: body.serialized()))
        guard response.status == 200, let grant = try? JSONValue(parsing: response.body),
            let token = grant["access_token"]?.string
        else { return false }
        var renewed = saved.choice
        renewed.token = token
        renewed.refresh = grant["refresh_token"]?.string
        try files.write(path, SavedLogin(choice: renewed).content)
        try use(renewed)
        return true
    }

    private func use(_ new: ServerChoice) throws(OperatorError) {
        choice.token = new.token
        choice.refresh = new.refresh
        current = try connect(choice)
    }

    /// Gives up after five seconds: a lock that nobody lets go of must not stop the work.
    private func takeLock() async -> (any Sendable)? {
        let directory = path.split(separator: "/", omittingEmptySubsequences: false).dropLast().joined(separator: "/")
        for _ in 0..<100 {
            if let lock = files.lock(directory) { return lock }
            await pause(50)
        }
        return nil
    }
}

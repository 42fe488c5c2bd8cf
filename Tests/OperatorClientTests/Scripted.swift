import JSON
@testable import OperatorClient

/// A core that answers from a script and remembers what it was asked.
final class ScriptedCore: APITransport {
    typealias Handler = (APIRequest) throws(OperatorError) -> APIResponse
    private(set) var requests: [APIRequest] = []
    private let handler: Handler
    /// Called between the pieces of a stream; may interrupt.
    var betweenPieces: (Int) -> Void = { _ in }
    private var isInterrupted = false

    init(_ handler: @escaping Handler) { self.handler = handler }

    func send(_ request: APIRequest) async throws(OperatorError) -> APIResponse {
        requests.append(request)
        return try handler(request)
    }

    /// A body is delivered in pieces of seven bytes; a body that ends in a zero byte breaks off there.
    func stream(
        _ request: APIRequest, _ receive: ([UInt8]) async throws(OperatorError) -> Void
    ) async throws(OperatorError) -> APIResponse {
        requests.append(request)
        isInterrupted = false
        var response = try handler(request)
        guard (200..<300).contains(response.status) else { return response }
        var rest = response.body[...]
        let breaksOff = rest.last == 0
        if breaksOff { rest = rest.dropLast() }
        var number = 0
        while !rest.isEmpty {
            try await receive(Array(rest.prefix(7)))
            rest = rest.dropFirst(7)
            number += 1
            betweenPieces(number)
            if isInterrupted { throw OperatorError(.unreachable, "interrupted") }
        }
        if breaksOff { throw OperatorError(.unreachable, "connection lost") }
        response.body = []
        return response
    }

    /// The body is collected before the script sees it.
    func upload(
        _ request: APIRequest, length: UInt64?, _ next: () async throws(OperatorError) -> [UInt8]?
    ) async throws(OperatorError) -> APIResponse {
        var request = request
        var body: [UInt8] = []
        while let piece = try await next() { body += piece }
        if let length, UInt64(body.count) != length { throw OperatorError(.unreachable, "the body is not as long as it was said") }
        request.body = body
        requests.append(request)
        return try handler(request)
    }

    func interrupt() { isInterrupted = true }

    static func json(_ value: JSONValue, status: Int = 200) -> APIResponse {
        APIResponse(status: status, body: value.serialized())
    }
    static func problem(_ status: Int, _ code: String, _ detail: String) -> APIResponse {
        json(["status": .integer(Int64(status)), "code": .string(code), "detail": .string(detail)], status: status)
    }
}

final class CapturedConsole: Console {
    var output = ""
    var errors = ""
    var outputIsTerminal = false
    var errorIsTerminal = false
    var columns = 80
    var usesColour = false
    var input: [UInt8] = []
    var password: String?

    func write(_ bytes: [UInt8], toError: Bool) {
        if toError { errors += String(decoding: bytes, as: UTF8.self) } else { output += String(decoding: bytes, as: UTF8.self) }
    }
    func secret(_ prompt: String) -> String? { password }
    func readInput(limit: Int) -> [UInt8] { input }
}

/// `cmctl` with a scripted core behind it.
struct Bench {
    let console = CapturedConsole()
    let interrupts = Interrupts()
    let core: ScriptedCore
    let disk = Disk()
    var environment: [String: String] = ["CM_SERVER": "https://core:1", "CM_TOKEN": "secret"]

    init(_ handler: @escaping ScriptedCore.Handler) { core = ScriptedCore(handler) }

    func run(_ arguments: String...) async -> Outcome {
        let core = core
        let cmctl = Cmctl(
            console: console, environment: environment, interrupts: interrupts,
            files: disk.files, pause: { _ in }, connect: { _ in core })
        return await cmctl.run(arguments)
    }
}

/// Files in memory.
final class Disk {
    var content: [String: String] = [:]

    var files: LocalFiles {
        LocalFiles(
            read: { [self] in content[$0].map { Array($0.utf8) } },
            write: { [self] (path, bytes) throws(OperatorError) in content[path] = String(decoding: bytes, as: UTF8.self) },
            remove: { [self] in content[$0] = nil }, lock: { _ in true })
    }
}

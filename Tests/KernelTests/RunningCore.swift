import Glibc
import Program
import Reactor
import System
import Testing
import Transport

@testable import Kernel

/// A kernel behind a real server, on a loop of its own and a directory that outlives it.
struct RunningCore: Sendable {
    let kernel: Kernel
    let server: HTTPServer
    let loop: EventLoop

    private final class Service: HTTPService {
        let endpoint: AgentEndpoint
        init(_ endpoint: AgentEndpoint) { self.endpoint = endpoint }
        func exchangeBegan(_ exchange: HTTPExchange) { endpoint.accept(exchange) }
    }

    /// - Parameter prepare: before the kernel's own work begins.
    static func start(
        _ path: String, port: UInt16 = 0, prepare: (Kernel) throws -> Void = { _ in }
    ) async throws -> RunningCore {
        let loop = try EventLoop.start(name: "core-test")
        let kernel = try await Kernel.open(
            Kernel.Options(directory: path + "/core", certificateNames: ["localhost"]), log: .silent, metrics: Metrics())
        try prepare(kernel)
        kernel.start(on: loop)
        let server = try await HTTPServer.start(at: SocketAddress(ip: .loopback, port: port), on: [loop]) { _ in
            Service(kernel.links)
        }
        return RunningCore(kernel: kernel, server: server, loop: loop)
    }

    func stop() async {
        await kernel.close()
        server.stop()
        loop.stop()
        loop.join()
    }

    /// Of the build that the tests are of.
    static func agentProgram() throws -> String {
        var buffer = [CChar](repeating: 0, count: 4_096)
        let count = readlink("/proc/self/exe", &buffer, buffer.count - 1)
        let own = String(decoding: buffer[..<max(count, 0)].map { UInt8(bitPattern: $0) }, as: UTF8.self)
        var directory = try #require(Files.parent(of: own))
        while !Files.exists(directory + "/cm-agent") { directory = try #require(Files.parent(of: directory)) }
        return directory + "/cm-agent"
    }
}

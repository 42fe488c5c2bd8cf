import Glibc
import Kernel
import PluginHost
import Program
import Reactor
import System
import Testing
import Web

@testable import client_manager

@Suite struct CoreTests {
    private static let root = "/" + #filePath.split(separator: "/").dropLast(3).joined(separator: "/")

    /// What strangers may reach. A change of this list is a decision, not an accident.
    private static let openRoutes: Set<String> = [
        "GET /health/live", "GET /health/ready", "GET /docs", "GET /docs/app.js", "GET /docs/style.css",
        "GET /openapi.json", "POST /api/v1/sessions", "POST /api/v1/sessions/refresh",
    ]

    private func withTable(docs: Bool = true, _ body: @Sendable @escaping ([Route]) -> Void) async throws {
        let directory = "/tmp/cm-core-test-\(getpid())-\(UInt64.random(in: 0 ... .max))"
        #expect(mkdir(directory, 0o700) == 0)
        let loop = try EventLoop.start(name: "test")
        let fault: String? = await withCheckedContinuation { continuation in
            loop.spawn {
                do {
                    var options = Kernel.Options(directory: directory, certificateNames: ["localhost"])
                    options.links.coreVersion = "test"
                    options.migrations = PluginHost.migrations
                    let kernel = try await Kernel.open(options, log: .silent, metrics: Metrics())
                    let table = RouteTable()
                    let plugins = try await PluginHost.open(
                        PluginOptions(directory: directory + "/plugins", copies: directory, libraries: "", program: ""), kernel: kernel,
                        routes: table, loop: loop, forms: .api)
                    try CoreRoutes.fill(table, kernel, plugins, docs: docs)
                    body(table.routes)
                    await kernel.close()
                    continuation.resume(returning: nil)
                } catch {
                    continuation.resume(returning: "\(error)")
                }
            }
        }
        #expect(fault == nil)
        loop.stop()
        loop.join()
        try? Files.removeTree(directory)
    }

    @Test func strangersReachNothingButTheListedRoutes() async throws {
        try await withTable { routes in
            let open = routes.filter { if case .open = $0.access { true } else { false } }
            let names = Set(open.map { "\($0.method.rawValue) \($0.pattern)" })
            #expect(names == Self.openRoutes)
            #expect(routes.count > 60)
        }
    }

    @Test func aClosedDocumentationLeavesItsRoutesOut() async throws {
        try await withTable(docs: false) { routes in
            #expect(!routes.contains { $0.pattern.hasPrefix("/docs") || $0.pattern == "/openapi.json" })
        }
    }

    @Test func theConfigurationDocumentListsEachKeyAsTheCodeHasIt() throws {
        let text = String(decoding: try readSmallFile(Self.root + "/Docs/configuration.md", limit: 1 << 20), as: UTF8.self)
        #expect(text.contains(Configuration.markdown(CoreConfiguration.declarations)))
    }
}

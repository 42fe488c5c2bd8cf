import Glibc
import Kernel
import PluginHost
import Program
import Reactor
import System
import Testing
import Web

@testable import OperatorClient
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

    /// "Every API call has a verb": `cmctl api` is for what a verb does not show, not in place of one.
    @Test func everyOperationHasAVerbAndEveryVerbAnOperation() async throws {
        // `/api/v1/commands/{id}/cancel` and `/api/v1/commands/{ID}/cancel` are one.
        @Sendable func shape(_ operation: String) -> String {
            var text = ""
            var isName = false
            for character in operation {
                if character == "{" { isName = true }
                if !isName { text.append(character) }
                if character == "}" {
                    isName = false
                    text += "{}"
                }
            }
            return text
        }
        // A plugin's operations are in the document of a core that has loaded it; its own proofs call each of its verbs.
        let verbs = Set(Verb.table.flatMap(\.calls).filter { !$0.contains("/api/v1/terminal/") && !$0.contains("/api/v1/cloud/") && !$0.contains("/api/v1/installations") && !$0.contains("/api/v1/secrets") }.map(shape))
        let bare = Verb.table.filter { $0.calls.isEmpty }.map(\.name)
        #expect(
            Set(bare) == [
                "api", "cloud get", "cloud put", "completion", "logout", "shell", "shell attach", "shell recording", "upgrades key", "upgrades sign",
                "upgrades verify",
            ])
        try await withTable { routes in
            // A page for people and its parts.
            let operations = Set(
                routes.filter { !$0.pattern.hasPrefix("/docs") }.map { shape("\($0.method.rawValue) \($0.pattern)") })
            #expect(operations.subtracting(verbs).sorted() == [])
            #expect(verbs.subtracting(operations).sorted() == [])
        }
    }

    @Test func theConfigurationDocumentListsEachKeyAsTheCodeHasIt() throws {
        let text = String(decoding: try readSmallFile(Self.root + "/Docs/configuration.md", limit: 1 << 20), as: UTF8.self)
        #expect(text.contains(Configuration.markdown(CoreConfiguration.declarations)))
    }
}

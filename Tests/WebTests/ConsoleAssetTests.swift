import Kernel
import Testing

@testable import Web

@Suite struct ConsoleAssetTests {
    private func asset(_ path: String, _ type: String = "text/html", _ text: String = "<p>hi</p>") -> ConsoleAsset {
        ConsoleAsset(path: path, contentType: type, content: Array(text.utf8))
    }

    @Test func aPluginsPageIsServedUnderItsOwnPathWithAStrictPolicy() async throws {
        let web = try await WebFixture()
        let demo = try RouteOwner(plugin: "demo")
        let routes = try ConsoleAssets.routes(of: demo, [asset("index.html"), asset("js/main.js", "text/javascript", "1")])
        try web.table.apply([.set(RouteGroup(demo, routes: routes))])
        let page = try web.call("GET", "/console/plugins/demo/", token: nil).lowercased()
        #expect(page.hasPrefix("http/1.1 200") && page.hasSuffix("<p>hi</p>") && page.contains("content-type: text/html; charset=utf-8"))
        #expect(page.contains("content-security-policy: default-src 'none'; script-src 'self'") && !page.contains("unsafe"))
        #expect(try web.call("GET", "/console/plugins/demo/js/main.js", token: nil).hasSuffix("\r\n\r\n1"))
        let tag = try #require(page.split(separator: "\r\n").first { $0.hasPrefix("etag: ") }).dropFirst(6)
        let again = try web.call("GET", "/console/plugins/demo/index.html", token: nil, headers: ["If-None-Match: \(tag)"])
        #expect(again.hasPrefix("HTTP/1.1 304"))
        let changed = try ConsoleAssets.routes(of: demo, [asset("index.html", "text/html", "<p>ho</p>")])
        try web.table.apply([.set(RouteGroup(demo, routes: changed))])
        #expect(try web.call("GET", "/console/plugins/demo/index.html", token: nil, headers: ["If-None-Match: \(tag)"]).hasPrefix("HTTP/1.1 200"))
        #expect(try web.call("GET", "/console/plugins/demo/js/main.js", token: nil).hasPrefix("HTTP/1.1 404"))
    }

    @Test func anotherPluginsFolderIsNotIts() throws {
        let table = RouteTable()
        let routes = try ConsoleAssets.routes(of: RouteOwner(plugin: "one"), [asset("a.html")])
        #expect(throws: RouteRefusal.self) { try table.apply([.set(RouteGroup(try RouteOwner(plugin: "two"), routes: routes))]) }
    }

    @Test(arguments: ["../core.html", "", "/a", "a//b", "a b", "{x}", "a/"])
    func pathsArePlain(_ path: String) throws {
        let demo = try RouteOwner(plugin: "demo")
        #expect(throws: Problem.self) { try ConsoleAssets.routes(of: demo, [asset(path)]) }
    }

    @Test func kindsAndSizesAreBounded() throws {
        let demo = try RouteOwner(plugin: "demo")
        #expect(throws: Problem.self) { try ConsoleAssets.routes(of: demo, [asset("a.bin", "application/octet-stream")]) }
        let large = ConsoleAsset(path: "a.txt", contentType: "text/plain", content: [UInt8](repeating: 0, count: ConsoleAssets.maximumBytes + 1))
        #expect(throws: Problem.self) { try ConsoleAssets.routes(of: demo, [large]) }
        let full = (0..<5).map { ConsoleAsset(path: "\($0).txt", contentType: "text/plain", content: [UInt8](repeating: 0, count: 4 << 20)) }
        #expect(throws: Problem.self) { try ConsoleAssets.routes(of: demo, full) }
        #expect(throws: Problem.self) { try ConsoleAssets.routes(of: demo, (0..<129).map { asset("\($0).html") }) }
    }
}

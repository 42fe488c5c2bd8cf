import JSON
import Kernel
import Program
import Web

/// One thing that must work for the core to serve; `nil` means it does.
public struct ReadinessCheck: Sendable {
    public let name: String
    public let fault: @Sendable () async -> String?
    public init(_ name: String, fault: @escaping @Sendable () async -> String?) {
        self.name = name
        self.fault = fault
    }
}

extension Right {
    public static let readMetrics: Right = "metrics.read"
}

/// Health and metrics.
public func healthRoutes(checks: [ReadinessCheck], metrics: Metrics) -> [Route] {
    [
        Route(
            .get, "/health/live", access: .open, "The process answers.",
            answers: [Route.Answer(200, "It does.", .object([.required("status", .string())]))]
        ) { (_) async throws(Problem) in .json(["status": "live"]) },
        Route(
            .get, "/health/ready", access: .open, "The core can serve: each check by name.",
            answers: [
                Route.Answer(200, "All checks pass.", readiness), Route.Answer(503, "At least one check fails.", readiness),
            ]
        ) { (_) async throws(Problem) in
            var results = JSONObject()
            var isReady = true
            for check in checks {
                let fault = await check.fault()
                isReady = isReady && fault == nil
                results[check.name] = .string(fault ?? "ok")
            }
            return .json(
                ["status": .string(isReady ? "ready" : "not-ready"), "checks": .object(results)],
                status: isReady ? 200 : 503)
        },
        Route(
            .get, "/metrics", right: .readMetrics, "Prometheus text exposition.",
            answers: [Route.Answer(200, "Metrics.", contentType: "text/plain; version=0.0.4; charset=utf-8")]
        ) { (_) async throws(Problem) in
            Response.text(metrics.exposition(), contentType: Metrics.contentType)
        },
    ]
}

private let readiness = Schema.object([
    .required("status", .choice(["ready", "not-ready"])), .required("checks", .map(.string())),
])

/// `/openapi.json` and `/docs`, which show the routes that are in the table at the time.
public func documentRoutes(of table: RouteTable) -> [Route] {
    let page = Route(
        .get, "/docs", access: .open, "The API as a page that can try each call.",
        answers: [Route.Answer(200, "HTML.", contentType: "text/html")]
    ) { (_) async throws(Problem) in
        Response.text(DocsPage.html, contentType: "text/html; charset=utf-8")
            .with(
                "content-security-policy",
                "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
    }
    let script = asset("/docs/app.js", DocsPage.script, "text/javascript; charset=utf-8")
    let style = asset("/docs/style.css", DocsPage.style, "text/css; charset=utf-8")
    // The table holds this route.
    let document = Route(
        .get, "/openapi.json", access: .open, "This API as an OpenAPI 3.1 document.",
        answers: [Route.Answer(200, "The document.", .any())]
    ) { [weak table] (_) async throws(Problem) in
        guard let document = table?.document() else { throw .notFound("the server is stopping") }
        return .json(bytes: document.bytes).tagged(document.tag)
    }
    return [page, script, style, document]
}

private func asset(_ pattern: String, _ text: String, _ contentType: String) -> Route {
    Route(
        .get, pattern, access: .open, "An asset of /docs.",
        answers: [Route.Answer(200, "The asset.", contentType: contentType)]
    ) { (_) async throws(Problem) in
        Response.text(text, contentType: contentType).with("cache-control", "public, max-age=300")
    }
}

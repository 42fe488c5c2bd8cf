import CPluginABI
import JSON
import PluginKit
import PluginService

/// A plugin in Swift: one route, one service, one kind of job.
///
///     GET /api/v1/helloswift/{name}   greets
///     com.example.helloswift/1        greets for other plugins (Service.swift)
///     helloswift.count                a job that counts to ten
///
/// All of it runs on the plugin's own thread, so its state needs no lock.
final class Hello: Plugin {
    private let log: Log

    init(loading host: Host) throws(PluginError) {
        log = host.log
        let greeting = try host.configuration().text("/greeting") ?? "Hello"

        try host.services().publish(HELLOSWIFT_SERVICE, GreetingService.table(greeting: greeting))

        try host.http().route(
            Route(.get, "/api/v1/helloswift/{name}", right: "helloswift.read", summary: "Greets somebody.")
        ) { request, _ in
            request.respond(json: ["greeting": .string("\(greeting), \(request.parameter("name") ?? "you")!")] as JSONObject)
        }

        // Where jobs are not granted, or the core has none, the rest works without.
        guard let jobs = try? host.jobs() else { return }
        try jobs.kind(JobKind("helloswift.count", summary: "Counts to ten.", .idempotent)) { attempt in
            for step in 1...10 { attempt.progress(UInt32(step) * 100, "counting") }
            attempt.log("counted to ten")
            attempt.succeed(["counted": 10])
        }
    }

    func start() throws(PluginError) {
        log.info("helloswift.started")
    }
}

/// `pluginID` and `pluginVersion` come from plugin.json.
private let entry = PluginEntry(Hello.self, id: pluginID, version: pluginVersion)

/// The one exported symbol.
@c @implementation
public func cm_plugin_entry(_ hostMajor: UInt32, _ hostMinor: UInt32) -> UnsafePointer<cm_plugin>? {
    entry.table(hostMajor)
}

import Kernel
import Transport

/// A file of a plugin's console page, kept in memory.
public struct ConsoleAsset: Sendable {
    /// Below `/console/plugins/ID/`: `page/main.js`. `index.html` is also served at the folder itself.
    public let path: String
    public let contentType: String
    public let content: [UInt8]

    public init(path: String, contentType: String, content: [UInt8]) {
        self.path = path
        self.contentType = contentType
        self.content = content
    }
}

/// The routes of a plugin's console page. They are open, as a browser loads pages without credentials: they hold no data,
/// and what they may load and reach is this server alone.
public enum ConsoleAssets {
    public static let maximumBytes = 4 << 20
    public static let maximumTotalBytes = 16 << 20
    public static let maximumCount = 128

    /// What pages are made of. Nothing that would need a looser policy.
    static let contentTypes: Set<String> = [
        "text/html", "text/css", "text/javascript", "text/plain", "application/json", "image/svg+xml", "image/png",
        "image/jpeg", "image/webp", "image/x-icon", "font/woff2",
    ]

    private static let policy =
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        + "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

    /// Where a plugin's assets are; it need not be granted this.
    static func prefix(of owner: RouteOwner) -> String { "/console/plugins/\(owner.id)" }

    /// Throws what is wrong with an asset, by its path.
    public static func routes(of owner: RouteOwner, _ assets: [ConsoleAsset]) throws(Problem) -> [Route] {
        guard assets.count <= maximumCount else {
            throw .invalid("\(assets.count) console assets; at most \(maximumCount) are allowed")
        }
        let total = assets.reduce(0) { $0 + $1.content.count }
        guard total <= maximumTotalBytes else {
            throw .invalid("the console assets have \(total) bytes; at most \(maximumTotalBytes) are allowed")
        }
        var routes: [Route] = []
        for asset in assets {
            let pattern = prefix(of: owner) + "/" + asset.path
            if let fault = RoutePattern.fault(pattern) {
                throw .invalid("the console asset \"\(asset.path.prefix(256))\": \(fault)")
            }
            guard !asset.path.contains("{") else {
                throw .invalid("the console asset \"\(asset.path)\" has a brace in its path")
            }
            let type = String(asset.contentType.prefix { $0 != ";" })
            guard contentTypes.contains(type) else {
                throw .invalid("the console asset \"\(asset.path)\" is \(asset.contentType.prefix(64)); allowed are \(contentTypes.sorted().joined(separator: ", "))")
            }
            guard asset.content.count <= maximumBytes else {
                throw .invalid("the console asset \"\(asset.path)\" has \(asset.content.count) bytes; at most \(maximumBytes) are allowed")
            }
            routes.append(route(pattern, asset, type))
            if asset.path == "index.html" { routes.append(route(prefix(of: owner), asset, type)) }
        }
        return routes
    }

    private static func route(_ pattern: String, _ asset: ConsoleAsset, _ type: String) -> Route {
        let isText = type.hasPrefix("text/") || type == "application/json" || type == "image/svg+xml"
        let headers: HTTPHeaders = [
            "content-type": isText ? type + "; charset=utf-8" : type, "content-security-policy": policy,
            "etag": "\"\(tag(asset.content))\"", "cache-control": "no-cache",
            "cross-origin-resource-policy": "same-origin",
        ]
        return Route(
            .get, pattern, access: .open, "A console asset.", answers: [Route.Answer(200, "The asset.", contentType: type)]
        ) { (_) async throws(Problem) in Response(status: 200, headers: headers, body: .bytes(asset.content)) }
    }

    /// Length and FNV-1a: tells the versions of one file apart, whose maker has no reason to make them collide.
    private static func tag(_ bytes: [UInt8]) -> String {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in bytes { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
        return String(bytes.count, radix: 16) + "-" + String(hash, radix: 16)
    }
}

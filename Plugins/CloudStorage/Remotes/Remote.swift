import JSON

/// A named place in a store: how to reach it, and who may. Without its credentials.
struct Remote: Sendable, Equatable {
    enum Kind: String, Sendable { case s3, webdav }
    enum Style: String, Sendable { case path, virtual }
    /// How the payload of an upload to S3 is signed.
    enum Payload: String, Sendable { case signed, streaming, unsigned }
    /// What proves that bytes arrived as they were sent.
    enum Check: String, Sendable { case md5, sha256, size }

    var name = ""
    var kind = Kind.s3
    /// `https://s3.example:9000`, for WebDAV with the path of the collection.
    var endpoint = ""
    var region = "us-east-1"
    var bucket = ""
    /// Put before every key; nobody gets out of it.
    var prefix = ""
    var style = Style.path
    var payload = Payload.signed
    var check = Check.md5
    /// Rights on it are `AREA.read` and `AREA.write`.
    var area = "cloud"
    var isReadOnly = false
    /// Other plugins may use it, by the service.
    var isForServices = false
    /// Without TLS to another machine.
    var isPlainAllowed = false
    var web = WebOptions()
    var attempts = 5
    var partBytes = 8 << 20
    var parallel = 4
    /// Larger objects are copied in parts.
    var copyLimit: Int64 = 5 << 30

    var readRight: String { area + ".read" }
    var writeRight: String { area + ".write" }

    static let members: Set<String> = [
        "name", "kind", "endpoint", "region", "bucket", "prefix", "style", "payload", "check", "area", "read_only", "services", "allow_plain",
        "ca", "proxy", "connect_s", "stall_s", "attempts", "part_bytes", "parallel", "copy_part_from_bytes",
    ]

    /// From the body of a request, or from the record.
    init(_ json: JSONObject, name: String) throws(CloudError) {
        self.name = name
        guard Self.isName(name) else { throw .invalid("a remote's name is 1 to 64 of a-z, 0-9, - and _, not \"\(name.prefix(64))\"") }
        kind = try Self.choice(json, "kind", Kind.s3)
        endpoint = try Self.text(json, "endpoint", limit: 1_024) ?? ""
        region = try Self.text(json, "region") ?? region
        bucket = try Self.text(json, "bucket") ?? ""
        prefix = try Self.text(json, "prefix", limit: 512) ?? ""
        style = try Self.choice(json, "style", style)
        payload = try Self.choice(json, "payload", payload)
        check = try Self.choice(json, "check", kind == .s3 ? .md5 : .size)
        area = try Self.text(json, "area") ?? area
        isReadOnly = try Self.flag(json, "read_only") ?? false
        isForServices = try Self.flag(json, "services") ?? false
        isPlainAllowed = try Self.flag(json, "allow_plain") ?? false
        web.authorities = try Self.text(json, "ca", limit: 256 << 10)
        web.proxy = try Self.text(json, "proxy", limit: 1_024) ?? ""
        web.connectSeconds = try Self.number(json, "connect_s", 10, 1...300)
        web.stallSeconds = try Self.number(json, "stall_s", 60, 1...3_600)
        attempts = try Self.number(json, "attempts", 5, 1...20)
        partBytes = try Self.number(json, "part_bytes", 8 << 20, (5 << 20)...(64 << 20))
        parallel = try Self.number(json, "parallel", 4, 1...8)
        copyLimit = Int64(try Self.number(json, "copy_part_from_bytes", 5 << 30, (5 << 20)...(5 << 30)))
        try judge()
    }

    private func judge() throws(CloudError) {
        guard let address = Address(endpoint) else {
            throw .invalid("\"endpoint\" must be http://HOST[:PORT] or https://HOST[:PORT], with a path for WebDAV only")
        }
        guard address.isSecure || address.isLoopback || isPlainAllowed else {
            throw .invalid("\"endpoint\" without TLS needs \"allow_plain\": true")
        }
        let isArea = (1...40).contains(area.utf8.count) && area.utf8.allSatisfy { (0x61...0x7A).contains($0) || (0x30...0x39).contains($0) || $0 == 0x2D }
        guard isArea else { throw .invalid("\"area\" is 1 to 40 of a-z, 0-9 and -") }
        guard !prefix.hasPrefix("/") else { throw .invalid("\"prefix\" does not begin with a slash") }
        if kind == .s3 {
            guard address.path.isEmpty else { throw .invalid("\"endpoint\" of an S3 store has no path; use \"bucket\" and \"prefix\"") }
            let isBucket = (3...63).contains(bucket.utf8.count)
                && bucket.utf8.allSatisfy { (0x61...0x7A).contains($0) || (0x30...0x39).contains($0) || $0 == 0x2D || $0 == 0x2E || $0 == 0x5F }
            guard isBucket else { throw .invalid("\"bucket\" is 3 to 63 of a-z, 0-9, - and .") }
            guard check != .size else { throw .invalid("\"check\" of an S3 store is \"md5\" or \"sha256\"") }
            guard (1...64).contains(region.utf8.count), region.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F && $0 != 0x2F }) else {
                throw .invalid("\"region\" is 1 to 64 printable characters without a slash")
            }
        } else {
            guard bucket.isEmpty else { throw .invalid("a WebDAV store has no \"bucket\"; put the path into \"endpoint\"") }
            guard prefix.isEmpty || prefix.hasSuffix("/") else { throw .invalid("\"prefix\" of a WebDAV store ends with a slash") }
        }
    }

    /// All but the credentials.
    var json: JSONObject {
        var json: JSONObject = [
            "name": .string(name), "kind": .string(kind.rawValue), "endpoint": .string(endpoint), "prefix": .string(prefix),
            "check": .string(check.rawValue), "area": .string(area), "read_only": .bool(isReadOnly), "services": .bool(isForServices), "allow_plain": .bool(isPlainAllowed),
            "connect_s": .integer(Int64(web.connectSeconds)), "stall_s": .integer(Int64(web.stallSeconds)),
            "attempts": .integer(Int64(attempts)), "part_bytes": .integer(Int64(partBytes)), "parallel": .integer(Int64(parallel)),
        ]
        if kind == .s3 {
            json["region"] = .string(region)
            json["bucket"] = .string(bucket)
            json["style"] = .string(style.rawValue)
            json["payload"] = .string(payload.rawValue)
            json["copy_part_from_bytes"] = .integer(copyLimit)
        }
        if let authorities = web.authorities { json["ca"] = .string(authorities) }
        if !web.proxy.isEmpty { json["proxy"] = .string(web.proxy) }
        return json
    }

    var withoutPrefix: Remote {
        var copy = self
        copy.prefix = ""
        return copy
    }

    static func isName(_ text: String) -> Bool {
        (1...64).contains(text.utf8.count)
            && text.utf8.allSatisfy { (0x61...0x7A).contains($0) || (0x30...0x39).contains($0) || $0 == 0x2D || $0 == 0x5F }
    }

    // MARK: Reading members

    static func text(_ json: JSONObject, _ name: String, limit: Int = 256) throws(CloudError) -> String? {
        guard let value = json[name], !value.isNull else { return nil }
        guard let text = value.string, text.utf8.count <= limit else { throw .invalid("\"\(name)\" must be a text of at most \(limit) bytes") }
        return text
    }

    static func flag(_ json: JSONObject, _ name: String) throws(CloudError) -> Bool? {
        guard let value = json[name] else { return nil }
        guard let flag = value.bool else { throw .invalid("\"\(name)\" must be true or false") }
        return flag
    }

    static func number(_ json: JSONObject, _ name: String, _ normal: Int, _ range: ClosedRange<Int>) throws(CloudError) -> Int {
        guard let value = json[name] else { return normal }
        guard let number = value.integer, range.contains(Int(number)) else {
            throw .invalid("\"\(name)\" must be a whole number from \(range.lowerBound) to \(range.upperBound)")
        }
        return Int(number)
    }

    private static func choice<Choice: RawRepresentable<String>>(_ json: JSONObject, _ name: String, _ normal: Choice) throws(CloudError) -> Choice {
        guard let text = try text(json, name) else { return normal }
        guard let choice = Choice(rawValue: text) else { throw .invalid("\"\(name)\" cannot be \"\(text.prefix(32))\"") }
        return choice
    }
}

/// What a remote is signed in with. Sealed at rest; in no answer, log line, event or audit record.
struct Credentials: Sendable {
    static let members: Set<String> = ["access_key", "secret_key", "session_token", "user", "password", "token"]

    /// S3.
    var accessKey = ""
    var secretKey = ""
    var sessionToken: String?
    /// WebDAV: a name with its password, or a bearer token.
    var user = ""
    var password = ""
    var token: String?

    init(_ json: JSONObject) throws(CloudError) {
        accessKey = try Self.printable(json, "access_key") ?? ""
        secretKey = try Self.printable(json, "secret_key") ?? ""
        sessionToken = try Self.printable(json, "session_token", 8_192)
        user = try Remote.text(json, "user") ?? ""
        password = try Remote.text(json, "password", limit: 1_024) ?? ""
        token = try Self.printable(json, "token", 8_192)
    }

    /// Goes into headers, so it must be fit for them.
    private static func printable(_ json: JSONObject, _ name: String, _ limit: Int = 256) throws(CloudError) -> String? {
        let text = try Remote.text(json, name, limit: limit)
        guard let text else { return nil }
        guard text.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else { throw .invalid("\"\(name)\" must be printable ASCII without spaces") }
        return text
    }

    func judge(for kind: Remote.Kind) throws(CloudError) {
        switch kind {
        case .s3:
            guard !accessKey.isEmpty, !secretKey.isEmpty else { throw .invalid("an S3 store needs \"access_key\" and \"secret_key\"") }
        case .webdav:
            guard token != nil || !user.isEmpty else { throw .invalid("a WebDAV store needs \"user\" and \"password\", or \"token\"") }
        }
    }

    var json: JSONObject {
        var json: JSONObject = [:]
        for (name, value) in [("access_key", accessKey), ("secret_key", secretKey), ("user", user), ("password", password)] where !value.isEmpty {
            json[name] = .string(value)
        }
        if let sessionToken { json["session_token"] = .string(sessionToken) }
        if let token { json["token"] = .string(token) }
        return json
    }
}

/// `scheme://host[:port][/path]`, taken apart.
struct Address: Sendable, Equatable {
    let isSecure: Bool
    let host: String
    /// As it stands in `Host`: without the scheme's own port.
    let authority: String
    /// Percent-encoded, without a slash at its end.
    let path: String

    init?(_ text: String) {
        let rest: Substring
        if text.hasPrefix("https://") {
            isSecure = true
            rest = text.dropFirst(8)
        } else if text.hasPrefix("http://") {
            isSecure = false
            rest = text.dropFirst(7)
        } else {
            return nil
        }
        guard rest.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F && $0 != 0x40 && $0 != 0x3F && $0 != 0x23 && $0 != 0x5C }) else { return nil }
        let authority = rest.prefix { $0 != "/" }.lowercased()
        var path = String(rest.dropFirst(authority.utf8.count))
        while path.hasSuffix("/") { path.removeLast() }
        guard !path.split(separator: "/").contains(where: { $0 == "." || $0 == ".." }) else { return nil }
        self.path = path
        let colon = authority.hasSuffix("]") ? nil : authority.lastIndex(of: ":")
        host = String(colon.map { authority[..<$0] } ?? authority[...])
        guard !host.isEmpty else { return nil }
        if let colon {
            guard let port = Int(authority[authority.index(after: colon)...]), (1...65_535).contains(port) else { return nil }
            self.authority = port == (isSecure ? 443 : 80) ? host : authority
        } else {
            self.authority = host
        }
    }

    var scheme: String { isSecure ? "https" : "http" }
    var isLoopback: Bool {
        if host == "localhost" || host == "[::1]" { return true }
        let parts = host.split(separator: ".", omittingEmptySubsequences: false)
        return parts.count == 4 && parts[0] == "127" && parts.allSatisfy { UInt8($0) != nil }
    }
}

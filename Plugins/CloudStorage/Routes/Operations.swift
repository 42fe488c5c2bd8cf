import JSON

/// What the OpenAPI document says of the routes.
enum Operations {
    private static let text: JSONValue = ["type": "string"]
    private static let number: JSONValue = ["type": "integer"]
    private static let texts: JSONValue = ["type": "object", "additionalProperties": ["type": "string"]]

    private static func object(_ properties: JSONObject, required: [JSONValue] = []) -> JSONValue {
        var schema: JSONObject = ["type": "object", "properties": .object(properties)]
        if !required.isEmpty { schema["required"] = .array(required) }
        return .object(schema)
    }

    private static func answer(_ description: String, _ schema: JSONValue? = nil) -> JSONValue {
        guard let schema else { return ["description": .string(description)] }
        return ["description": .string(description), "content": ["application/json": ["schema": schema]]]
    }

    /// - Parameter type: `*/*`: what the store says that it is.
    private static func bytes(_ description: String, type: String) -> JSONValue {
        ["description": .string(description), "content": .object([type: [:]])]
    }

    private static func body(_ schema: JSONValue) -> JSONValue { ["content": ["application/json": ["schema": schema]]] }

    private static func query(_ name: String, _ type: String, _ description: String, required: Bool = false) -> JSONValue {
        [
            "name": .string(name), "in": "query", "description": .string(description), "required": .bool(required),
            "schema": ["type": .string(type)],
        ]
    }

    private static func header(_ name: String, _ description: String) -> JSONValue {
        ["name": .string(name), "in": "header", "description": .string(description), "schema": text]
    }

    private static func list(_ item: JSONValue) -> JSONValue {
        ["type": "object", "properties": ["items": ["type": "array", "items": item], "next": ["type": ["string", "null"]]]]
    }

    private static let remoteSchema = object([
        "name": text, "kind": ["enum": ["s3", "webdav"]], "endpoint": text, "region": text, "bucket": text, "prefix": text,
        "style": ["enum": ["path", "virtual"]], "payload": ["enum": ["signed", "streaming", "unsigned"]],
        "check": ["enum": ["md5", "sha256", "size"]], "area": text, "read_only": ["type": "boolean"], "services": ["type": "boolean"], "allow_plain": ["type": "boolean"],
        "ca": text, "proxy": text, "connect_s": number, "stall_s": number, "attempts": number, "part_bytes": number, "parallel": number,
        "copy_part_from_bytes": number,
    ])
    private static let objectSchema = object([
        "key": text, "size": number, "modified_ms": number, "etag": text, "content_type": text, "metadata": texts, "md5": text,
        "sha256": text, "folder": ["type": "boolean"],
    ])
    private static let stored = object(["size": number, "etag": text, "sha256": text, "verified": text, "parts": number])
    private static let keyQuery = query("key", "string", "The object's key.", required: true)

    static let remotes: JSONObject = ["responses": ["200": answer("Remotes.", list(remoteSchema))]]
    static let remote: JSONObject = ["responses": ["200": answer("The remote.", remoteSchema)]]
    static let makeRemote: JSONObject = [
        "requestBody": body(
            object(
                (remoteSchema["properties"]?.object ?? [:]).merged([
                    "access_key": text, "secret_key": text, "session_token": text, "user": text, "password": text, "token": text,
                ]))), "responses": ["201": answer("The remote, without its credentials.", remoteSchema)],
    ]
    static let list: JSONObject = [
        "parameters": [
            query("prefix", "string", "Only keys that begin so."), query("recursive", "boolean", "true: all keys; else folders stand for what is in them."),
            query("limit", "integer", "Size of the page, at most 1,000."), query("cursor", "string", "`next` of the page before."),
        ], "responses": ["200": answer("A page.", list(objectSchema))],
    ]
    static let key: JSONObject = ["parameters": [keyQuery], "responses": ["200": answer("As asked.", objectSchema)]]
    static let read: JSONObject = [
        "parameters": [keyQuery, header("range", "bytes=FIRST-LAST")],
        "responses": ["200": bytes("The content.", type: "*/*"), "206": bytes("The part that was asked for.", type: "*/*")],
    ]
    static let write: JSONObject = [
        "parameters": [
            keyQuery, query("offset", "integer", "Goes on with the upload that was broken off there; see GET …/upload."),
            header("x-cloud-metadata", "A JSON object of texts."), header("x-cloud-tags", "A JSON object of texts."),
        ], "requestBody": ["content": ["application/octet-stream": ["schema": [:]]]],
        "responses": ["201": answer("It is in the store, whole and compared.", stored)],
    ]
    static let removeMany: JSONObject = [
        "requestBody": body(object(["keys": ["type": "array", "items": text]], required: ["keys"])),
        "responses": ["200": answer("What became of them.", object(["removed": number, "failed": ["type": "array", "items": ["type": "object"]]]))],
    ]
    static let copy: JSONObject = [
        "requestBody": body(object(["from": text, "to": text, "content_type": text, "metadata": texts], required: ["from", "to"])),
        "responses": ["200": answer("The copy.", objectSchema)],
    ]
    static let move: JSONObject = [
        "requestBody": body(object(["from": text, "to": text], required: ["from", "to"])), "responses": ["204": answer("Renamed.")],
    ]
    static let folder: JSONObject = [
        "requestBody": body(object(["key": text], required: ["key"])), "responses": ["201": answer("Made.", object(["key": text]))],
    ]
    static let setTags: JSONObject = [
        "parameters": [keyQuery], "requestBody": body(object(["tags": texts], required: ["tags"])), "responses": ["204": answer("Set.")],
    ]
    static let presign: JSONObject = [
        "requestBody": body(object(["key": text, "method": ["enum": ["GET", "PUT"]], "expires_s": number], required: ["key"])),
        "responses": ["201": answer("The URL.", object(["url": text, "method": text, "expires_s": number]))],
    ]
    private static let tree: JSONValue = [
        "type": "object", "properties": ["remote": text, "prefix": text, "client": text, "path": text],
        "description": "A remote with a prefix, or a client with the absolute path of a directory; one of both sides is a remote.",
    ]
    private static let place = object(["remote": text, "key": text, "file": text, "client": text, "path": text])
    private static let job = answer("Accepted; watch the job.", object(["job": text]))
    static let sync: JSONObject = [
        "requestBody": body(
            object(
                [
                    "from": tree, "to": tree, "compare": ["enum": ["time", "size", "hash"]], "delete": ["type": "boolean"],
                    "dry_run": ["type": "boolean"], "include": ["type": "array", "items": text], "exclude": ["type": "array", "items": text],
                ], required: ["from", "to"])), "responses": ["202": job],
    ]
    static let copyJob: JSONObject = [
        "requestBody": body(object(
            [
                "from": place, "to": place,
                "way": ["enum": ["relay", "direct", "auto"], "default": "relay", "description": "From or to a client: by way of the core, or by the client itself with a presigned URL."],
                "verify": ["enum": ["hash", "size"], "default": "hash", "description": "Of a direct copy: hash reads the object once more."],
            ], required: ["from", "to"])), "responses": ["202": job],
    ]
    static let report: JSONObject = ["responses": ["200": bytes("One line for each act: act, key, size, reason.", type: "application/jsonl")]]
    static let uploads: JSONObject = [
        "responses": ["200": answer("Uploads.", list(object(["remote": text, "key": text, "size": number, "part_bytes": number, "started_ms": number, "by": text])))]
    ]
}

extension JSONObject {
    func merged(_ other: JSONObject) -> JSONObject {
        var result = self
        for member in other { result[member.key] = member.value }
        return result
    }
}

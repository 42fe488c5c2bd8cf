import JSON

/// What the OpenAPI document says of the routes.
enum Operations {
    private static let text: JSONValue = ["type": "string"]
    private static let number: JSONValue = ["type": "integer"]
    private static let texts: JSONValue = ["type": "object", "additionalProperties": ["type": "string"]]

    private static let installation: JSONValue = [
        "type": "object", "required": ["id", "action", "host", "port", "user", "state", "job"],
        "properties": [
            "id": text, "action": ["enum": ["install", "upgrade", "repair", "uninstall"]], "host": text, "port": number, "user": text,
            "jump": text, "server": text, "owner": text, "step": text, "client": text, "host_key": text, "agent_version": text,
            "state": ["enum": ["waiting", "running", "succeeded", "failed", "cancelled", "needs-credentials"]],
            "job": ["type": "string", "description": "Its job; the live log is GET /api/v1/jobs/{id}/logs."],
            "code": text, "reason": text, "created_ms": number, "started_ms": number, "ended_ms": number,
        ],
    ]

    private static let credentials: JSONValue = [
        "type": "object", "additionalProperties": false,
        "description": "Kept in memory until the job is over, and nowhere else.",
        "properties": [
            "password": ["type": "string", "writeOnly": true], "private_key": ["type": "string", "writeOnly": true],
            "passphrase": ["type": "string", "writeOnly": true], "sudo_password": ["type": "string", "writeOnly": true],
            "agent": ["type": "boolean", "description": "The SSH agent of the plugin's configuration is asked."],
        ],
    ]
    private static let hostKey: JSONValue = [
        "type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": false,
        "properties": [
            "known_hosts": ["type": "string", "description": "Lines of a known_hosts file."],
            "fingerprint": ["type": "string", "description": "SHA256:…; several with commas between."],
            "trust_first_use": ["const": true],
        ],
    ]
    private static let place: JSONValue = [
        "type": "object", "required": ["host"], "additionalProperties": false,
        "properties": [
            "host": text, "port": number, "user": text, "host_key": hostKey, "credentials": credentials, "labels": texts, "facts": texts,
        ],
    ]

    private static func body(_ schema: JSONValue) -> JSONValue {
        ["required": true, "content": ["application/json": ["schema": schema]]]
    }

    private static func answer(_ description: String, _ schema: JSONValue? = nil) -> JSONValue {
        guard let schema else { return ["description": .string(description)] }
        return ["description": .string(description), "content": ["application/json": ["schema": schema]]]
    }

    private static func query(_ name: String, _ type: String, _ description: String) -> JSONValue {
        ["name": .string(name), "in": "query", "description": .string(description), "schema": ["type": .string(type)]]
    }

    private static func page(_ item: JSONValue) -> JSONValue {
        ["type": "object", "properties": ["items": ["type": "array", "items": item], "next": ["type": ["string", "null"]]]]
    }

    static let create: JSONObject = [
        "requestBody": body([
            "type": "object", "required": ["hosts", "host_key", "credentials"], "additionalProperties": false,
            "properties": [
                "action": ["enum": ["install", "upgrade", "repair", "uninstall"], "default": "install"],
                "hosts": ["type": "array", "minItems": 1, "maxItems": 256, "items": ["anyOf": [text, place]]],
                "port": number, "user": text, "host_key": hostKey, "credentials": credentials, "jump": place,
                "server": ["type": "string", "description": "Where the agent finds this core; without it what agents.url says."],
                "labels": texts, "facts": texts,
                "run_as": ["type": "string", "description": "The agent runs as this user, confined; without it as root."],
                "release_key": ["type": "string", "description": "PEM of the public key whose releases the agents take; fixed with the first installation."],
                "wait_s": number,
            ],
        ]),
        "responses": [
            "202": answer(
                "Accepted, each host with a job of its own.",
                [
                    "type": "object",
                    "properties": ["items": ["type": "array", "items": installation], "refused": ["type": "array", "items": ["type": "object"]]],
                ])
        ],
    ]
    static let list: JSONObject = [
        "parameters": [query("limit", "integer", "1 to 1,000; 100 without it."), query("cursor", "string", "`next` of the page before.")],
        "responses": ["200": answer("A page.", page(installation))],
    ]
    static let show: JSONObject = ["responses": ["200": answer("The installation.", installation)]]
    static let goOn: JSONObject = [
        "requestBody": body([
            "type": "object", "required": ["credentials"], "additionalProperties": false,
            "properties": ["credentials": credentials, "jump": ["type": "object", "properties": ["credentials": credentials]]],
        ]),
        "responses": ["202": answer("It goes on with a new job.", installation)],
    ]
    static let remove: JSONObject = ["responses": ["204": answer("Removed.")]]
    static let hostKeys: JSONObject = [
        "parameters": [query("cursor", "string", "`next` of the page before.")],
        "responses": ["200": answer("A page.", page(["type": "object", "properties": ["host": text, "key": text]]))],
    ]
}

import JSON

/// What the OpenAPI document says of the routes.
enum Operations {
    private static let text: JSONValue = ["type": "string"]
    private static let number: JSONValue = ["type": "integer"]
    private static let flag: JSONValue = ["type": "boolean"]
    private static let texts: JSONValue = ["type": "array", "items": ["type": "string"]]

    private static let secretSchema: JSONValue = [
        "type": "object",
        "properties": [
            "name": text, "summary": text, "created_ms": number, "current": number, "next": number, "previous": number, "shared": flag,
            "assignments": number, "source": ["type": "object"],
            "versions": [
                "type": "array",
                "items": [
                    "type": "object",
                    "properties": [
                        "version": number, "state": ["enum": ["current", "next", "previous", "kept"]], "created_ms": number, "by": text,
                        "bytes": number,
                    ],
                ],
            ],
        ],
    ]
    private static let assignmentSchema: JSONValue = [
        "type": "object",
        "properties": [
            "id": text, "secret": text, "selector": text, "file": text, "owner": text, "group": text, "mode": text, "lifetime_s": number,
            "hook": texts, "created_ms": number, "by": text,
        ],
    ]
    private static let clientSchema: JSONValue = [
        "type": "object",
        "properties": [
            "client": text, "online": flag, "assignment": text, "slot": ["enum": ["current", "next", "previous"]], "file": text, "path": text,
            "state": ["enum": ["wanted", "delivered", "applied", "failed", "removing"]], "wanted": number, "placed": number,
            "updated_ms": number, "confirmed_ms": number, "code": text, "reason": text, "retry_ms": number,
        ],
    ]
    private static let rotationSchema: JSONValue = [
        "type": "object",
        "properties": [
            "id": text, "version": number, "old": number, "by": text, "job": text, "started_ms": number, "ended_ms": number,
            "phase": ["enum": ["staging", "switching", "overlap", "returning", "succeeded", "failed"]], "since_ms": number, "percent": number,
            "timeout_s": number, "overlap_s": number, "count_offline": flag, "code": text, "reason": text,
        ],
    ]

    private static func answer(_ status: String, _ description: String, _ schema: JSONValue? = nil) -> JSONValue {
        var answer: JSONObject = ["description": .string(description)]
        if let schema { answer["content"] = ["application/json": ["schema": schema]] }
        return .object([status: .object(answer)] as JSONObject)
    }

    private static func body(_ required: JSONValue, _ properties: JSONValue) -> JSONValue {
        ["content": ["application/json": ["schema": ["type": "object", "required": required, "properties": properties]]]]
    }

    private static func list(_ item: JSONValue) -> JSONValue {
        ["type": "object", "properties": ["items": ["type": "array", "items": item], "next": ["type": ["string", "null"]]]]
    }

    private static func query(_ name: String, _ type: String, _ description: String) -> JSONValue {
        ["name": .string(name), "in": "query", "description": .string(description), "schema": ["type": .string(type)]]
    }

    private static let paging: [JSONValue] = [
        query("limit", "integer", "Items of a page, 1 to 1,000."), query("cursor", "string", "`next` of the page before."),
    ]

    static let secrets: JSONObject = ["parameters": .array(paging), "responses": answer("200", "A page.", list(secretSchema))]
    static let create: JSONObject = [
        "requestBody": body(
            ["name"],
            [
                "name": text, "summary": text, "shared": flag, "value": text, "value_base64": text, "source": text, "refresh_s": number,
            ]), "responses": answer("201", "It is kept, sealed.", secretSchema),
    ]
    static let secret: JSONObject = ["responses": answer("200", "The secret.", secretSchema)]
    static let change: JSONObject = [
        "requestBody": body([], ["summary": text, "shared": flag, "refresh_s": number]), "responses": answer("200", "As it is now.", secretSchema),
    ]
    static let remove: JSONObject = ["responses": answer("204", "Destroyed; files on clients that are away go when they come back.")]
    static let refresh: JSONObject = ["responses": answer("202", "The source is asked.", secretSchema)]
    static let add: JSONObject = [
        "requestBody": body([], ["value": text, "value_base64": text, "activate": flag]), "responses": answer("201", "The secret with it.", secretSchema),
    ]
    static let value: JSONObject = [
        "responses": answer(
            "200", "The value; base64 where it is no text.",
            ["type": "object", "properties": ["name": text, "version": number, "value": text, "value_base64": text]])
    ]
    static let removeVersion: JSONObject = ["responses": answer("204", "Destroyed.")]
    static let activate: JSONObject = [
        "requestBody": body(["version"], ["version": number]), "responses": answer("200", "As it is now.", secretSchema),
    ]
    static let rotate: JSONObject = [
        "requestBody": body(
            [],
            [
                "value": text, "value_base64": text, "version": number, "percent": number, "timeout_s": number, "overlap_s": number,
                "count_offline": flag,
            ]), "responses": answer("202", "The rotation; `job` is the job to look at.", rotationSchema),
    ]
    static let rotation: JSONObject = ["responses": answer("200", "The rotation.", rotationSchema)]
    static let assignments: JSONObject = ["responses": answer("200", "All of them.", list(assignmentSchema))]
    static let assign: JSONObject = [
        "requestBody": body(
            ["selector"],
            ["selector": text, "file": text, "owner": text, "group": text, "mode": text, "lifetime_s": number, "hook": texts]),
        "responses": answer("201", "It is kept; delivery begins.", assignmentSchema),
    ]
    static let revoke: JSONObject = ["responses": answer("204", "Revoked; files on clients that are away go when they come back.")]
    static let clients: JSONObject = [
        "parameters": .array(paging + [query("state", "string", "Only files in this state.")]),
        "responses": answer("200", "A page, by client.", list(clientSchema)),
    ]
    static let commands: JSONObject = [
        "requestBody": [
            "description": "As POST /api/v1/commands, and `secrets`.",
            "content": [
                "application/json": [
                    "schema": [
                        "type": "object", "required": ["secrets"],
                        "properties": [
                            "secrets": [
                                "type": "object",
                                "additionalProperties": [
                                    "oneOf": [text, ["type": "object", "properties": ["secret": text, "version": number]]]
                                ],
                            ]
                        ],
                    ]
                ]
            ],
        ], "responses": answer("202", "Accepted.", ["type": "object", "properties": ["id": text]]),
    ]
}

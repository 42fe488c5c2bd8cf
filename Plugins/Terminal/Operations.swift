import JSON

/// What the OpenAPI document says of the routes.
enum Operations {
    private static let session: JSONValue = [
        "type": "object",
        "properties": [
            "id": text, "client": text, "owner": text, "program": text, "state": text, "opened_ms": number, "rows": number,
            "columns": number, "recorded": ["type": "boolean"], "viewers": ["type": "array", "items": ["type": "object"]],
        ],
    ]
    private static let text: JSONValue = ["type": "string"]
    private static let number: JSONValue = ["type": "integer"]

    private static func answer(_ description: String, _ schema: JSONValue? = nil) -> JSONValue {
        guard let schema else { return ["description": .string(description)] }
        return ["description": .string(description), "content": ["application/json": ["schema": schema]]]
    }

    private static func query(_ name: String, _ type: String, _ description: String) -> JSONValue {
        ["name": .string(name), "in": "query", "description": .string(description), "schema": ["type": .string(type)]]
    }

    private static func list(_ item: JSONValue) -> JSONValue {
        ["type": "object", "properties": ["items": ["type": "array", "items": item], "next": ["type": ["string", "null"]]]]
    }

    static let open: JSONObject = [
        "requestBody": [
            "content": [
                "application/json": [
                    "schema": [
                        "type": "object", "required": ["client"],
                        "properties": [
                            "client": text, "argv": ["type": "array", "items": text], "user": text,
                            "environment": ["type": "object"], "working_directory": text, "terminal_type": text,
                            "rows": number, "columns": number, "record": ["type": "boolean"], "idle_s": number, "maximum_s": number,
                        ],
                    ]
                ]
            ]
        ], "responses": ["201": answer("It runs; attach to it.", session)],
    ]
    static let list: JSONObject = ["responses": ["200": answer("Terminals.", list(session))]]
    static let show: JSONObject = ["responses": ["200": answer("The terminal.", session)]]
    static let end: JSONObject = ["responses": ["202": answer("It is being ended: TERM, then KILL.", session)]]
    static let ticket: JSONObject = [
        "responses": ["201": answer("The ticket, and the address with it.", ["type": "object", "properties": ["ticket": text, "url": text]])]
    ]
    static let attach: JSONObject = [
        "parameters": [
            query("offset", "integer", "Offset of the output to go on from; without it, all that is kept."),
            query("mode", "string", "typist (normal) or viewer."),
            query("ticket", "string", "A one-time ticket in the place of the Authorization field."),
        ], "responses": ["101": answer("The WebSocket.")],
    ]
    private static let recordingSchema: JSONValue = [
        "type": "object",
        "properties": [
            "id": text, "client": text, "owner": text, "program": text, "started_ms": number, "ended_ms": number,
            "bytes": number, "sha256": text, "truncated": ["type": "boolean"],
        ],
    ]
    static let recordings: JSONObject = [
        "parameters": [
            query("search", "string", "Part of owner, program, client or id."), query("client", "string", "Only of this client."),
            query("cursor", "string", "`next` of the page before."),
        ], "responses": ["200": answer("A page.", list(recordingSchema))],
    ]
    static let recording: JSONObject = ["responses": ["200": ["description": "asciicast v2, JSON lines.", "content": ["application/x-asciicast": [:]]]]]
    static let removeRecording: JSONObject = ["responses": ["204": answer("Removed.")]]
}

import JSON
import Testing

@Suite struct JSONSchemaTests {
    private func schema(_ text: String) throws -> JSONSchema { try JSONSchema(JSONValue(parsing: text)) }

    private func fault(_ value: String, _ schema: String) throws -> String? {
        let (schema, value) = (try self.schema(schema), try JSONValue(parsing: value))
        do throws(JSONSchema.Fault) {
            try schema.check(value)
            return nil
        } catch { return error.description }
    }

    @Test(arguments: [
        (#"{"a": 1}"#, #"{"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": false}"#),
        (#"[1, "x"]"#, #"{"items": {"type": ["integer", "string"]}}"#),
        (#""red""#, #"{"enum": ["red", "green"]}"#), ("3", #"{"minimum": 3, "maximum": 3}"#), ("{}", "true"),
    ]) func acceptsWhatFits(value: String, schema: String) throws {
        #expect(try fault(value, schema) == nil)
    }

    @Test(arguments: [
        (#"{"a": "x"}"#, #"{"properties": {"a": {"type": "integer"}}}"#, "/a: must be integer, found a string"),
        (#"{"b": 1}"#, #"{"properties": {"a": true}, "additionalProperties": false}"#, "/b: is not known; known are a"),
        ("{}", #"{"required": ["a"]}"#, "\"a\" is missing"),
        (#""blue""#, #"{"enum": ["red", "green"]}"#, #"must be one of "red", "green""#),
        ("4", #"{"maximum": 3}"#, "must be at most 3"), (#"[[], [1]]"#, #"{"items": {"maxItems": 0}}"#, "/1: must have at most 0 items, has 1"),
        (#""é""#, #"{"minLength": 2}"#, "must have at least 2 characters, has 1"), ("1", "false", "is not allowed here"),
        (#"{"x": 1}"#, #"{"additionalProperties": {"type": "string"}}"#, "/x: must be string, found a number"),
        ("1.5", #"{"type": "integer"}"#, "must be integer, found a number"), ("2", #"{"const": 1}"#, "must be 1"),
    ]) func tellsWhatDoesNotFit(value: String, schema: String, expected: String) throws {
        #expect(try fault(value, schema) == expected)
    }

    @Test(arguments: [#"{"pattern": "a+"}"#, #"{"type": "text"}"#, #"{"properties": {"a": {"oneOf": []}}}"#, "3", #"{"minItems": -1}"#])
    func refusesWhatItCannotCheck(schema: String) throws {
        #expect(throws: JSONSchema.Fault.self) { try self.schema(schema) }
    }
}

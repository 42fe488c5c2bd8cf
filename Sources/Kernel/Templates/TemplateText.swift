import JSON

/// Templates as JSON, as the API takes and shows them:
///
///     {"name": "disk.usage", "description": "…", "category": "disk",
///      "parameters": [{"name": "path", "type": "path", "required": false, "description": "…"}],
///      "argv": ["df", "-P", {"if": "path", "argv": ["--", "{path}"]}], "result": "disk-usage"}
///
/// or with `"script": {"interpreter": ["/bin/sh"], "body": "…", "arguments": ["{path}"]}` in place of `argv`.
extension Template {
    /// - Parameter withHead: also name, version, hash and origin.
    public func text(withHead: Bool) -> [UInt8] {
        var writer = JSONWriter(reserving: 512)
        writer.object { writer in
            if withHead {
                writer.field("name", name)
                writer.field("version", version)
                writer.field("hash", hash)
                writer.field("built_in", isBuiltIn)
            }
            writer.field("description", description)
            writer.field("category", category)
            writer.array("parameters") { writer in
                for parameter in parameters { parameter.write(to: &writer) }
            }
            switch body {
            case .argv(let words): writer.array("argv") { writer in Self.write(words, &writer) }
            case .script(let interpreter, let text, let arguments):
                writer.object("script") { writer in
                    writer.field("interpreter", interpreter)
                    writer.field("body", text)
                    if !arguments.isEmpty { writer.array("arguments") { writer in Self.write(arguments, &writer) } }
                }
            }
            writer.field("result", ifPresent: result?.rawValue)
        }
        return writer.finish()
    }

    private static func write(_ words: [Word], _ writer: inout JSONWriter) {
        for word in words {
            switch word {
            case .word(let text): writer.value(text)
            case .when(let parameter, let texts):
                writer.object { writer in
                    writer.field("if", parameter)
                    writer.field("argv", texts)
                }
            }
        }
    }

    /// Reads and checks an operator's template. Name and version are set by the store.
    public init(name: String, version: Int, reading text: [UInt8]) throws(Problem) {
        var template = Template(name, version: version, "", category: "own", body: .argv([]))
        var bodies = 0
        do throws(JSONError) {
            try JSONReader.read(text, limits: .init(depth: 8, bytes: 1 << 20)) { reader throws(JSONError) in
                try reader.object { key, reader throws(JSONError) in
                    if key.is("name") {
                        guard try reader.string() == name else { throw reader.fail("expected \"\(name)\", the name in the path") }
                    } else if key.is("description") {
                        template.description = try reader.string()
                    } else if key.is("category") {
                        template.category = try reader.string()
                    } else if key.is("parameters") {
                        try reader.array { reader throws(JSONError) in
                            template.parameters.append(try TemplateParameter(reading: &reader))
                        }
                    } else if key.is("argv") {
                        template.body = .argv(try Self.words(&reader))
                        bodies += 1
                    } else if key.is("script") {
                        template.body = try Self.script(&reader)
                        bodies += 1
                    } else if key.is("result") {
                        let name = try reader.string()
                        guard let parser = ResultParser(rawValue: name) else {
                            let known = ResultParser.allCases.map(\.rawValue).joined(separator: ", ")
                            throw reader.fail("no result parser \"\(name)\"; there are: \(known)")
                        }
                        template.result = parser
                    } else if !key.is("version") && !key.is("hash") && !key.is("built_in") {
                        throw reader.fail("a template has no member \"\(key.string)\"")
                    }
                }
            }
        } catch {
            throw .invalid(error.description, pointer: error.pointer.isEmpty ? nil : error.pointer)
        }
        guard bodies == 1 else { throw .invalid("a template has either argv or script") }
        guard template.description.utf8.count <= 1_024, template.category.utf8.count <= 64 else {
            throw .invalid("the description has at most 1024 bytes, the category 64")
        }
        try template.validate()
        self = template
    }

    private static func words(_ reader: inout JSONReader) throws(JSONError) -> [Word] {
        var words: [Word] = []
        try reader.array { reader throws(JSONError) in
            guard case .object = reader.next else {
                words.append(.word(try reader.string()))
                return
            }
            var parameter: String?
            var texts: [String] = []
            try reader.object { key, reader throws(JSONError) in
                if key.is("if") {
                    parameter = try reader.string()
                } else if key.is("argv") {
                    texts = try reader.strings()
                } else {
                    throw reader.fail("a conditional part has \"if\" and \"argv\", not \"\(key.string)\"")
                }
            }
            guard let parameter else { throw reader.fail("a conditional part needs \"if\"") }
            words.append(.when(parameter, texts))
        }
        return words
    }

    private static func script(_ reader: inout JSONReader) throws(JSONError) -> Body {
        var interpreter = ["/bin/sh"]
        var text = ""
        var arguments: [Word] = []
        try reader.object { key, reader throws(JSONError) in
            if key.is("interpreter") {
                interpreter = try reader.strings()
            } else if key.is("body") {
                text = try reader.string()
            } else if key.is("arguments") {
                arguments = try words(&reader)
            } else {
                throw reader.fail("a script has interpreter, body and arguments, not \"\(key.string)\"")
            }
        }
        return .script(interpreter: interpreter, text: text, arguments: arguments)
    }
}

extension TemplateParameter {
    func write(to writer: inout JSONWriter) {
        writer.object { writer in
            writer.field("name", name)
            writer.field("type", kindName)
            switch kind {
            case .integer(let range):
                writer.field("minimum", range.lowerBound)
                writer.field("maximum", range.upperBound)
            case .choice(let choices): writer.field("choices", choices)
            default: break
            }
            writer.field("required", isRequired)
            if let standard { writer.field("default", standard) }
            writer.field("description", description)
        }
    }

    init(reading reader: inout JSONReader) throws(JSONError) {
        var name = ""
        var type = ""
        var minimum = Int64.min
        var maximum = Int64.max
        var choices: [String] = []
        var parameter = TemplateParameter("", .text, "")
        try reader.object { key, reader throws(JSONError) in
            if key.is("name") {
                name = try reader.string()
            } else if key.is("type") {
                type = try reader.string()
            } else if key.is("minimum") {
                minimum = try reader.integer()
            } else if key.is("maximum") {
                maximum = try reader.integer()
            } else if key.is("choices") {
                choices = try reader.strings()
            } else if key.is("required") {
                parameter.isRequired = try reader.bool()
            } else if key.is("default") {
                parameter.standard = try reader.value()
            } else if key.is("description") {
                parameter.description = try reader.string()
            } else {
                throw reader.fail("a parameter has no member \"\(key.string)\"")
            }
        }
        parameter.name = name
        switch type {
        case "text": parameter.kind = .text
        case "integer":
            guard minimum <= maximum else { throw reader.fail("the minimum of \"\(name)\" is above its maximum") }
            parameter.kind = .integer(minimum...maximum)
        case "boolean": parameter.kind = .boolean
        case "choice":
            guard !choices.isEmpty else { throw reader.fail("\"\(name)\" is a choice without choices") }
            parameter.kind = .choice(choices)
        case "path": parameter.kind = .path
        case "host": parameter.kind = .host
        case "name": parameter.kind = .name
        case "texts": parameter.kind = .texts
        default:
            throw reader.fail(
                "no parameter type \"\(type)\"; there are: text, integer, boolean, choice, path, host, name, texts")
        }
        self = parameter
    }
}

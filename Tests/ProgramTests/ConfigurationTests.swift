import JSON
import Program
import Testing

private enum Colour: String, CaseIterable, Sendable { case red, green }

private let listen = ConfigurationKey.text("listen", default: "127.0.0.1:0", "Address.", flag: "listen", flagValue: "ADDRESS")
private let bodyBytes = ConfigurationKey.integer("limits.body_bytes", default: 1024, in: 1...65536, "Largest body.")
private let debug = ConfigurationKey.toggle("debug", default: false, "Say more.", flag: "debug")
private let colour = ConfigurationKey<Colour>.choice("colour", default: .red, "Colour.")
private let origins = ConfigurationKey.list(
    "http.origins", "Origins.", allowed: "a URL", flag: "origin", isValid: { $0.hasPrefix("http") })
private let secret = ConfigurationKey.text("http.secret", default: "", "Key.", secret: true)
private let all = [
    listen.declaration, bodyBytes.declaration, debug.declaration, colour.declaration, origins.declaration, secret.declaration,
]

private func make(
    file: String? = nil, environment: [String: String] = [:], arguments: [String] = []
) throws -> Configuration {
    let flags = try Flags(parsing: arguments, allowed: all.compactMap(\.commandLineFlag))
    return try Configuration(
        all, file: file.map { ("c.json", Array($0.utf8)) }, environment: environment, flags: flags)
}

private func problems(
    file: String? = nil, environment: [String: String] = [:], arguments: [String] = []
) -> [String] {
    do {
        _ = try make(file: file, environment: environment, arguments: arguments)
        return []
    } catch {
        return (error as? ConfigurationError)?.problems ?? ["\(error)"]
    }
}

@Suite struct ConfigurationTests {
    @Test func defaults() throws {
        let configuration = try make()
        #expect(configuration[listen] == "127.0.0.1:0")
        #expect(configuration[bodyBytes] == 1024)
        #expect(configuration[colour] == .red)
        #expect(configuration[origins] == [])
        #expect(configuration.source(of: listen) == .defaultValue)
    }

    @Test func laterSourcesWin() throws {
        let file = """
            { // comment
              "listen": "file", "limits": {"body_bytes": 1, }, "colour": "green", "http": {"origins": ["http://a"]},
            }
            """
        let environment = ["CM_LISTEN": "env", "CM_LIMITS_BODY_BYTES": "2", "CM_HTTP_ORIGINS": "http://b,http://c", "PATH": "x"]
        let configuration = try make(
            file: file, environment: environment, arguments: ["--listen", "flag", "--debug", "--origin", "http://d"])
        #expect(configuration[listen] == "flag")
        #expect(configuration[bodyBytes] == 2)
        #expect(configuration[colour] == .green)
        #expect(configuration[debug])
        #expect(configuration[origins] == ["http://d"])
        #expect(configuration.source(of: bodyBytes) == .environment("CM_LIMITS_BODY_BYTES"))
        #expect(configuration.source(of: colour) == .file("c.json"))
    }

    @Test func everyProblemIsNamedAtOnce() {
        let file = #"{"listen": 5, "limits": {"body_bytes": 99999, "body_byte": 1}, "colours": 1, "http": 3, "debug": "yes"}"#
        #expect(
            problems(file: file, environment: ["CM_COLOUR": "blue", "CM_HTTP_SECRET": "s"], arguments: ["--origin", "ftp:x"]) == [
                "limits.body_byte (c.json) is not a key; did you mean limits.body_bytes?",
                "colours (c.json) is not a key; did you mean colour?",
                "http (c.json): expected an object of keys, found a number",
                "listen = 5 (c.json): expected text, allowed: any text",
                "limits.body_bytes = 99999 (c.json): expected whole number, allowed: 1 to 65536",
                "debug = \"yes\" (c.json): expected true or false, allowed: true or false",
                "colour = blue (environment variable CM_COLOUR): expected choice, allowed: red, green",
                "http.origins = ftp:x (flag --origin): expected list of texts, allowed: at most 1000, each: a URL",
            ])
        #expect(problems(environment: ["CM_LIMITS_BODY_BYTES": "1k"]).count == 1)
        #expect(problems(file: "{\n  \"listen\": x\n}") == ["c.json, line 2, column 13 (/listen): expected a value, found 'x'"])
        #expect(problems(file: "[]") == ["c.json: expected an object of keys, found an array"])
    }

    @Test func strangeVariablesAreWarnedOf() throws {
        let configuration = try make(environment: ["CM_LISTE": "x", "CM_TOKEN": "x", "CMX": "y"])
        #expect(configuration.warnings == ["environment variable CM_LISTE is unknown; did you mean CM_LISTEN?"])
    }

    @Test func secretsStayHidden() throws {
        let configuration = try make(environment: ["CM_HTTP_SECRET": "hunter2"])
        #expect(configuration[secret] == "hunter2")
        let shown = configuration.shown
        #expect(!shown.description.contains("hunter2"))
        #expect(shown["http.secret"]?["value"] == "(set, not shown)")
        #expect(try make().shown["http.secret"]?["value"] == "(not set)")
        #expect(shown["limits.body_bytes"]?["value"] == 1024)
        #expect(!problems(file: #"{"http": {"secret": 77}}"#).joined().contains("77"))
    }

    @Test func documentListsEveryKey() {
        let text = Configuration.markdown(all)
        for declaration in all { #expect(text.contains("`\(declaration.name)`")) }
        #expect(text.contains("| `limits.body_bytes` | whole number | `1024` | 1 to 65536 | `CM_LIMITS_BODY_BYTES` |  |"))
    }
}

import AgentProtocol
import JSON
import Testing

@testable import Kernel

@Suite struct TemplateTests {
    private func template(_ text: String) throws -> Template {
        try Template(name: "own.test", version: 1, reading: Array(text.utf8))
    }

    private func argv(_ name: String, _ parameters: JSONObject = [:]) throws -> [String] {
        let template = try #require(TemplateCatalogue.all.first { $0.name == name })
        guard case .argv(let argv) = try template.invocation(parameters) else { throw Problem.invalid("not argv") }
        return argv
    }

    @Test func everyTemplateOfTheCatalogueIsWellFormedAndReadsBack() throws {
        #expect(Set(TemplateCatalogue.all.map(\.name)).count == TemplateCatalogue.all.count)
        for template in TemplateCatalogue.all {
            try template.validate()
            let again = try Template(name: template.name, version: template.version, reading: template.text(withHead: true))
            #expect(again.hash == template.hash)
        }
    }

    @Test func valuesAreWordsAndNeverShellText() throws {
        let words = try argv("file.head", ["path": "/tmp/a b; id #$(x)"])
        #expect(words == ["head", "-c", "65536", "--", "/tmp/a b; id #$(x)"])
        #expect(try argv("file.delete", ["path": "/tmp/x"]) == ["rm", "--", "/tmp/x"])
        #expect(
            try argv("file.delete", ["path": "/tmp/x", "recursive": .bool(true)])
                == ["rm", "-r", "--one-file-system", "--", "/tmp/x"])
    }

    @Test(arguments: [
        ("file.head", "path", JSONValue.string("relative")), ("file.head", "path", .string("/a/../b")),
        ("file.head", "path", .string("/a\nb")), ("file.head", "bytes", .integer(0)), ("file.head", "nothing", .integer(1)),
        ("network.ping", "host", .string("-f")), ("network.ping", "host", .string("a b")),
        ("service.start", "service", .string("--now")), ("process.signal", "signal", .string("SEGV; id")),
        ("process.signal", "pid", .string("1")), ("process.find", "pattern", .string("-u")),
    ])
    func wrongValuesAreRefused(name: String, parameter: String, value: JSONValue) throws {
        var parameters: JSONObject = [:]
        switch name {
        case "file.head": parameters["path"] = "/tmp/x"
        case "process.signal": parameters["pid"] = .integer(77)
        default: break
        }
        parameters[parameter] = value
        #expect(throws: Problem.self) { _ = try argv(name, parameters) }
    }

    @Test func aTemplateThatCannotWorkIsRefusedWhenItIsStored() {
        for text in [
            #"{"argv": ["{program}"], "parameters": [{"name": "program", "type": "text"}]}"#,
            #"{"argv": ["echo", "{missing}"]}"#, #"{"argv": ["echo", "{open"]}"#, #"{"argv": []}"#,
            #"{"argv": ["echo"], "script": {"body": "x"}}"#, #"{"description": "nothing to run"}"#,
            #"{"argv": ["echo", "x{list...}"], "parameters": [{"name": "list", "type": "texts"}]}"#,
            #"{"argv": ["echo"], "parameters": [{"name": "a", "type": "float"}]}"#, #"{"argv": ["echo"], "extra": 1}"#,
        ] {
            #expect(throws: Problem.self, "\(text)") { _ = try template(text) }
        }
    }

    @Test func aScriptGetsItsParametersAsArguments() throws {
        let template = try template(
            #"{"script": {"body": "echo \"$1\"", "arguments": ["{text}", "{rest...}"]}, "parameters": [{"name": "text", "type": "text", "required": true}, {"name": "rest", "type": "texts"}]}"#)
        let invocation = try template.invocation(["text": "$(id)", "rest": ["a", "b c"]])
        #expect(
            invocation
                == .script(interpreter: ["/bin/sh"], body: Array(#"echo "$1""#.utf8), arguments: ["$(id)", "a", "b c"]))
        #expect(throws: Problem.self) { _ = try template.invocation(["rest": ["-x"], "text": "a"]) }
        #expect(throws: Problem.self) { _ = try template.invocation([:]) }
    }

    @Test func storedTemplatesHaveVersionsThatNeverChange() async throws {
        let core = try await CommandsFixture()
        let templates = core.commands.templates
        let first = Array(#"{"argv": ["echo", "one"]}"#.utf8)
        let one = try await templates.put("own.x", first, CommandsFixture.principal, now: 1)
        let same = try await templates.put("own.x", first, CommandsFixture.principal, now: 2)
        let two = try await templates.put("own.x", Array(#"{"argv": ["echo", "two"]}"#.utf8), CommandsFixture.principal, now: 3)
        #expect(one.version == 1 && same.version == 1 && two.version == 2 && one.hash != two.hash)
        #expect(try await templates.get("own.x", version: 1).hash == one.hash)
        #expect(try await templates.get("own.x", version: nil).version == 2)
        await #expect(throws: Problem.self) {
            _ = try await templates.put("disk.usage", first, CommandsFixture.principal, now: 4)
        }
        try await templates.remove("own.x", CommandsFixture.principal)
        await #expect(throws: Problem.self) { _ = try await templates.get("own.x", version: nil) }

        let link = await core.connect(0)
        let id = try await core.submit { $0.work = .template(name: "memory.info", version: nil, parameters: [:]) }.id
        await core.finish(link, id, output: Array("MemTotal:  100 kB\nHugePages_Total:  3\n".utf8))
        let result = try await core.commands.typedResult(id, of: core.clients[0])
        #expect(result.value == ["MemTotal": 102_400, "HugePages_Total": 3])
    }

    @Test func parsersTakeWhatTheyKnowAndRefuseTheRest() {
        let df = "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/sda1 100 40 60 40% /mnt/a b\n"
        #expect(
            ResultParser.diskUsage.parse(Array(df.utf8))
                == [["source": "/dev/sda1", "size": 102_400, "used": 40_960, "available": 61_440, "mount": "/mnt/a b"]])
        #expect(ResultParser.diskUsage.parse(Array("header\nnonsense\n".utf8)) == nil)
        #expect(ResultParser.memory.parse([0xFF]) == nil)
        let ps = "    1     0 root                             S  0.1 1024   55 /sbin/init splash\n"
        #expect(
            ResultParser.processes.parse(Array(ps.utf8))?.array?.first?["command"] == "/sbin/init splash")
        let find = "f\t12\t1.5\t644\troot\troot\ta\tb\n\0"
        #expect(ResultParser.files.parse(Array(find.utf8))?.array?.first?["name"] == "a\tb\n")
    }
}

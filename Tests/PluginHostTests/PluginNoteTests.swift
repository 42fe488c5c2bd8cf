import JSON
import PluginHost
import Testing

@Suite struct PluginNoteTests {
    private func note(_ json: String, abi: String = "1") throws -> PluginNote {
        try PluginNote(Array("client-manager-plugin \(abi)\n\(json)\0\0".utf8))
    }

    @Test func readsWhatAPluginSaysOfItself() throws {
        let note = try note(
            #"{"id": "com.example.hello", "version": "1.2.3", "provides": ["com.example.greeter/1"], "capabilities": ["http", "channels"], "routes": ["hello"]}"#)
        #expect(note.id == "com.example.hello")
        #expect(note.shortName == "hello")
        #expect(note.version.description == "1.2.3")
        #expect(note.provides == ["com.example.greeter/1"])
        #expect(note.capabilities == ["http", "channels"])
        #expect(note.routes == ["hello"])
    }

    @Test(arguments: [
        (#"{"id": "hello", "version": "1.0.0"}"#, "reverse domain name"),
        (#"{"id": "com.example.hello", "version": "1.0"}"#, "MAJOR.MINOR.PATCH"),
        (#"{"id": "com.example.hello", "version": "1.0.0", "capabilities": ["root"]}"#, "\"capabilities\" has"),
        (#"{"id": "com.example.hello", "version": "1.0.0", "requires": ["x"]}"#, "\"requires\" has"),
        (#"{"id": "com.example.hello", "version": "1.0.0", "provides": ["com.a.b/1", "com.a.b/1"]}"#, "twice"),
        (#"{"id": "com.example.hello", "version": "1.0.0", "routes": ["a/b"]}"#, "\"routes\" has"),
        (#"{"id": "com.example.hello", "version": "1.0.0", "colour": "red"}"#, "unknown member \"colour\""),
        ("[]", "not a JSON object"), ("{", "not JSON"),
    ]) func saysWhatIsWrong(json: String, expected: String) {
        let refusal = #expect(throws: PluginRefusal.self) { try note(json) }
        #expect(refusal?.reason.contains(expected) == true, "\(refusal?.reason ?? "")")
        #expect(refusal?.code == "plugin-note-invalid")
    }

    @Test func anotherABIIsNamed() {
        let refusal = #expect(throws: PluginRefusal.self) { try note("{}", abi: "2") }
        #expect(refusal?.code == "plugin-abi")
    }

    @Test func damagedFilesAreRefusedNotTrusted() {
        for bytes: [UInt8] in [[], Array("#!/bin/sh".utf8), [0x7F, 0x45, 0x4C, 0x46] + Array(repeating: 0xFF, count: 200)] {
            #expect(throws: PluginRefusal.self) { try ELFImage(bytes) }
        }
    }
}

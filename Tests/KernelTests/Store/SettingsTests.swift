import JSON
import Kernel
import Testing

@Suite struct SettingsTests {
    private let administrator = Principal(kind: .user, id: "ada", roles: ["administrator"])

    private func open(_ directory: TemporaryDirectory) throws -> Store {
        try Store.open(directory: directory.path, migrations: Settings.migrations)
    }

    @Test func aChangeIsThereAtOnceAuditedToldAndSurvivesARestart() async throws {
        let directory = TemporaryDirectory()
        let store = try open(directory)
        let events = Events()
        let settings = try await Settings.load(store: store, events: events)
        #expect(settings.integer(.heartbeatSeconds) == 15)
        let start = events.end
        try await settings.set("heartbeat_s", to: 30, by: administrator)
        #expect(settings.integer(.heartbeatSeconds) == 30)
        #expect(events.page(after: start).events.map(\.kind) == ["settings.changed"])
        let audited = try await store.read { (reader) throws(StoreError) in
            try reader.count("SELECT count(*) FROM audit_records WHERE action = 'settings.change' AND target = 'heartbeat_s'")
        }
        #expect(audited == 1)
        store.close()

        let again = try open(directory)
        let loaded = try await Settings.load(store: again, events: Events())
        #expect(loaded.integer(.heartbeatSeconds) == 30)
        try await loaded.set("heartbeat_s", to: nil, by: administrator)
        #expect(loaded.integer(.heartbeatSeconds) == 15)
        again.close()
    }

    struct Wrong: Sendable {
        let name: String
        let value: JSONValue
        let told: String
    }
    @Test(arguments: [
        Wrong(name: "heartbeat_s", value: 1, told: "from 5 to 3600"),
        Wrong(name: "heartbeat_s", value: "x", told: "whole number"),
        Wrong(name: "log_level", value: "loud", told: "debug, info"),
        Wrong(name: "commands_stopped", value: 1, told: "true or false"),
        Wrong(name: "commands_stopped_exempt_roles", value: [""], told: "1 to 256"),
    ])
    func aWrongValueIsRefusedWithWhatIsAllowed(wrong: Wrong) async throws {
        let directory = TemporaryDirectory()
        let store = try open(directory)
        let settings = try await Settings.load(store: store, events: Events())
        let problem = await #expect(throws: Problem.self) {
            try await settings.set(wrong.name, to: wrong.value, by: administrator)
        }
        #expect(problem?.status == 400)
        #expect(problem?.detail.contains(wrong.told) == true)
        store.close()
    }

    @Test func anUnknownNameIsNotFound() async throws {
        let directory = TemporaryDirectory()
        let store = try open(directory)
        let settings = try await Settings.load(store: store, events: Events())
        let problem = await #expect(throws: Problem.self) {
            try await settings.set("nonsense", to: 1, by: administrator)
        }
        #expect(problem?.status == 404)
        store.close()
    }
}

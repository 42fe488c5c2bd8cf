import AgentProtocol
import Crypto
import JSON
import Reactor
import Synchronization
import Testing

@testable import Kernel

/// Answers as it is told and keeps what was sent.
final class RecordingSender: WebhookSender {
    struct Sent: Sendable {
        let url: String
        let headers: [String: String]
        let body: [UInt8]
    }
    private struct State {
        var sent: [Sent] = []
        var answers: [Int?]
        var waiters: [(count: Int, continuation: CheckedContinuation<Void, Never>)] = []
    }
    private let state: Mutex<State>

    /// - Parameter answers: taken one by one; `nil` fails to connect. 200 when there are no more.
    init(_ answers: [Int?] = []) { state = Mutex(State(answers: answers)) }

    func post(url: String, headers: [(name: String, value: String)], body: [UInt8]) async throws(DeliveryFailure) -> Int {
        let (answer, ready) = state.withLock { state in
            state.sent.append(Sent(
                url: url, headers: Dictionary(headers.map { ($0.name, $0.value) }, uniquingKeysWith: { $1 }), body: body))
            let ready = state.waiters.filter { $0.count <= state.sent.count }
            state.waiters.removeAll { $0.count <= state.sent.count }
            return (state.answers.isEmpty ? .some(200) : state.answers.removeFirst(), ready)
        }
        for waiter in ready { waiter.continuation.resume() }
        guard let answer else { throw DeliveryFailure("connection refused") }
        return answer
    }

    /// Waits until `count` messages were sent in all.
    func sent(_ count: Int) async -> [Sent] {
        await withCheckedContinuation { continuation in
            let ready = state.withLock { state in
                if state.sent.count >= count { return true }
                state.waiters.append((count, continuation))
                return false
            }
            if ready { continuation.resume() }
        }
        return state.withLock { $0.sent }
    }
}

@Suite(.timeLimit(.minutes(1))) struct OutboxTests {
    private let ada = Principal(kind: .user, id: "ada")

    struct World {
        let directory: TemporaryDirectory
        let store: Store
        let events: Events
        let audit: Audit
        let loop: EventLoop
        let outbox: Outbox

        init(_ directory: TemporaryDirectory, _ sender: RecordingSender, matches: @escaping Outbox.Matcher = { _, _ in true }) async throws {
            self.directory = directory
            store = try Store.open(directory: directory.path, migrations: Outbox.migrations)
            events = Events()
            audit = Audit(store: store, settings: nil)
            loop = try EventLoop.start(name: "outbox-test")
            outbox = try await Outbox.load(
                store: store, events: events, audit: audit, safe: KeySafe(), sender: sender, matches: matches)
            outbox.start(on: loop)
        }

        func end() {
            outbox.stop()
            store.close()
            loop.stop()
        }
    }

    private func change(_ body: (inout WebhookChange) -> Void = { _ in }) -> WebhookChange {
        var change = WebhookChange()
        change.name = "pager"
        change.url = "http://127.0.0.1:9/hook"
        body(&change)
        return change
    }

    @Test func aMatchingEventIsDeliveredSigned() async throws {
        let sender = RecordingSender()
        let world = try await World(TemporaryDirectory(), sender)
        let (_, secret) = try await world.outbox.create(change { $0.kinds = ["client.*"] }, by: ada)
        world.events.publish(Event(kind: "command.finished"))
        world.events.publish(Event(kind: "client.offline", client: ClientID(high: 1, low: 2)))
        let sent = await sender.sent(1)
        let message = try #require(sent.first)
        #expect(try JSONValue(parsing: message.body)["kind"]?.string == "client.offline")
        #expect(WebhookSignature.isValid(
            message.headers[WebhookSignature.header] ?? "", secret: Array(secret.utf8), body: message.body,
            now: unixMilliseconds() / 1_000))
        #expect(!WebhookSignature.isValid(
            message.headers[WebhookSignature.header] ?? "", secret: Array(secret.utf8), body: message.body + [0],
            now: unixMilliseconds() / 1_000))
        world.end()
    }

    @Test func aNewMasterKeySealsTheSecretsAgain() async throws {
        let directory = TemporaryDirectory()
        let keys = try (0..<2).map { (number: UInt8) throws in try MasterKey(material: [UInt8](repeating: number, count: 32)) }
        let safe = KeySafe(current: keys[0])
        let store = try Store.open(directory: directory.path, migrations: Outbox.migrations)
        defer { store.close() }
        func load(_ safe: KeySafe) async throws -> Outbox {
            try await Outbox.load(
                store: store, events: Events(), audit: Audit(store: store, settings: nil), safe: safe,
                sender: RecordingSender(), matches: { _, _ in true })
        }
        let outbox = try await load(safe)
        let (_, secret) = try await outbox.create(change(), by: ada)
        safe.replace(current: keys[1])
        try await outbox.sealSecrets()
        // The old key is gone for good.
        let after = try await load(KeySafe(current: keys[1]))
        #expect(after.state.withLock { $0.entries.values.map(\.secret) } == [Array(secret.utf8)])
        safe.replace(current: nil)
        try await outbox.sealSecrets()
        #expect(try await load(KeySafe()).state.withLock { $0.entries.values.map(\.secret) } == [Array(secret.utf8)])
    }

    @Test func aSelectorNarrowsEventsOfClients() async throws {
        let sender = RecordingSender()
        let world = try await World(TemporaryDirectory(), sender) { selector, client in
            selector == "env=prod" && client.low == 2
        }
        _ = try await world.outbox.create(change { $0.selector = "env=prod" }, by: ada)
        world.events.publish(Event(kind: "client.offline", client: ClientID(high: 1, low: 1)))
        world.events.publish(Event(kind: "client.offline", client: ClientID(high: 1, low: 2)))
        world.events.publish(Event(kind: "core.started"))
        let kinds = try await sender.sent(2).map { try JSONValue(parsing: $0.body) }
        #expect(kinds[0]["client"]?.string == ClientID(high: 1, low: 2).description)
        #expect(kinds[1]["kind"]?.string == "core.started")
        world.end()
    }

    @Test func aFailedDeliveryIsTriedAgain() async throws {
        let sender = RecordingSender([nil])
        let world = try await World(TemporaryDirectory(), sender)
        _ = try await world.outbox.create(change(), by: ada)
        world.events.publish(Event(kind: "core.started"))
        let sent = await sender.sent(2)
        #expect(sent[0].body == sent[1].body)
        #expect(sent[1].headers["x-client-manager-attempt"] == "2")
        world.end()
    }

    @Test func whatWasStoredIsDeliveredAfterARestart() async throws {
        let directory = TemporaryDirectory()
        let failing = RecordingSender(Array(repeating: 503, count: 100))
        let world = try await World(directory, failing)
        _ = try await world.outbox.create(change(), by: ada)
        world.events.publish(Event(kind: "core.started"))
        let first = await failing.sent(1)
        world.end()
        let sender = RecordingSender()
        let again = try await World(directory, sender)
        #expect(await sender.sent(1)[0].body == first[0].body)
        again.end()
    }

    @Test func whatIsGoneForGoodIsADeadLetterThatCanBeRetried() async throws {
        let sender = RecordingSender([410])
        let world = try await World(TemporaryDirectory(), sender)
        let id = try #require(try await world.outbox.create(change(), by: ada).0["id"]?.string)
        let start = world.events.end
        world.events.publish(Event(kind: "core.started"))
        _ = await sender.sent(1)
        await kind("webhook.dead-letter", in: world.events, after: start, on: world.loop)
        let dead = try await world.outbox.deadLetters(id).items
        #expect(dead.count == 1)
        #expect(dead.first?.lastError == "the endpoint answered 410")
        #expect(try await world.outbox.retry(id, delivery: dead.last?.id, by: ada) == 1)
        #expect(await sender.sent(2).contains { $0.body == dead.last?.body })
        world.end()
    }

    /// Waits until the event was published.
    private func kind(_ kind: String, in events: Events, after start: EventCursor, on loop: EventLoop) async {
        await withUnsafeContinuation { (continuation: UnsafeContinuation<Void, Never>) in
            loop.spawn {
                var position = start
                while true {
                    await events.wait(after: position, milliseconds: 10_000)
                    let page = events.page(after: position)
                    position = page.next
                    if page.events.contains(where: { $0.kind == kind }) { break }
                }
                continuation.resume()
            }
        }
    }

    @Test func anAuditWebhookGetsEveryRecordInOrder() async throws {
        let directory = TemporaryDirectory()
        let sender = RecordingSender([500, nil])
        let world = try await World(directory, sender)
        _ = try await world.outbox.create(change { $0.source = .audit; $0.kinds = ["command.*"] }, by: ada)
        try await writeActs(world.store, 30)
        var sequences: [Int64] = []
        var count = 3
        while sequences.count < 15 {
            let sent = await sender.sent(count)
            sequences = []
            var seen: Set<[UInt8]> = []
            for message in sent where seen.insert(message.body).inserted {
                sequences += try JSONValue(parsing: message.body)["records"]?.array?.compactMap { $0["sequence"]?.integer } ?? []
            }
            count = sent.count + 1
        }
        // Record 1 is the webhook's own making; of the acts every second is of the area "command".
        let expected: [Int64] = stride(from: 3, through: 31, by: 2).map { $0 }
        #expect(sequences.sorted() == expected)
        world.end()
    }

    @Test func changesAreAuditedWithoutTheSecret() async throws {
        let world = try await World(TemporaryDirectory(), RecordingSender())
        let id = try #require(try await world.outbox.create(change { $0.secret = "correct horse battery" }, by: ada).0["id"]?.string)
        var update = WebhookChange()
        update.isEnabled = false
        update.secret = "another secret of mine"
        let shown = try await world.outbox.update(id, update, by: ada)
        #expect(shown["enabled"]?.bool == false)
        try await world.outbox.delete(id, by: ada)
        #expect(try await world.outbox.list().isEmpty)
        let lines = try await world.audit.lines(after: 0).lines
        #expect(lines.map(\.entry.action) == ["webhook.create", "webhook.change", "webhook.delete"])
        #expect(!lines.contains { $0.entry.detail.contains("correct horse") || $0.entry.detail.contains("another secret") })
        world.end()
    }

    @Test(arguments: [
        "ftp://host/", "http://", "http://user:password@host/", "http://host/#part", "https://host/ x", "host",
    ])
    func aWrongURLIsRefused(url: String) async throws {
        let world = try await World(TemporaryDirectory(), RecordingSender())
        let problem = await #expect(throws: Problem.self) {
            _ = try await world.outbox.create(change { $0.url = url }, by: ada)
        }
        #expect(problem?.pointer == "/url")
        world.end()
    }

    @Test func theScheduleBacksOffAndEnds() {
        #expect(DeliverySchedule.verdict(attempt: 1, status: 204, random: 0) == .delivered)
        #expect(DeliverySchedule.verdict(attempt: 1, status: nil, random: 0) == .again(afterMilliseconds: 500))
        #expect(DeliverySchedule.verdict(attempt: 4, status: 500, random: 0.5) == .again(afterMilliseconds: 6_000))
        #expect(DeliverySchedule.verdict(attempt: 15, status: 500, random: 0) == .again(afterMilliseconds: 900_000))
        #expect(DeliverySchedule.verdict(attempt: 16, status: 500, random: 0) == .dead)
        #expect(DeliverySchedule.verdict(attempt: 1, status: 410, random: 0) == .dead)
    }
}

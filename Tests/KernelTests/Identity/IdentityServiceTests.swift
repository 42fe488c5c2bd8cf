import AgentProtocol
import Crypto
import Glibc
import Synchronization
import Testing

@testable import Kernel

/// A directory of its own that goes away with the test.
private final class Scratch {
    let path: String
    init() {
        var template = Array("/tmp/cm-identity-XXXXXX".utf8CString)
        path = mkdtemp(&template).map { String(cString: $0) } ?? "/tmp"
    }
    deinit {
        let names = ["identity.pem", "backup.pem", "backup-next.pem", "backup.fingerprint", "ca.pem", "rotation.json", "tickets", "data-key"]
        for name in names { unlink(path + "/keys/" + name) }
        rmdir(path + "/keys")
        rmdir(path)
    }
    func text(_ name: String) -> String {
        guard let file = fopen(path + "/keys/" + name, "r") else { return "" }
        defer { fclose(file) }
        var buffer = [UInt8](repeating: 0, count: 65_536)
        let count = fread(&buffer, 1, buffer.count, file)
        return String(decoding: buffer.prefix(count), as: UTF8.self)
    }
    func mode(_ name: String) -> mode_t {
        var status = stat()
        return stat(path + "/keys/" + name, &status) == 0 ? status.st_mode & 0o777 : 0
    }
    func write(_ text: String, _ name: String) {
        guard let file = fopen(path + "/keys/" + name, "w") else { return }
        fputs(text, file)
        fclose(file)
    }
    func open(_ safe: KeySafe = KeySafe(), now: UInt64 = start) throws(Problem) -> IdentityService {
        try IdentityService.open(
            directory: path + "/keys", safe: safe, names: [.dns("localhost"), .address("127.0.0.1")], now: now)
    }
}

private let start: UInt64 = 1_800_000_000_000
private let day: UInt64 = 86_400_000

@Suite struct IdentityServiceTests {
    @Test func survivesARestartAndKeepsItsKeysToItself() throws {
        let scratch = Scratch()
        let first = try scratch.open()
        let second = try scratch.open(now: start + 400 * day)
        #expect(first.fingerprint == second.fingerprint)
        #expect(first.backupFingerprint == second.backupFingerprint)
        #expect(first.backupFingerprint != first.fingerprint)
        #expect(scratch.mode("identity.pem") == 0o600)
        #expect(scratch.mode("backup.pem") == 0o600)
        let message = Array("hello".utf8)
        #expect(second.publicKey.isValid(signature: try first.sign(message), for: message))
    }

    @Test func certificatesChangeDailyUnderTheSameAuthority() throws {
        let identity = try Scratch().open()
        let today = try identity.serverCertificate(now: start)
        #expect(try identity.serverCertificate(now: start + day / 2) == today)
        let tomorrow = try identity.serverCertificate(now: start + day)
        #expect(tomorrow.chain != today.chain)
        let authority = try Certificate(pem: identity.authorityPEM())
        #expect(try authority.fingerprint() == identity.fingerprint)
        for leaf in [try Certificate(pem: today.chain), try Certificate(pem: tomorrow.chain)] {
            #expect(leaf.isSigned(by: authority))
            #expect(leaf.names(.dns("localhost")))
        }
    }

    @Test func rotationLeadsAgentsFromTheOldKeyToTheNew() throws {
        let scratch = Scratch()
        let identity = try scratch.open()
        let old = identity.fingerprint
        let backup = try #require(identity.backupFingerprint)
        #expect(identity.forHandshake(at: start).rotation == nil)
        _ = try identity.rotate(now: start, validMilliseconds: 30 * day)
        #expect(identity.fingerprint == backup)
        #expect(identity.backupFingerprint != backup)

        let shown = identity.forHandshake(at: start + day)
        let statement = try #require(shown.rotation)
        #expect(statement.oldFingerprint == old)
        #expect(statement.isValid(for: identity.publicKey.spki, unixSeconds: (start + day) / 1_000))
        #expect(!statement.isValid(for: identity.publicKey.spki, unixSeconds: (start + 31 * day) / 1_000))
        #expect(shown.backupPins == [try #require(identity.backupFingerprint)])
        #expect(try Certificate(pem: identity.authorityPEM()).fingerprint() == identity.fingerprint)

        let again = try scratch.open(now: start + day)
        #expect(again.fingerprint == identity.fingerprint)
        #expect(again.backupFingerprint == identity.backupFingerprint)
        #expect(again.forHandshake(at: start + day).rotation == statement)
        #expect(again.forHandshake(at: start + 31 * day).rotation == nil)

        // An agent that missed the first step could not follow a second one.
        #expect { try again.rotate(now: start + day, validMilliseconds: day) } throws: {
            ($0 as? Problem)?.code == "rotation-under-way"
        }
        _ = try again.rotate(now: start + 31 * day, validMilliseconds: day)
    }

    @Test func aRotationThatWasCutShortIsFinishedOrNeverHappened() throws {
        let scratch = Scratch()
        let identity = try scratch.open()
        let (old, oldBackup) = (scratch.text("identity.pem"), scratch.text("backup.pem"))
        _ = try identity.rotate(now: start, validMilliseconds: day)
        let newBackup = scratch.text("backup.pem")

        // Killed right after the statement was written.
        scratch.write(old, "identity.pem")
        scratch.write(oldBackup, "backup.pem")
        scratch.write(newBackup, "backup-next.pem")
        let finished = try scratch.open()
        #expect(finished.fingerprint == identity.fingerprint)
        #expect(finished.backupFingerprint == identity.backupFingerprint)

        // Killed right before it.
        scratch.write(try P256.PrivateKey.generate().pem(), "backup-next.pem")
        let unmoved = try scratch.open()
        #expect(unmoved.fingerprint == identity.fingerprint)
        #expect(unmoved.backupFingerprint == identity.backupFingerprint)
    }

    @Test func aDamagedKeyIsNeverReplacedSilently() throws {
        let scratch = Scratch()
        _ = try scratch.open()
        scratch.write("nonsense", "identity.pem")
        #expect { try scratch.open() } throws: { ($0 as? Problem)?.code == "identity-damaged" }
    }

    @Test func sealedKeysOpenOnlyUnderAMasterKeyThatCanBeRotated() throws {
        let scratch = Scratch()
        let plain = try scratch.open()
        let firstKey = try MasterKey(material: Random.bytes(32))
        let secondKey = try MasterKey(material: Array((Hex.encode(Random.bytes(32)) + "\n").utf8))

        // Giving a master key seals what was open.
        #expect(scratch.text("identity.pem").contains("BEGIN PRIVATE KEY"))
        let safe = KeySafe(current: firstKey)
        let sealed = try scratch.open(safe)
        #expect(sealed.fingerprint == plain.fingerprint)
        #expect(scratch.text("identity.pem").contains("SEALED KEY"))
        #expect(!scratch.text("backup.pem").contains("PRIVATE KEY"))
        #expect { try scratch.open() } throws: { ($0 as? Problem)?.code == "master-key-missing" }

        // A new master key, without a restart.
        safe.replace(current: secondKey)
        try sealed.seal()
        #expect(try scratch.open(KeySafe(current: secondKey)).fingerprint == plain.fingerprint)
        #expect { try scratch.open(KeySafe(current: firstKey)) } throws: { ($0 as? Problem)?.code == "master-key-missing" }

        // One sealed file does not open in the place of another.
        scratch.write(scratch.text("backup.pem"), "identity.pem")
        #expect { try scratch.open(KeySafe(current: secondKey)) } throws: { ($0 as? Problem)?.code == "seal-broken" }
        #expect { try MasterKey(material: Array("short".utf8)) } throws: { ($0 as? Problem)?.code == "master-key-invalid" }
    }

    @Test func ticketKeysSurviveARestartAndChangeEachWeek() throws {
        let scratch = Scratch()
        let identity = try scratch.open()
        #expect(identity.keptTicketKeys().isEmpty)
        let first = try identity.freshTicketKeys(now: start)
        #expect(first.count == 1)
        #expect(scratch.mode("tickets") == 0o600)
        #expect(try scratch.open().keptTicketKeys() == first)
        #expect(try identity.freshTicketKeys(now: start + 7 * day - 1) == first)

        // The key before opens for a week more, which is as long as a ticket is good.
        let second = try identity.freshTicketKeys(now: start + 7 * day)
        #expect(second.count == 2 && second[0] != first[0] && second[1] == first[0])
        let third = try identity.freshTicketKeys(now: start + 14 * day)
        #expect(third.count == 2 && third[1] == second[0])

        // Nothing is lost with them, so a damaged file is replaced.
        scratch.write("nonsense", "tickets")
        #expect(identity.keptTicketKeys().isEmpty)
        #expect(try identity.freshTicketKeys(now: start + 14 * day).count == 1)
    }

    @Test func ticketKeysAreSealedUnderTheMasterKey() throws {
        let scratch = Scratch()
        let kept = try scratch.open().freshTicketKeys(now: start)
        let (firstKey, secondKey) = (try MasterKey(material: Random.bytes(32)), try MasterKey(material: Random.bytes(32)))
        let safe = KeySafe(current: firstKey)
        let identity = try scratch.open(safe)
        #expect(try identity.freshTicketKeys(now: start) == kept)
        #expect(scratch.text("tickets").utf8.first == 1)  // The form that is sealed.
        safe.replace(current: secondKey)
        try identity.seal()
        #expect(try scratch.open(KeySafe(current: secondKey)).keptTicketKeys().contains(kept[0]))
    }

    @Test func theDataKeyStaysTheSameUnderEveryMasterKey() throws {
        let scratch = Scratch()
        let key = try scratch.open().dataKey()
        #expect(key.count == 32)
        #expect(scratch.mode("data-key") == 0o600)
        let (firstKey, secondKey) = (try MasterKey(material: Random.bytes(32)), try MasterKey(material: Random.bytes(32)))
        let safe = KeySafe(current: firstKey)
        let identity = try scratch.open(safe)
        #expect(try identity.dataKey() == key)
        #expect(scratch.text("data-key").utf8.first == 1)  // The form that is sealed.
        safe.replace(current: secondKey)
        try identity.seal()
        #expect(try scratch.open(KeySafe(current: secondKey)).dataKey() == key)
        // What was sealed with it would be lost with it.
        scratch.write("nonsense", "data-key")
        #expect(throws: Problem.self) { try scratch.open().dataKey() }
    }

    @Test func whoServesTLSHearsOfARotation() throws {
        let scratch = Scratch()
        let identity = try scratch.open()
        let seen = Mutex<[String]>([])
        identity.whenRotated { seen.withLock { $0.append((try? identity.serverCertificate(now: start).chain) ?? "") } }
        let before = try identity.serverCertificate(now: start)
        _ = try identity.rotate(now: start, validMilliseconds: day)
        let chain = try #require(seen.withLock { $0 }.first)
        #expect(chain != before.chain)
        #expect(try Certificate(pem: chain).isSigned(by: Certificate(pem: identity.authorityPEM())))
    }
}

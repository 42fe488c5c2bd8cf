import Glibc
import Testing

@testable import Kernel

@Suite struct ZoneRulesTests {
    private let instants: [Int64] = [
        -1_500_000_000, 0, 1_325_239_200, 1_325_242_799, 1_711_846_799, 1_711_846_800, 1_719_792_000, 1_729_990_800,
        4_086_014_400, 4_102_444_800,
    ]

    private static let vectors: [(String, [Int64])] = [
        ("Europe/Berlin", [3_600, 3_600, 3_600, 3_600, 3_600, 7_200, 7_200, 3_600, 7_200, 3_600]),
        ("America/New_York", [-14_400, -18_000, -18_000, -18_000, -14_400, -14_400, -14_400, -14_400, -14_400, -18_000]),
        ("Australia/Lord_Howe", [36_000, 36_000, 39_600, 39_600, 39_600, 39_600, 37_800, 39_600, 37_800, 39_600]),
        ("Asia/Kathmandu", [19_800, 19_800, 20_700, 20_700, 20_700, 20_700, 20_700, 20_700, 20_700, 20_700]),
        ("America/Sao_Paulo", [-10_800, -10_800, -7_200, -7_200, -10_800, -10_800, -10_800, -10_800, -10_800, -10_800]),
        ("Europe/Dublin", [3_600, 3_600, 0, 0, 0, 3_600, 3_600, 0, 3_600, 0]),
        ("Pacific/Apia", [-41_400, -39_600, 50_400, 50_400, 46_800, 46_800, 46_800, 46_800, 46_800, 46_800]),
        ("Asia/Tehran", [12_344, 12_600, 12_600, 12_600, 12_600, 12_600, 12_600, 12_600, 12_600, 12_600]),
        ("UTC", [0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ]

    /// Offsets as Python's zoneinfo tells them, from 1922 to 2099.
    @Test(arguments: vectors)
    func theSystemsFilesAreReadAsOthersReadThem(_ name: String, _ offsets: [Int64]) async throws {
        let rules = try await TimeZones().rules(name)
        for (instant, offset) in zip(instants, offsets) {
            let period = rules.period(at: instant)
            #expect(period.offset == offset, "\(name) at \(instant)")
            #expect(period.start <= instant && instant < period.end)
        }
    }

    /// Each period begins where the one before ends, back and forth over two centuries.
    @Test(arguments: ["Europe/Berlin", "America/New_York", "Pacific/Apia", "Europe/Dublin"])
    func periodsFollowOneAnother(_ name: String) async throws {
        let rules = try await TimeZones().rules(name)
        var period = rules.period(at: -3_000_000_000)
        var count = 0
        while period.end < 5_000_000_000, count < 1_000 {
            let next = rules.period(at: period.end)
            #expect(next.start == period.end)
            #expect(rules.period(at: next.start - 1) == period)
            period = next
            count += 1
        }
        #expect(count > 20)
    }

    @Test func aSummerThatNeverEndsIsOnePeriodAfterAnother() throws {
        let zone = try RecurringZone("XXX3EDT4,0/0,J365/23")
        for instant: Int64 in [1_700_000_000, 1_703_998_800, 1_704_067_200, 1_720_000_000] {
            #expect(zone.period(at: instant).offset == -14_400)
        }
    }

    @Test(arguments: ["CET", "CET-1CEST", "CET-1CEST,M13.1.0,M10.5.0", "CET-1CEST,M3.5.0", "1", "<+03-3", ""])
    func aDamagedRuleIsRefused(_ text: String) {
        #expect(throws: ZoneFault.self) { _ = try RecurringZone(text) }
    }

    @Test func damagedFilesAreRefusedWhereverTheyAreCut() throws {
        let file = try #require(try? readAll("/usr/share/zoneinfo/Europe/Berlin"))
        #expect((try? ZoneRules(tzif: file)) != nil)
        for length in stride(from: 0, to: file.count - 1, by: 7) {
            #expect(throws: ZoneFault.self) { _ = try ZoneRules(tzif: Array(file.prefix(length))) }
        }
        var seed: UInt64 = 42
        for _ in 0..<2_000 {
            var damaged = file
            for _ in 0..<4 {
                seed = seed &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                damaged[Int(seed >> 33) % damaged.count] = UInt8(truncatingIfNeeded: seed >> 20)
            }
            // Whatever is still read must answer.
            if let rules = try? ZoneRules(tzif: damaged) {
                for instant in instants { _ = rules.period(at: instant) }
            }
        }
    }

    @Test(arguments: ["../../etc/passwd", "/etc/passwd", "Europe//Berlin", ".", "Europe/Nowhere", "", "tzdata.zi", "Europe"])
    func namesThatAreNoZoneAreRefused(_ name: String) async {
        await #expect(throws: Problem.self) { _ = try await TimeZones().rules(name) }
    }

    private func readAll(_ path: String) throws -> [UInt8] {
        let file = try #require(fopen(path, "r"))
        defer { fclose(file) }
        var buffer = [UInt8](repeating: 0, count: 65_536)
        let count = fread(&buffer, 1, buffer.count, file)
        return Array(buffer[..<count])
    }
}

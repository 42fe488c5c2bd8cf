import Program
import Testing

@testable import Kernel

@Suite struct CronExpressionTests {
    private func times(_ cron: String, _ zone: String, after: String, _ count: Int) async throws -> [String] {
        let expression = try CronExpression(cron)
        let rules = try await TimeZones().rules(zone)
        var at = try #require(Timestamp(after)).milliseconds
        var found: [String] = []
        for _ in 0..<count {
            guard let next = expression.next(after: at, in: rules) else { break }
            found.append(String(Timestamp(milliseconds: next).description.prefix(16)))
            at = next
        }
        return found
    }

    @Test func fieldsMeanWhatCronMeans() async throws {
        #expect(try await times("*/20 9-10 * * *", "UTC", after: "2026-01-01T00:00:00Z", 4)
            == ["2026-01-01T09:00", "2026-01-01T09:20", "2026-01-01T09:40", "2026-01-01T10:00"])
        #expect(try await times("0 12 * * mon-fri", "UTC", after: "2026-01-02T12:00:00Z", 2)
            == ["2026-01-05T12:00", "2026-01-06T12:00"])
        #expect(try await times("5/25 0 1 feb,AUG *", "UTC", after: "2026-01-01T00:00:00Z", 4)
            == ["2026-02-01T00:05", "2026-02-01T00:30", "2026-02-01T00:55", "2026-08-01T00:05"])
        // Both day fields narrowed: either fits. 13 March 2026 is a Friday, so is 6 March.
        #expect(try await times("0 0 13 * 5", "UTC", after: "2026-03-01T00:00:00Z", 3)
            == ["2026-03-06T00:00", "2026-03-13T00:00", "2026-03-20T00:00"])
        // A star, also with a step, is not narrowed: both must fit.
        #expect(try await times("0 0 */2 * 7", "UTC", after: "2026-03-01T00:00:00Z", 2)
            == ["2026-03-15T00:00", "2026-03-29T00:00"])
        #expect(try await times("0 0 29 2 *", "UTC", after: "2096-03-01T00:00:00Z", 1) == ["2104-02-29T00:00"])
        #expect(try await times("@weekly", "UTC", after: "2026-03-01T00:00:00Z", 1) == ["2026-03-08T00:00"])
    }

    @Test func theNextTimeIsAlwaysLater() async throws {
        #expect(try await times("* * * * *", "UTC", after: "2026-01-01T00:00:00.001Z", 2)
            == ["2026-01-01T00:01", "2026-01-01T00:02"])
        #expect(try await times("0 0 * * *", "UTC", after: "2026-01-01T00:00:00Z", 1) == ["2026-01-02T00:00"])
    }

    /// Berlin, 29 March 2026: 02:00 becomes 03:00 (01:00 UTC).
    @Test func aSkippedTimeComesOnceAfterTheGap() async throws {
        #expect(try await times("30 2 * * *", "Europe/Berlin", after: "2026-03-28T00:00:00Z", 3)
            == ["2026-03-28T01:30", "2026-03-29T01:00", "2026-03-30T00:30"])
        // Several in one gap are one run; what fits after the gap comes besides.
        #expect(try await times("0,30 2,3 * * *", "Europe/Berlin", after: "2026-03-28T12:00:00Z", 3)
            == ["2026-03-29T01:00", "2026-03-29T01:30", "2026-03-30T00:00"])
        // A rhythm has nothing to catch up.
        #expect(try await times("*/30 * * * *", "Europe/Berlin", after: "2026-03-29T00:00:00Z", 3)
            == ["2026-03-29T00:30", "2026-03-29T01:00", "2026-03-29T01:30"])
        // Samoa left out the whole of 30 December 2011.
        #expect(try await times("0 9 * * *", "Pacific/Apia", after: "2011-12-29T18:59:00Z", 3)
            == ["2011-12-29T19:00", "2011-12-30T10:00", "2011-12-30T19:00"])
    }

    /// Berlin, 25 October 2026: 03:00 becomes 02:00 (01:00 UTC).
    @Test func aDoubledTimeComesOnce() async throws {
        #expect(try await times("30 2 * * *", "Europe/Berlin", after: "2026-10-24T12:00:00Z", 2)
            == ["2026-10-25T00:30", "2026-10-26T01:30"])
        #expect(try await times("0 3 * * *", "Europe/Berlin", after: "2026-10-24T12:00:00Z", 1) == ["2026-10-25T02:00"])
        // Between the two showings the second is not taken for the first.
        #expect(try await times("30 2 * * *", "Europe/Berlin", after: "2026-10-25T00:45:00Z", 1) == ["2026-10-26T01:30"])
        // A rhythm goes on in real time: no hour without a run, none twice.
        #expect(try await times("0 * * * *", "Europe/Berlin", after: "2026-10-24T23:30:00Z", 4)
            == ["2026-10-25T00:00", "2026-10-25T01:00", "2026-10-25T02:00", "2026-10-25T03:00"])
    }

    @Test(arguments: [
        "", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "5-1 * * * *",
        "*/0 * * * *", "1-2-3 * * * *", "a * * * *", "1,,2 * * * *", "-1 * * * *", "0 0 30 2 *", "@reboot", "*/x * * * *",
    ])
    func whatIsNoCronIsRefused(_ text: String) {
        #expect(throws: Problem.self) { _ = try CronExpression(text) }
    }

    @Test func aLocalTimeIsFoundInItsZone() async throws {
        let berlin = try await TimeZones().rules("Europe/Berlin")
        func instant(_ text: String) -> String? {
            LocalTime(text).map { Timestamp(milliseconds: $0.instant(in: berlin)).description }
        }
        #expect(instant("2026-07-01T12:00") == "2026-07-01T10:00:00.000Z")
        #expect(instant("2026-03-29T02:30:15") == "2026-03-29T01:00:00.000Z")
        #expect(instant("2026-10-25T02:30") == "2026-10-25T00:30:00.000Z")
        #expect(instant("2026-10-25T02:30Z") == nil)
        #expect(instant("2026-13-25T02:30") == nil)
        #expect(LocalTime("2026-07-01T12:00")?.instant(in: .utc) == 1_782_907_200_000)
    }
}

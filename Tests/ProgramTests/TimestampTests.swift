import Program
import Testing

@Suite struct TimestampTests {
    @Test(arguments: [
        (0, "1970-01-01T00:00:00.000Z"), (951_782_400_000, "2000-02-29T00:00:00.000Z"),
        (1_709_251_199_999, "2024-02-29T23:59:59.999Z"), (4_107_542_399_001, "2100-02-28T23:59:59.001Z"),
        (-1, "1969-12-31T23:59:59.999Z"), (253_402_300_799_000, "9999-12-31T23:59:59.000Z"),
    ] as [(Int64, String)])
    func bothWays(milliseconds: Int64, text: String) {
        #expect(Timestamp(milliseconds: milliseconds).description == text)
        #expect(Timestamp(text)?.milliseconds == milliseconds)
    }

    @Test func manyDays() {
        for day in stride(from: Int64(-200_000), to: 800_000, by: 37) {
            let time = Timestamp(milliseconds: day * 86_400_000 + 3_723_004)
            #expect(Timestamp(time.description) == time)
        }
    }

    @Test func offsetsAndFractions() {
        #expect(Timestamp("2024-01-01T02:00:00+02:00") == Timestamp("2024-01-01T00:00:00Z"))
        #expect(Timestamp("2023-12-31t19:00:00.5-05:00")?.milliseconds == (Timestamp("2024-01-01T00:00:00Z")?.milliseconds ?? 0) + 500)
        #expect(Timestamp("2024-01-01T00:00:00.123456789Z") == Timestamp("2024-01-01T00:00:00.123Z"))
    }

    @Test(arguments: [
        "", "2024", "2024-01-01", "2024-13-01T00:00:00Z", "2023-02-29T00:00:00Z", "2024-04-31T00:00:00Z",
        "2024-01-01T24:00:00Z", "2024-01-01T00:60:00Z", "2024-01-01T00:00:60Z", "2024-01-01T00:00:00", "0000-01-01T00:00:00Z",
        "2024-01-01T00:00:00.Z", "2024-01-01T00:00:00Zx", "2024-01-01T00:00:00+25:00", "٢٠٢٤-01-01T00:00:00Z",
    ])
    func refused(text: String) {
        #expect(Timestamp(text) == nil)
    }

    @Test func buildIsKnown() {
        #expect(!BuildID.version.isEmpty)
        #expect(BuildID.build.count >= 7)
    }
}

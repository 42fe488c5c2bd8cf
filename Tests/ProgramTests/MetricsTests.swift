import Glibc
import Program
import Testing

@Suite struct MetricsTests {
    private func text(_ metrics: Metrics) -> String { metrics.exposition() }

    @Test func exposition() {
        let metrics = Metrics()
        metrics.counter("requests_total", "Requests.", labels: [("code", "200")]).add(3)
        metrics.counter("requests_total", "Requests.", labels: [("code", "4\"\\\n")]).add()
        metrics.gauge("clients", "Clients\nby state.", labels: [("state", "online")]).set(-2)
        metrics.reading("load", "Load.") { 0.5 }
        #expect(
            text(metrics) == """
                # HELP requests_total Requests.
                # TYPE requests_total counter
                requests_total{code="200"} 3
                requests_total{code="4\\"\\\\\\n"} 1
                # HELP clients Clients\\nby state.
                # TYPE clients gauge
                clients{state="online"} -2
                # HELP load Load.
                # TYPE load gauge
                load 0.5

                """)
    }

    @Test func histograms() {
        let metrics = Metrics()
        let histogram = metrics.histogram("t_seconds", "T.", bounds: [0.1, 1])
        for value in [0.05, 0.1, 0.5, 7] { histogram.observe(value) }
        #expect(
            text(metrics).split(separator: "\n").dropFirst(2).joined(separator: "|")
                == #"t_seconds_bucket{le="0.1"} 2|t_seconds_bucket{le="1"} 3|t_seconds_bucket{le="+Inf"} 4|t_seconds_sum 7.65|t_seconds_count 4"#)
    }

    @Test func sameNameAndLabelsIsTheSameInstrument() {
        let metrics = Metrics()
        metrics.counter("a_total", "A.").add()
        metrics.counter("a_total", "A.").add()
        #expect(metrics.counter("a_total", "A.").value == 2)
    }

    @Test func labelsCannotGrowForEver() {
        let metrics = Metrics()
        for index in 0..<3_000 { metrics.counter("a_total", "A.", labels: [("path", "\(index)")]).add() }
        #expect(text(metrics).contains(#"a_total{path="other"} 2000"#))
        #expect(text(metrics).split(separator: "\n").count == 2 + Metrics.seriesLimit + 1)
    }

    @Test func manyThreadsLoseNothing() async {
        let metrics = Metrics()
        let counter = metrics.counter("a_total", "A.")
        let histogram = metrics.histogram("h", "H.", bounds: [1])
        await withTaskGroup { group in
            for _ in 0..<4 {
                group.addTask {
                    for _ in 0..<10_000 {
                        counter.add()
                        histogram.observe(1)
                    }
                }
            }
        }
        #expect(counter.value == 40_000)
        #expect(text(metrics).contains("h_sum 40000\n"))
    }

    @Test func processFigures() {
        let metrics = Metrics()
        metrics.registerProcess()
        let lines = text(metrics).split(separator: "\n")
        let memory = lines.first { $0.hasPrefix("process_resident_memory_bytes ") }?.split(separator: " ").last
        #expect((memory.flatMap { Int($0) } ?? 0) > 1 << 20)
        #expect(!text(metrics).contains("NaN"))
    }

    /// Other tests open and close some meanwhile; not three hundred.
    @Test func openDescriptorsAreCounted() throws {
        let metrics = Metrics()
        metrics.registerProcess()
        func count() throws -> Int {
            let line = text(metrics).split(separator: "\n").first { $0.hasPrefix("process_open_fds ") }
            return try #require(line?.split(separator: " ").last.flatMap { Int($0) })
        }
        let before = try count()
        let opened = (0..<400).map { _ in dup(0) }
        defer { for number in opened { close(number) } }
        try #require(opened.allSatisfy { $0 >= 0 })
        #expect((100...700).contains(try count() - before))
    }
}

import Synchronization

/// Only grows. Any thread, lock-free.
public final class Counter: Sendable {
    private let count = Atomic<UInt64>(0)
    init() {}
    @inline(__always)
    public func add(_ amount: UInt64 = 1) { count.wrappingAdd(amount, ordering: .relaxed) }
    public var value: UInt64 { count.load(ordering: .relaxed) }
}

/// Goes up and down. Any thread, lock-free.
public final class Gauge: Sendable {
    private let level = Atomic<Int64>(0)
    init() {}
    public func set(_ value: Int64) { level.store(value, ordering: .relaxed) }
    /// Negative amounts lower it.
    public func add(_ amount: Int64) { level.wrappingAdd(amount, ordering: .relaxed) }
    public var value: Int64 { level.load(ordering: .relaxed) }
}

/// Counts observations by size. Any thread, lock-free; a scrape during an observation may see its count before its sum.
public final class Histogram: Sendable {
    /// Upper bounds, rising; the last bucket is open.
    let bounds: [Double]
    private let buckets: [Counter]
    private let sumBits = Atomic<UInt64>(0)

    init(bounds: [Double]) {
        self.bounds = bounds
        buckets = (0...bounds.count).map { _ in Counter() }
    }

    public func observe(_ value: Double) {
        var index = 0
        while index < bounds.count, value > bounds[index] { index += 1 }
        buckets[index].add()
        var old = sumBits.load(ordering: .relaxed)
        while true {
            let new = (Double(bitPattern: old) + value).bitPattern
            let (exchanged, original) = sumBits.compareExchange(expected: old, desired: new, ordering: .relaxed)
            if exchanged { return }
            old = original
        }
    }

    /// Convenience for times measured on a monotonic clock.
    public func observe(nanoseconds: UInt64) { observe(Double(nanoseconds) / 1e9) }

    /// Counts per bucket, not cumulative, and the sum.
    var snapshot: (counts: [UInt64], sum: Double) {
        (buckets.map(\.value), Double(bitPattern: sumBits.load(ordering: .relaxed)))
    }

    /// Seconds, from 0.1 ms to 60 s.
    public static let latencyBounds: [Double] = [
        0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60,
    ]
    /// Bytes, from 256 to 64 MiB.
    public static let sizeBounds: [Double] = [256, 1024, 4096, 16384, 65536, 262_144, 1_048_576, 16_777_216, 67_108_864]
}

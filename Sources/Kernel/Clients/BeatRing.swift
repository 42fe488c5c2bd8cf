/// One kept heartbeat: 16 bytes.
public struct BeatSample: Sendable, Equatable {
    /// Unix seconds.
    public var at: UInt32
    public var roundTripMicroseconds: UInt32
    public var memoryAvailableKiB: UInt32
    /// Load average in hundredths; 65,535 stands for that and more.
    public var loadHundredths: UInt16
}

/// The last heartbeats of all clients in one array: a fixed place per slot, so a beat allocates nothing.
struct BeatRings: Sendable {
    /// Five minutes at the default interval of 15 s.
    static let length = 20

    private var samples: [BeatSample] = []
    /// Beats ever noted per slot, as far as the ring is concerned: position and fill in one byte pair.
    private var counts: [UInt16] = []

    mutating func reserve(slots: Int) {
        samples.reserveCapacity(slots * Self.length)
        counts.reserveCapacity(slots)
    }

    /// Makes place for the slot, or empties its place.
    mutating func reset(_ slot: UInt32) {
        let missing = Int(slot) + 1 - counts.count
        if missing > 0 {
            counts.append(contentsOf: repeatElement(0, count: missing))
            let none = BeatSample(at: 0, roundTripMicroseconds: 0, memoryAvailableKiB: 0, loadHundredths: 0)
            samples.append(contentsOf: repeatElement(none, count: missing * Self.length))
        }
        counts[Int(slot)] = 0
    }

    mutating func append(_ sample: BeatSample, to slot: UInt32) {
        let count = Int(counts[Int(slot)])
        samples[Int(slot) * Self.length + count % Self.length] = sample
        // Stays between one and two lengths once full, so it never overflows and keeps its place.
        counts[Int(slot)] = UInt16(count + 1 == 2 * Self.length ? Self.length : count + 1)
    }

    func last(of slot: UInt32) -> BeatSample? {
        let count = Int(counts[Int(slot)])
        return count == 0 ? nil : samples[Int(slot) * Self.length + (count - 1) % Self.length]
    }

    /// Oldest first.
    func history(of slot: UInt32) -> [BeatSample] {
        let count = Int(counts[Int(slot)])
        let kept = min(count, Self.length)
        return (0..<kept).map { samples[Int(slot) * Self.length + (count - kept + $0) % Self.length] }
    }
}

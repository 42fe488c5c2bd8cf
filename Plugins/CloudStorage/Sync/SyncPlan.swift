/// What a synchronisation is to do, from two lists. A value: no store is asked here.
struct SyncPlan: Sendable {
    enum Comparison: String, Sendable {
        /// Another size, or a source that is newer than its copy.
        case time
        case size
        /// Another content, whatever the time.
        case hash
    }

    enum Verdict: Sendable, Equatable {
        case same, differs
        /// The lists do not tell: their hashes have to be got.
        case unknown
    }

    struct Step: Sendable, Equatable {
        enum Act: String, Sendable { case copy, replace, remove, compare }
        var act: Act
        let key: String
        let size: Int64
    }

    private(set) var steps: [Step] = []
    private(set) var same = 0
    private(set) var left = 0

    /// - Parameter source, target: by key below their prefixes; folders are left out.
    init(_ source: [String: ObjectInfo], _ target: [String: ObjectInfo], _ comparison: Comparison, removes: Bool) {
        for key in source.keys.sorted(by: { $0.utf8.lexicographicallyPrecedes($1.utf8) }) {
            guard let one = source[key] else { continue }
            guard let other = target[key] else {
                steps.append(Step(act: .copy, key: key, size: one.size))
                continue
            }
            switch Self.verdict(one, other, comparison) {
            case .same: same += 1
            case .differs: steps.append(Step(act: .replace, key: key, size: one.size))
            case .unknown: steps.append(Step(act: .compare, key: key, size: one.size))
            }
        }
        for key in target.keys.sorted(by: { $0.utf8.lexicographicallyPrecedes($1.utf8) }) where source[key] == nil {
            guard removes else {
                left += 1
                continue
            }
            steps.append(Step(act: .remove, key: key, size: target[key]?.size ?? 0))
        }
    }

    static func verdict(_ source: ObjectInfo, _ target: ObjectInfo, _ comparison: Comparison) -> Verdict {
        guard source.size == target.size else { return .differs }
        switch comparison {
        case .size: return .same
        case .time: return source.modifiedMilliseconds > target.modifiedMilliseconds ? .differs : .same
        case .hash:
            if let one = source.md5, let other = target.md5 { return one == other ? .same : .differs }
            if let one = source.sha256, let other = target.sha256 { return one == other ? .same : .differs }
            return .unknown
        }
    }
}

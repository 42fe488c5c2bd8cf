import JSON
import PluginKit

/// What a synchronisation did, line by line, as JSON lines in a blob of the plugin's. Kept for thirty days.
final class Report: Sendable {
    private let cloud: Cloud
    private let name: String
    private let lines = Monitor<[UInt8]>([])
    private static let block = 64 << 10
    private static let keptMilliseconds: UInt64 = 30 * 86_400_000

    init(_ cloud: Cloud, job: String) {
        self.cloud = cloud
        name = Self.name(job)
    }

    static func name(_ job: String) -> String { "reports/\(job).jsonl" }
    private static func record(_ job: String) -> String { "report/" + job }

    /// Anew with each attempt: what an earlier one did shows as already the same.
    func begin() throws(CloudError) {
        let job = name.dropFirst("reports/".count).dropLast(".jsonl".count)
        let now = cloud.executor.now
        try CloudError.kept { () throws(PluginError) in
            if try cloud.store.size(name) != nil { try cloud.store.removeBlob(name) }
            try cloud.store.transaction { (transaction) throws(PluginError) in
                try transaction.put(Self.record(String(job)), JSONValue.object(["at_ms": .integer(Int64(clamping: now))]).serialized())
            }
        }
    }

    func add(_ act: String, _ key: String, _ size: Int64, _ reason: String?) {
        var line: JSONObject = ["act": .string(act), "key": .string(key), "size": .integer(size)]
        if let reason { line["reason"] = .string(String(decoding: reason.utf8.prefix(500), as: UTF8.self)) }
        let bytes = JSONValue.object(line).serialized() + [0x0A]
        let block: [UInt8] = lines.update { lines in
            lines += bytes
            guard lines.count >= Self.block else { return [] }
            defer { lines.removeAll(keepingCapacity: true) }
            return lines
        }
        if !block.isEmpty { _ = try? cloud.store.append(name, block) }
    }

    func finish() throws(CloudError) {
        let rest = lines.update { lines in
            defer { lines = [] }
            return lines
        }
        try CloudError.kept { () throws(PluginError) in
            try cloud.store.append(name, rest)
            try cloud.store.sync(name)
        }
    }

    /// Old ones go. On a worker.
    static func sweep(_ cloud: Cloud) {
        let oldest = cloud.executor.now - min(cloud.executor.now, keptMilliseconds)
        guard let page = try? cloud.store.list(prefix: "report/") else { return }
        for key in page.items {
            guard let bytes = try? cloud.store.get(key), let at = (try? JSONValue(parsing: bytes))?["at_ms"]?.integer,
                UInt64(clamping: at) < oldest
            else { continue }
            try? cloud.store.removeBlob(name(String(key.dropFirst("report/".count))))
            try? cloud.store.transaction { (transaction) throws(PluginError) in try transaction.remove(key) }
        }
    }
}

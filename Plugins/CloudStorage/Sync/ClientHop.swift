import JSON
import PluginKit

/// The part of a copy that lies between a client and the core's store: a transfer of the core's own, looked at until it has ended.
/// An attempt that is interrupted leaves it running, and the next one finds it by the job's checkpoint.
struct ClientHop: Sendable {
    let cloud: Cloud
    let attempt: JobAttempt
    let cancellation: Cancellation
    let ledger: any HopLedger
    /// It is all that the job does, and its progress the job's.
    let isAlone: Bool
    /// The longest that a transfer may take; what has begun before that is over.
    static let withinSeconds: Int64 = 86_400

    /// What an earlier attempt began or has done already.
    private var checkpoint: JSONValue { ledger.state }
    /// A file that came into the store in an earlier attempt.
    var keptFile: String? { checkpoint["file"]?.string }

    func keep(file: String) throws(CloudError) { try ledger.keep(["file": .string(file)]) }

    private var isDirect: Bool { checkpoint["direct"]?.bool == true }
    /// An earlier attempt has begun to go by way of the core.
    var isRelayed: Bool { keptFile != nil || checkpoint["transfer"] != nil && !isDirect }
    /// The transfer of an earlier attempt.
    private func known(direct: Bool) -> String? { isDirect == direct ? checkpoint["transfer"]?.string : nil }

    /// Straight between the client and the store. `url` makes one that is good for this object for `seconds`.
    func direct(
        _ direction: String, _ client: String, _ path: String, size: Int64?, seconds: Int, url: () throws(CloudError) -> String
    ) throws(CloudError) -> JSONValue {
        func order() throws(CloudError) -> JSONObject {
            var order: JSONObject = [
                "direction": .string(direction), "clients": [.string(client)], "path": .string(path), "url": .string(try url()),
                "within_s": .integer(Int64(seconds)),
            ]
            if direction == "push" { order["make_parents"] = true }
            if let size { order["size"] = .integer(size) }
            return order
        }
        let state: JSONObject = ["direct": true]
        do throws(CloudError) {
            return try run(try order(), state, known: known(direct: true), from: 0, upTo: 1_000)
        } catch where error.code == "url-lost" {
            // The core was started anew, and it keeps no URL.
            return try run(try order(), state, known: nil, from: 0, upTo: 1_000)
        }
    }

    /// Client to store; answers the id of the stored file.
    /// - Parameter name: what it is called there; else as on the client.
    func pull(_ client: String, _ path: String, name: String? = nil) throws(CloudError) -> String {
        if let file = keptFile {
            if isThere(file) { return file }
            attempt.log("the file that had come from the client is not in the core's store any more; it is fetched again")
        }
        var order: JSONObject = [
            "direction": "pull", "clients": [.string(client)], "path": .string(path), "within_s": .integer(Self.withinSeconds),
        ]
        if let name { order["name"] = .string(name) }
        let ended = try run(order, [:], known: known(direct: false), from: 0, upTo: 500)
        guard let file = ended["file"]?.string else { throw CloudError(.internal, "the transfer names no file") }
        try keep(file: file)
        return file
    }

    private func isThere(_ file: String) -> Bool {
        let attempt = attempt
        do throws(PluginError) {
            _ = try cloud.host.files().get(file, as: .job(attempt))
            return true
        } catch { return error.status != .notFound }
    }

    /// Store to client.
    /// - Parameter modified: the file's time there, in nanoseconds; without it that of its coming.
    func push(_ file: String, _ client: String, _ path: String, modified: Int64? = nil) throws(CloudError) {
        var order: JSONObject = [
            "direction": "push", "clients": [.string(client)], "path": .string(path), "file": .string(file), "form": "file", "make_parents": true,
            "within_s": .integer(Self.withinSeconds),
        ]
        if let modified { order["modified_ns"] = .integer(modified) }
        _ = try run(order, ["file": .string(file)], known: known(direct: false), from: 500, upTo: 1_000)
    }

    /// The order with a key that stands in the ledger before it goes out: should nobody hear that the transfer was taken, the next attempt
    /// asks for it with the same key, and gets the same one.
    private func marked(_ order: JSONObject, _ state: JSONObject) throws(CloudError) -> JSONObject {
        let direction = order["direction"]?.string ?? ""
        if let key = checkpoint["key"]?.string, key.hasSuffix(direction) { return order.merged(["idempotency_key": .string(key)]) }
        let key = JSONValue.string("\(ledger.label)-\(attempt.number)-\(direction)")
        try ledger.keep(state.merged(["key": key, "since_ms": .integer(Int64(clamping: cloud.executor.now))]))
        return order.merged(["idempotency_key": key])
    }

    private func run(
        _ order: JSONObject, _ state: JSONObject, known: String?, from first: Int64, upTo last: Int64
    ) throws(CloudError) -> JSONValue {
        let files = try CloudError.kept { () throws(PluginError) in try cloud.host.files() }
        let (attempt, isAlone) = (attempt, isAlone)
        // What the core says of it, on the plugin's own thread.
        let end = Monitor<JSONValue?>(nil)
        let progress: (JSONValue) -> Void = { seen in
            let (done, size) = (seen["bytes"]?.integer ?? 0, seen["size"]?.integer ?? 0)
            guard size > 0, isAlone else { return }
            attempt.progress(UInt32(clamping: first + min(done, size) * (last - first) / size), "\(done) of \(size) bytes from or to the client")
        }
        let ended: (JSONValue) -> Void = { seen in end.update { $0 = seen } }
        let id: String
        if let known {
            id = known
            _ = try CloudError.kept { () throws(PluginError) in try files.watch(known, as: .job(attempt), progress: progress, ended: ended) }
        } else {
            // One that goes straight has another URL each time, and leaves nothing in the store.
            let wanted = state["direct"] == nil ? try marked(order, state) : order
            id = try CloudError.kept { () throws(PluginError) in try files.transfer(wanted, as: .job(attempt), progress: progress, ended: ended) }
            try ledger.keep(state.merged(["transfer": .string(id)]))
        }
        while true {
            if let seen = end.wait(milliseconds: 250, { $0 }) {
                guard seen["state"]?.string != "succeeded" else { return seen }
                // An attempt that somebody asks for later begins anew.
                try ledger.keep(state)
                var error = CloudError(.refused, "the transfer \(id) ended: \(seen["reason"]?.string ?? seen["state"]?.string ?? "")")
                error.core = (seen["code"]?.string ?? "", 0)
                throw error
            }
            guard cancellation.isCancelled else { continue }
            // A plugin that goes leaves it running for the next attempt; who called the job off wants nothing of it.
            if attempt.isUnwanted(cloud) { try? files.cancelTransfer(id, as: .job(attempt)) }
            throw CloudError(.cancelled, "the work was called off")
        }
    }

    /// What lay in the store on the way only.
    func remove(_ file: String) {
        let attempt = attempt
        do throws(PluginError) {
            try cloud.host.files().remove(file, as: .job(attempt))
        } catch {
            cloud.host.log.warning("copy.file-left", ["file": .string(file), "reason": .string(error.text)])
        }
    }
}

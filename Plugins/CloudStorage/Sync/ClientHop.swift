import JSON
import PluginKit

/// The part of a copy that lies between a client and the core's store: a transfer of the core's own, looked at until it has ended.
/// An attempt that is interrupted leaves it running, and the next one finds it by the job's checkpoint.
struct ClientHop: Sendable {
    let cloud: Cloud
    let attempt: JobAttempt
    let cancellation: Cancellation

    /// What an earlier attempt began or has done already.
    private var checkpoint: JSONValue { (try? JSONValue(parsing: attempt.checkpoint)) ?? .null }
    /// A file that came into the store in an earlier attempt.
    var keptFile: String? { checkpoint["file"]?.string }

    func keep(file: String) throws(CloudError) { try keep(["file": .string(file)]) }

    private func keep(_ state: JSONObject) throws(CloudError) {
        let bytes = JSONValue.object(state).serialized()
        try CloudError.kept { () throws(PluginError) in try attempt.keep(bytes) }
    }

    /// Client to store; answers the id of the stored file.
    func pull(_ client: String, _ path: String) throws(CloudError) -> String {
        if let file = keptFile { return file }
        let ended = try run(["direction": "pull", "clients": [.string(client)], "path": .string(path)], [:], upTo: 500)
        guard let file = ended["file"]?.string else { throw CloudError(.internal, "the transfer names no file") }
        try keep(file: file)
        return file
    }

    /// Store to client.
    func push(_ file: String, _ client: String, _ path: String) throws(CloudError) {
        let order: JSONObject = [
            "direction": "push", "clients": [.string(client)], "path": .string(path), "file": .string(file), "form": "file", "make_parents": true,
        ]
        _ = try run(order, ["file": .string(file)], upTo: 1_000)
    }

    private func run(_ order: JSONObject, _ state: JSONObject, upTo permille: Int64) throws(CloudError) -> JSONValue {
        let files = try CloudError.kept { () throws(PluginError) in try cloud.host.files() }
        let attempt = attempt
        // What the core says of it, on the plugin's own thread.
        let end = Monitor<JSONValue?>(nil)
        let progress: (JSONValue) -> Void = { seen in
            let (done, size) = (seen["bytes"]?.integer ?? 0, seen["size"]?.integer ?? 0)
            guard size > 0 else { return }
            attempt.progress(UInt32(clamping: permille - 500 + min(done, size) * 500 / size), "\(done) of \(size) bytes between client and core")
        }
        let ended: (JSONValue) -> Void = { seen in end.update { $0 = seen } }
        let id: String
        if let known = checkpoint["transfer"]?.string {
            id = known
            _ = try CloudError.kept { () throws(PluginError) in try files.watch(known, as: .job(attempt), progress: progress, ended: ended) }
        } else {
            id = try CloudError.kept { () throws(PluginError) in try files.transfer(order, as: .job(attempt), progress: progress, ended: ended) }
            try keep(state.merged(["transfer": .string(id)]))
        }
        while true {
            if let seen = end.wait(milliseconds: 250, { $0 }) {
                guard seen["state"]?.string != "succeeded" else { return seen }
                var error = CloudError(.refused, "the transfer \(id) ended: \(seen["reason"]?.string ?? seen["state"]?.string ?? "")")
                error.core = (seen["code"]?.string ?? "", 0)
                throw error
            }
            guard cancellation.isCancelled else { continue }
            // A plugin that stops leaves it running for the next attempt; who called the job off wants nothing of it.
            if !cloud.stopping.isCancelled { try? files.cancelTransfer(id, as: .job(attempt)) }
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

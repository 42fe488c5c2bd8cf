import JSON
import PluginKit

/// An object on its way into a file of the core's store. An attempt after an interruption goes on where the file is durable, if the
/// object is still the same version; its hash is then taken from the file once it is whole.
struct CopyDownload {
    let cloud: Cloud
    let attempt: JobAttempt
    let store: any ObjectStore
    let key: String
    let name: String

    /// The file that was begun, and of what.
    private struct Mark {
        let file: String
        let size: Int64
        let etag: String

        var json: JSONValue { ["file": .string(file), "size": .integer(size), "etag": .string(etag)] }

        init(file: String, _ info: ObjectInfo) { (self.file, size, etag) = (file, info.size, info.etag) }

        init?(_ json: JSONValue?) {
            guard let file = json?["file"]?.string, let size = json?["size"]?.integer, let etag = json?["etag"]?.string else { return nil }
            (self.file, self.size, self.etag) = (file, size, etag)
        }

        /// Without a tag nobody knows whether it is the same.
        func isOf(_ info: ObjectInfo) -> Bool { !etag.isEmpty && etag == info.etag && size == info.size }
    }

    func run(_ cancellation: Cancellation) throws(CloudError) -> (file: JSONValue, proof: ReadProof) {
        let files = try CloudError.kept { () throws(PluginError) in try cloud.host.files() }
        if let mark = Mark((try? JSONValue(parsing: attempt.checkpoint))?["download"]), let done = try goOn(files, mark, cancellation) { return done }
        let attempt = attempt
        let sink = FileSink(files, as: .job(attempt), name: name) { (file, info) throws(CloudError) in
            let checkpoint: JSONObject = ["download": Mark(file: file, info).json]
            try CloudError.kept { () throws(PluginError) in try attempt.keep(JSONValue.object(checkpoint).serialized()) }
        }
        do throws(CloudError) {
            let proof = try store.read(key, range: nil, into: sink, cancellation)
            return (try sink.finish(), proof)
        } catch {
            leave(sink, error)
            throw error
        }
    }

    /// `nil`: that cannot be gone on with, and nothing is left of it.
    private func goOn(_ files: Files, _ mark: Mark, _ cancellation: Cancellation) throws(CloudError) -> (file: JSONValue, proof: ReadProof)? {
        let info = try store.look(key, cancellation)
        let attempt = attempt
        let writer: FileWriter?
        do throws(PluginError) {
            writer = try files.resume(mark.file, as: .job(attempt))
        } catch {
            // It became whole, and nobody wrote that down; or it is gone.
            guard mark.isOf(info), let about = try? files.get(mark.file, as: .job(attempt)), about["state"]?.string == "whole" else {
                attempt.log("the file that was begun cannot be gone on with (\(error.text)); it begins anew")
                return nil
            }
            return (about, try judge(files, mark.file, info, cancellation))
        }
        guard let writer else { return nil }
        guard mark.isOf(info) else {
            attempt.log("\"\(key)\" is not the object any more that was begun; it begins anew")
            writer.discard()
            return nil
        }
        let sink = FileSink(files, as: .job(attempt), goingOn: writer, of: info)
        do throws(CloudError) {
            if writer.offset < UInt64(clamping: info.size) {
                attempt.log("the download goes on after \(writer.offset) bytes")
                _ = try store.read(key, range: writer.offset == 0 ? nil : .from(Int64(clamping: writer.offset)), into: sink, cancellation)
            }
            let about = try sink.finish()
            return (about, try judge(files, mark.file, info, cancellation))
        } catch where error.kind == .range {
            attempt.log("the store does not go on with \"\(key)\"; it begins anew")
            sink.discard()
            return nil
        } catch {
            leave(sink, error)
            throw error
        }
    }

    /// What a store says that the object hashes to, against the whole file.
    private func judge(_ files: Files, _ file: String, _ info: ObjectInfo, _ cancellation: Cancellation) throws(CloudError) -> ReadProof {
        let attempt = attempt
        let verifier = Verifier(info, isWhole: true)
        guard verifier.proof != .none else { return .none }
        let reader = try CloudError.kept { () throws(PluginError) in try files.open(file, as: .job(attempt)) }
        defer { reader.close() }
        let source = FileSource(reader)
        do throws(CloudError) {
            var (piece, goesOn): ([UInt8], Bool) = ([], true)
            while goesOn {
                if cancellation.isCancelled { throw CloudError(.cancelled, "the work was called off") }
                piece.removeAll(keepingCapacity: true)
                goesOn = try source.read(1 << 20, into: &piece)
                piece.withUnsafeBytes { verifier.update($0) }
            }
            try verifier.finish(key)
        } catch {
            if error.kind == .checksum { try? files.remove(file, as: .job(attempt)) }
            throw error
        }
        return verifier.proof
    }

    private func leave(_ sink: FileSink, _ error: CloudError) {
        let goesOn = error.isPassing || error.kind == .cancelled && !attempt.isUnwanted(cloud)
        if goesOn { sink.release() } else { sink.discard() }
    }
}

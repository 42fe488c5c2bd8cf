/// Brings one object from a store into another, or from one key to another in the same store.
struct Mover: Sendable {
    let cloud: Cloud
    let uploads: JobUploads
    /// Whose uploads these are.
    let job: String

    func move(
        _ from: any ObjectStore, _ source: String, _ to: any ObjectStore, _ target: String, _ cancellation: Cancellation
    ) throws(CloudError) -> Int64 {
        if from.remote.name == to.remote.name {
            let work = JobUploads.part(of: job, "\(to.remote.name)/\(target)")
            try uploads.watched(work, to.remote.name, target, cancellation) { (began) throws(CloudError) in
                try from.copy(source, target, nil, began: began, cancellation)
            }
            return try to.look(target, cancellation).size
        }
        let pipe = Pipe(cancellation)
        // A thread of its own for the reading side; the writing side is this one.
        let isTaken = cloud.readers.submit {
            do throws(CloudError) {
                _ = try from.read(source, range: nil, into: pipe, cancellation)
                pipe.finish(nil)
            } catch {
                pipe.finish(error)
            }
        }
        guard isTaken else { throw CloudError(.busy, "too many copies wait; try again") }
        defer { pipe.close() }
        let info = try pipe.info()
        var options = ObjectOptions(contentType: info.contentType.isEmpty ? nil : info.contentType)
        if to.remote.kind == .s3 { options.metadata = info.metadata.filter { $0.name.utf8.allSatisfy { $0 >= 0x20 && $0 < 0x7F } } }
        return try write(to, target, pipe, size: info.size, options, cancellation)
    }

    /// What comes from `source` becomes an object. Its upload in parts, where it has one, is on record until it has ended.
    func write(
        _ to: any ObjectStore, _ target: String, _ source: any ByteSource, size: Int64, _ options: ObjectOptions, _ cancellation: Cancellation
    ) throws(CloudError) -> Int64 {
        let work = JobUploads.part(of: job, "\(to.remote.name)/\(target)")
        let stored = try uploads.watched(work, to.remote.name, target, cancellation) { (began) throws(CloudError) in
            try to.write(target, source, options, resume: nil, began: began, cancellation)
        }
        guard stored.size == size else { throw CloudError(.checksum, "\"\(target)\" has \(stored.size) bytes, and \(size) were sent") }
        return stored.size
    }
}

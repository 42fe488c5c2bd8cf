import CObjectStore
import CPluginABI
import JSON
import PluginKit

/// The service `client-manager.object-store/1`, as service/object_store.h declares it. Its functions run on their callers' threads:
/// they copy, look into nothing but locks of this file, and leave the work to the plugin's own threads.
final class ObjectStoreService: Sendable {
    private let cloud: Cloud
    private let remotes: Remotes
    private let uploads: JobUploads
    private let writers = Monitor<(last: UInt64, open: [UInt64: Pipe])>((0, [:]))
    static let mostBytes = 8 << 20
    private static let mostWriters = 64
    private static let shared = Monitor<ObjectStoreService?>(nil)

    init(_ cloud: Cloud, _ remotes: Remotes) {
        self.cloud = cloud
        self.remotes = remotes
        uploads = JobUploads(cloud, remotes)
    }

    /// The table stays for the life of the process: others may still look at it after `stop`.
    func publish(_ services: Services) throws(PluginError) {
        Self.shared.update { $0 = self }
        let table = UnsafeMutablePointer<cm_object_store>.allocate(capacity: 1)
        table.initialize(
            to: cm_object_store(
                head: cm_head(size: UInt32(MemoryLayout<cm_object_store>.size), revision: 1), put: servicePut, get: serviceGet, stat: serviceStat,
                list: serviceList, remove: serviceRemove, writer_begin: serviceWriterBegin, writer_write: serviceWriterWrite,
                writer_end: serviceWriterEnd, writer_abort: serviceWriterAbort))
        try services.publish(CM_OBJECT_STORE, UnsafePointer(table))
    }

    static var current: ObjectStoreService? { ServiceState.isStopped ? nil : shared.update { $0 } }

    /// What a caller gave to hear of the end. Carried to another thread as it is: what `context` means is the caller's business.
    ///
    /// Unchecked: a pointer that is only handed back.
    struct Ending: @unchecked Sendable {
        let done: cm_object_done
        let context: UnsafeMutableRawPointer?

        func tell(_ result: Result<Answer, CloudError>) {
            var answer = Answer()
            var failure: CloudError?
            switch result {
            case .success(let value): answer = value
            case .failure(let error): failure = error
            }
            Borrowed.texts([failure?.code ?? "", failure?.detail ?? ""]) { texts in
                answer.json.withUnsafeBytes { json in
                    answer.content.withUnsafeBufferPointer { content in
                        var result = cm_object_result()
                        result.head = cm_head(size: UInt32(MemoryLayout<cm_object_result>.size), revision: 1)
                        result.status = failure.map { ObjectStoreService.status($0) } ?? CM_OK
                        result.http_status = UInt32(failure?.httpStatus ?? 200)
                        result.code = texts[0]
                        result.text = texts[1]
                        result.json = cm_text(data: json.baseAddress?.assumingMemoryBound(to: CChar.self), size: UInt64(json.count))
                        result.content = cm_bytes(data: content.baseAddress, size: UInt64(content.count))
                        done(context, &result)
                    }
                }
            }
        }
    }

    struct Answer: Sendable {
        var json: [UInt8] = []
        var content: [UInt8] = []
    }

    static func status(_ error: CloudError) -> cm_status {
        switch error.kind {
        case .notFound: CM_E_NOT_FOUND
        case .denied, .readOnly: CM_E_DENIED
        case .invalid, .range: CM_E_INVALID
        case .conflict: CM_E_EXISTS
        case .unsupported: CM_E_UNSUPPORTED
        case .timeout: CM_E_TIMEOUT
        case .cancelled: CM_E_GONE
        case .internal, .checksum, .answer, .refused, .tls: CM_E_INTERNAL
        case .busy, .unreachable, .dropped: CM_E_UNAVAILABLE
        }
    }

    // MARK: Work

    private func open(_ name: String, writing: Bool) throws(CloudError) -> any ObjectStore {
        guard let remote = try remotes.find(name), remote.isForServices else {
            throw CloudError(.notFound, "there is no remote \"\(name.prefix(64))\" that is open for plugins")
        }
        guard !writing || !remote.isReadOnly else { throw CloudError(.readOnly, "remote \"\(name)\" is read-only") }
        return try remotes.open(name)
    }

    private func run(_ pool: Pool, _ ending: Ending, _ work: @escaping @Sendable () throws(CloudError) -> Answer) -> cm_status {
        let isTaken = pool.submit { ending.tell(S3Upload.caught(work)) }
        return isTaken ? CM_OK : CM_E_BUSY
    }

    private func write(
        _ store: any ObjectStore, _ key: String, _ source: any ByteSource, _ options: ObjectOptions, _ cancellation: Cancellation
    ) throws(CloudError) -> Stored {
        try uploads.watched(store.remote.name, key, cancellation) { (began) throws(CloudError) in
            try store.write(key, source, options, resume: nil, began: began, cancellation)
        }
    }

    func put(_ remote: String, _ key: String, _ type: String, _ content: [UInt8], _ ending: Ending) -> cm_status {
        run(cloud.calls, ending) { [self] () throws(CloudError) in
            let store = try open(remote, writing: true)
            let options = ObjectOptions(contentType: type.isEmpty ? nil : try Header.contentType(type))
            try cloud.record("cloud.write", as: .plugin, "\(remote)/\(key)", detail: ["service": true])
            let stored = try write(store, key, MemorySource(content), options, cloud.stopping)
            return Answer(json: JSONValue.object(stored.json).serialized())
        }
    }

    func get(_ remote: String, _ key: String, _ offset: UInt64, _ limit: UInt64, _ ending: Ending) -> cm_status {
        run(cloud.calls, ending) { [self] () throws(CloudError) in
            let store = try open(remote, writing: false)
            try cloud.record("cloud.read", as: .plugin, "\(remote)/\(key)", detail: ["service": true])
            let info = try store.look(key, cloud.stopping)
            guard offset < UInt64(info.size), limit > 0 else { return Answer(json: info.json.serialized()) }
            let sink = MemorySink(limit: Self.mostBytes)
            let last = min(offset + limit, UInt64(info.size)) - 1
            let isWhole = offset == 0 && last == UInt64(info.size) - 1
            _ = try store.read(key, range: isWhole ? nil : .between(Int64(offset), Int64(last)), into: sink, cloud.stopping)
            return Answer(json: info.json.serialized(), content: sink.bytes)
        }
    }

    func stat(_ remote: String, _ key: String, _ ending: Ending) -> cm_status {
        run(cloud.calls, ending) { [self] () throws(CloudError) in
            Answer(json: try open(remote, writing: false).look(key, cloud.stopping).json.serialized())
        }
    }

    func list(_ remote: String, _ prefix: String, _ cursor: String, _ limit: UInt32, _ ending: Ending) -> cm_status {
        run(cloud.calls, ending) { [self] () throws(CloudError) in
            let page = try open(remote, writing: false).list(
                prefix: prefix, delimiter: false, cursor: cursor.isEmpty ? nil : cursor, limit: Int(limit), cloud.stopping)
            return Answer(
                json: JSONValue.object(["items": .array(page.objects.map(\.json)), "next": page.next.map { .string($0) } ?? .null]).serialized())
        }
    }

    func remove(_ remote: String, _ key: String, _ ending: Ending) -> cm_status {
        run(cloud.calls, ending) { [self] () throws(CloudError) in
            let store = try open(remote, writing: true)
            try cloud.record("cloud.delete", as: .plugin, "\(remote)/\(key)", detail: ["service": true])
            try store.remove(key, cloud.stopping)
            return Answer()
        }
    }

    // MARK: Writers

    func beginWriter(_ remote: String, _ key: String, _ type: String, _ ending: Ending, _ writer: inout UInt64) -> cm_status {
        let cancellation = Cancellation(under: cloud.stopping)
        let pipe = Pipe(cancellation)
        let handle: UInt64? = writers.update { writers in
            guard writers.open.count < Self.mostWriters else { return nil }
            writers.last += 1
            writers.open[writers.last] = pipe
            return writers.last
        }
        guard let handle else { return CM_E_BUSY }
        let status = run(cloud.streams, ending) { [self] () throws(CloudError) in
            defer {
                pipe.close()
                writers.update { $0.open[handle] = nil }
            }
            let store = try open(remote, writing: true)
            let options = ObjectOptions(contentType: type.isEmpty ? nil : try Header.contentType(type))
            try cloud.record("cloud.write", as: .plugin, "\(remote)/\(key)", detail: ["service": true])
            return Answer(json: JSONValue.object(try write(store, key, pipe, options, cancellation).json).serialized())
        }
        guard status == CM_OK else {
            writers.update { $0.open[handle] = nil }
            return status
        }
        writer = handle
        return CM_OK
    }

    func write(_ writer: UInt64, _ piece: [UInt8]) -> cm_status {
        guard let pipe = writers.update({ $0.open[writer] }) else { return CM_E_GONE }
        return switch pipe.offer(piece) {
        case true?: CM_OK
        case false?: CM_E_GONE
        case nil: CM_E_BUSY
        }
    }

    func end(_ writer: UInt64, _ failure: CloudError?) -> cm_status {
        guard let pipe = writers.update({ $0.open[writer] }) else { return CM_E_GONE }
        pipe.finish(failure)
        return CM_OK
    }
}

/// Texts seen as `cm_text` for the length of a call, and copies of what callers show.
enum Borrowed {
    static func texts(_ texts: [String], _ body: ([cm_text]) -> Void) {
        var whole: [UInt8] = []
        var ranges: [Range<Int>] = []
        for text in texts {
            let start = whole.count
            whole += Array(text.utf8)
            ranges.append(start..<whole.count)
        }
        whole.withUnsafeBytes { bytes in
            let base = bytes.baseAddress?.assumingMemoryBound(to: CChar.self)
            body(ranges.map { range in cm_text(data: base.map { $0 + range.lowerBound }, size: UInt64(range.count)) })
        }
    }

    /// `nil`: longer than a name may be.
    static func text(_ text: cm_text) -> String? {
        guard text.size <= 4_096 else { return nil }
        return String(decoding: UnsafeRawBufferPointer(start: text.data, count: Int(text.size)), as: UTF8.self)
    }

    static func bytes(_ bytes: cm_bytes) -> [UInt8] { [UInt8](UnsafeRawBufferPointer(start: bytes.data, count: Int(bytes.size))) }
}

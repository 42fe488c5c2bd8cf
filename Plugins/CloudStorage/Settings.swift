import JSON

/// `plugins.settings."client-manager.cloud"`.
struct Settings: Sendable {
    /// For parts of uploads, over all of them.
    var memoryBytes = 128 << 20
    /// Requests and jobs that move content at the same time.
    var streams = 16
    /// An upload in parts that nobody went on with is given up after this.
    var keepUploadsHours: UInt64 = 24

    init(_ section: JSONObject) {
        memoryBytes = section["memory_bytes"]?.integer.map { Int($0) } ?? memoryBytes
        streams = section["streams"]?.integer.map { Int($0) } ?? streams
        keepUploadsHours = section["keep_uploads_h"]?.integer.flatMap { UInt64(exactly: $0) } ?? keepUploadsHours
    }
}

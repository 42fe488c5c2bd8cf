import Kernel
import Web

/// `GET /api/v1/files/{file}/content`: the bytes, as a stream; one range of them with `Range`.
func downloadRoute(_ files: FileStore) -> Route {
    Route(
        .get, "/api/v1/files/{file}/content", right: .readFiles,
        "The bytes of a whole file; one range of them with Range and If-Range. ETag is the SHA-256.",
        answers: [
            Route.Answer(200, "All bytes; those of a tree are a tar archive.", contentTypes: [fileType, treeType]),
            Route.Answer(206, "The range.", contentTypes: [fileType, treeType]),
            Route.Answer(416, "The file has no such range; Content-Range says how long it is."),
        ], auditedRead: "file.read"
    ) { (request) async throws(Problem) in
        let file = try await files.get(try FileReading.id(request), for: request.principal, .readFiles)
        let reader = try await files.open(file.id)
        let tag = file.digest?.hex ?? ""
        let response: Response
        switch ByteRange.requested(request, size: reader.size, tag: tag) {
        case .whole:
            response = content(reader, 0..<reader.size, isHead: request.method == .head)
        case .part(let range):
            response = content(reader, range, status: 206, isHead: request.method == .head)
                .with("content-range", "bytes \(range.lowerBound)-\(range.upperBound - 1)/\(reader.size)")
        case .nothing:
            return Response(status: 416, headers: ["content-range": "bytes */\(reader.size)"], body: .bytes([]))
        }
        return FileWriting.positioned(response.tagged(tag), file)
            .with("accept-ranges", "bytes").with("content-disposition", disposition(file.name))
    }
}

private let fileType = "application/octet-stream"
private let treeType = "application/x-tar"

/// Two pieces in memory for a reader, and what its connection takes beyond that: the next is read while one is sent.
private let downloadPiece = 256 << 10

private func content(_ reader: FileReader, _ range: Range<UInt64>, status: Int = 200, isHead: Bool) -> Response {
    let length = range.upperBound - range.lowerBound
    return .stream(contentType: reader.file.form == .tree ? treeType : fileType, length: length, status: status) { (writer) async throws(StreamClosed) in
        if isHead { return }
        var offset = range.lowerBound
        while offset < range.upperBound {
            let count = Int(min(UInt64(downloadPiece), range.upperBound - offset))
            // A read that fails now can only be told by ending the body early.
            guard let piece = try? await reader.read(at: offset, count: count), piece.count == count else { throw StreamClosed() }
            try await writer.write(piece)
            offset += UInt64(count)
        }
    }
}

/// What a download is saved as (RFC 6266, RFC 8187).
private func disposition(_ name: String) -> String {
    var text = "attachment; filename*=UTF-8''"
    for byte in name.utf8 {
        switch byte {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x2D, 0x2E, 0x5F, 0x7E: text.unicodeScalars.append(Unicode.Scalar(byte))
        default:
            let digits = String(byte, radix: 16, uppercase: true)
            text += byte < 16 ? "%0\(digits)" : "%\(digits)"
        }
    }
    return text
}

/// The `Range` field of a request (RFC 9110 §14).
enum ByteRange: Equatable {
    case whole
    case part(Range<UInt64>)
    case nothing

    /// A range of another unit, several ranges, or nonsense is no range: the whole is the answer.
    static func requested(_ request: Request, size: UInt64, tag: String) -> ByteRange {
        if let condition = request.headers["if-range"], condition != "\"\(tag)\"" { return .whole }
        return request.headers["range"].map { requested($0, size: size) } ?? .whole
    }

    static func requested(_ field: String, size: UInt64) -> ByteRange {
        guard field.lowercased().hasPrefix("bytes=") else { return .whole }
        let parts = field.dropFirst(6).split(separator: "-", omittingEmptySubsequences: false)
            .map { $0.drop { $0 == " " } }
        guard parts.count == 2 else { return .whole }
        if parts[0].isEmpty {
            guard let last = UInt64(parts[1]) else { return .whole }
            guard last > 0, size > 0 else { return .nothing }
            return .part(size - min(last, size)..<size)
        }
        guard let first = UInt64(parts[0]) else { return .whole }
        var end = size
        if !parts[1].isEmpty {
            guard let last = UInt64(parts[1]), last >= first else { return .whole }
            end = last < size ? last + 1 : size
        }
        return first < size ? .part(first..<end) : .nothing
    }
}

/// Compares a whole object, as it streams by, with what its store says that it hashes to.
final class Verifier {
    private enum Expected {
        case none
        case whole(String)
        /// MD5 over the MD5s of parts of that size, as S3 tags an object that went up in parts.
        case parts(String, bytes: Int64)
    }

    let proof: ReadProof
    private let expected: Expected
    private let whole: Digest
    private let part = Digest(.md5)
    private var digests: [UInt8] = []
    private var inPart: Int64 = 0

    /// - Parameter isWhole: a part of an object has no hash of its own.
    init(_ info: ObjectInfo, isWhole: Bool) {
        if isWhole, let sha256 = info.sha256 {
            (proof, expected, whole) = (.sha256, .whole(sha256), Digest(.sha256))
        } else if isWhole, let md5 = info.md5 {
            (proof, expected, whole) = (.md5, .whole(md5), Digest(.md5))
        } else if isWhole, let bytes = info.partBytes, bytes > 0, Self.isOfParts(info.etag, (info.size + bytes - 1) / bytes) {
            (proof, expected, whole) = (.md5, .parts(info.etag, bytes: bytes), Digest(.md5))
        } else {
            (proof, expected, whole) = (.none, .none, Digest(.md5))
        }
    }

    private static func isOfParts(_ etag: String, _ count: Int64) -> Bool {
        let words = etag.split(separator: "-")
        return words.count == 2 && S3Store.isMD5(String(words[0])) && Int64(words[1]) == count
    }

    func update(_ bytes: UnsafeRawBufferPointer) {
        switch expected {
        case .none: break
        case .whole: whole.update(bytes)
        case .parts(_, let size):
            var bytes = bytes
            while !bytes.isEmpty {
                let count = Int(min(Int64(bytes.count), size - inPart))
                part.update(UnsafeRawBufferPointer(rebasing: bytes[..<count]))
                inPart += Int64(count)
                bytes = UnsafeRawBufferPointer(rebasing: bytes[count...])
                if inPart == size {
                    digests += part.finish()
                    inPart = 0
                }
            }
        }
    }

    /// Throws where the bytes are not those that the store named.
    func finish(_ key: String) throws(CloudError) {
        let (seen, wanted): (String, String)
        switch expected {
        case .none: return
        case .whole(let value): (seen, wanted) = (Text.hex(whole.finish()), value)
        case .parts(let tag, _):
            if inPart > 0 { digests += part.finish() }
            (seen, wanted) = ("\(Text.hex(Digest.of(digests, .md5)))-\(digests.count / 16)", tag)
        }
        guard seen == wanted else {
            throw CloudError(.checksum, "the content of \"\(key)\" hashes to \(seen), but the store says \(wanted)")
        }
    }
}

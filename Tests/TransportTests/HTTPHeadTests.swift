import Testing

@testable import Transport

/// Heads are looked at eight bytes at a time: a byte that is refused, or allowed, is so wherever it stands in a word.
@Suite struct HTTPHeadTests {
    private static let plain = [UInt8]("abcdefghijklmnopqrstuvw".utf8)

    private static func value(with byte: UInt8, at position: Int) throws(HTTPRefusal) -> [UInt8]? {
        var value = plain
        value[position] = byte
        let head = Array("Name: ".utf8) + value + Array("\r\nother:x\r\n\r\n".utf8)
        let headers = try HTTPHeaders.parsing(head.span, from: 0, limit: 10)
        guard headers["other"] == "x", headers.count == 2, let field = headers.fields.first else { return nil }
        return Array(headers.bytes[field.value])
    }

    @Test(arguments: [0x00, 0x01, 0x0A, 0x1F, 0x7F] as [UInt8]) func aControlCharacterInAValueIsRefused(byte: UInt8) {
        for position in Self.plain.indices {
            #expect(throws: HTTPRefusal.self, "position \(position)") { try Self.value(with: byte, at: position) }
        }
    }

    @Test(arguments: [0x20, 0x21, 0x7E, 0x80, 0xA0, 0xFF] as [UInt8]) func whatIsAllowedInAValueIsKept(byte: UInt8) throws {
        for position in 1..<(Self.plain.count - 1) {
            var wanted = Self.plain
            wanted[position] = byte
            #expect(try Self.value(with: byte, at: position) == wanted, "position \(position)")
        }
        #expect(try Self.value(with: 0x09, at: 5) != nil)
    }

    @Test(arguments: [0x00, 0x0A, 0x0D] as [UInt8], [1, 7, 200]) func aBadByteInAHeadIsRefusedInPiecesOfAnySize(byte: UInt8, piece: Int) throws {
        let head = Array("GET / HTTP/1.1\r\nhost: abcdefgh\r\n\r\n".utf8)
        for position in 1..<30 where ![14, 15].contains(position) {
            var bytes = head
            bytes[position] = byte
            #expect(throws: HTTPRefusal.self, "position \(position)") {
                var scanner = HTTPHeadScanner()
                var count = 0
                while count < bytes.count {
                    count = min(count + piece, bytes.count)
                    _ = try scanner.end(of: bytes.span.extracting(0..<count), limits: HTTPLimits())
                }
            }
        }
        var scanner = HTTPHeadScanner()
        let end = try scanner.end(of: head.span, limits: HTTPLimits())
        #expect(end == head.count)
    }

    @Test func aPathIsComparedWithoutItsQuery() throws {
        func head(_ target: String) throws -> HTTPRequestHead {
            try HTTPRequestHead.parsing(
                Array("GET \(target) HTTP/1.1\r\nhost: a\r\norigin: http://b\r\nconnection: close\r\n\r\n".utf8).span, limits: HTTPLimits())
        }
        for target in ["/agent", "/agent?", "/agent?x=/agent"] { #expect(try head(target).isPath("/agent"), "\(target)") }
        for target in ["/agents", "/agent/", "/agen", "/", "/Agent", "/x?/agent"] {
            #expect(try !head(target).isPath("/agent"), "\(target)")
        }
        let usual = try head("/")
        #expect(usual.origin == "http://b" && usual.authorization == nil && !usual.keepsAlive && !usual.expectsContinue)
    }

    @Test func onlyTokensAreNames() {
        for byte in UInt8.min...UInt8.max where byte != 0x3A {
            let head = [0x61, byte, 0x62] + Array(": x\r\n\r\n".utf8)
            let isToken = byte >= 0x21 && byte < 0x7F && !"\"(),/:;<=>?@[\\]{}".utf8.contains(byte)
            if isToken {
                #expect(throws: Never.self, "byte \(byte)") { try HTTPHeaders.parsing(head.span, from: 0, limit: 10) }
            } else if byte != 0x0D {
                #expect(throws: HTTPRefusal.self, "byte \(byte)") { try HTTPHeaders.parsing(head.span, from: 0, limit: 10) }
            }
        }
    }
}

import COpenSSL
import Crypto

/// The HTTP part of RFC 6455 §4.
public enum WebSocketHandshake {
    private static let suffix = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

    /// Whether a request asks for WebSocket at all.
    public static func isUpgrade(_ head: HTTPRequestHead) -> Bool {
        head.headers.list("upgrade", contains: "websocket")
    }

    /// Why the head is no request for a WebSocket; nil if it is one.
    public static func fault(of head: HTTPRequestHead) -> HTTPRefusal? {
        do throws(HTTPRefusal) {
            _ = try checkRequest(head)
            return nil
        } catch { return error }
    }

    /// Whether the client offered this subprotocol.
    public static func offered(_ subprotocol: String, by head: HTTPRequestHead) -> Bool {
        head.headers.values("sec-websocket-protocol").contains { line in
            line.split(separator: ",").contains { $0.drop { $0 == " " } == subprotocol || trimmed($0) == subprotocol }
        }
    }

    private static func trimmed(_ text: Substring) -> Substring {
        var text = text.drop { $0 == " " || $0 == "\t" }
        while let last = text.last, last == " " || last == "\t" { text.removeLast() }
        return text
    }

    /// The client's key, or what it should be answered with.
    static func checkRequest(_ head: HTTPRequestHead) throws(HTTPRefusal) -> String {
        guard head.method == .get, head.minorVersion == 1 else {
            throw HTTPRefusal(405, "a WebSocket begins with an HTTP/1.1 GET")
        }
        guard isUpgrade(head), head.headers.list("connection", contains: "upgrade") else {
            throw HTTPRefusal(426, "this address speaks WebSocket only: Upgrade: websocket, Connection: Upgrade")
        }
        guard head.headers.values("sec-websocket-version") == ["13"] else {
            throw HTTPRefusal(426, "WebSocket version 13 is spoken here")
        }
        let keys = head.headers.values("sec-websocket-key")
        guard keys.count == 1, let key = keys.first, Base64.decode(key)?.count == 16 else {
            throw HTTPRefusal(400, "Sec-WebSocket-Key must be 16 bytes in base64")
        }
        guard head.framing == .none || head.framing == .length(0) else {
            throw HTTPRefusal(400, "a WebSocket request has no body")
        }
        return key
    }

    /// The value of `Sec-WebSocket-Accept`. SHA-1 is what RFC 6455 names; nothing rests on its strength.
    static func accept(_ key: String) -> String {
        let input = Array((key + suffix).utf8)
        var digest = [UInt8](repeating: 0, count: 20)
        _ = SHA1(input, input.count, &digest)
        return Base64.encode(digest)
    }
}

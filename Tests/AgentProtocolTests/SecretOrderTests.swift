import Testing

@testable import AgentProtocol

@Suite struct SecretOrderTests {
    private static func encoded(_ order: Order) -> [UInt8] {
        var writer = FrameWriter()
        order.write(to: &writer)
        #expect(writer.bytes.count == order.encodedBytes)
        return writer.bytes
    }

    private static let order = Order(
        command: CommandID(high: 1, low: 2), invocation: .argv(["a"]), environment: ["PLAIN": "x"],
        secretEnvironment: ["TOKEN": "value", "OTHER": ""])

    @Test func secretVariablesCross() throws {
        let bytes = Self.encoded(Self.order)
        let read = try Order(reading: bytes.span.bytes)
        #expect(read == Self.order)
        // An order without any is what it always was.
        var plain = Self.order
        plain.secretEnvironment = [:]
        #expect(bytes.starts(with: Self.encoded(plain).prefix(16)))
        #expect(bytes.count > Self.encoded(plain).count)
    }

    @Test func whatIsWrongIsRefused() {
        func isRefused(_ bytes: [UInt8]) -> Bool {
            do throws(WireError) {
                _ = try Order(reading: bytes.span.bytes)
                return false
            } catch { return true }
        }
        let bytes = Self.encoded(Self.order)
        for count in 0..<bytes.count { #expect(isRefused(Array(bytes[..<count]))) }
        var twice = Self.order
        twice.secretEnvironment = ["PLAIN": "y"]
        #expect(isRefused(Self.encoded(twice)))
        // Announced, and none there.
        var plain = Self.order
        plain.secretEnvironment = [:]
        var none = Self.encoded(plain)
        none[17] |= 128
        #expect(isRefused(none) && isRefused(none + [0, 0, 0, 0]))
    }

    @Test func aTerminalHasNone() {
        var writer = FrameWriter()
        TerminalOrder(order: Self.order).write(to: &writer)
        let bytes = writer.bytes
        #expect(throws: WireError.self) { try TerminalOrder(reading: bytes.span.bytes) }
    }
}

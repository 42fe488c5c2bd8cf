// libFuzzer's driver for the WebSocket frame parser: any bytes, cut anywhere, must give the same steps as the whole,
// and never a step outside the input. Built by Tests/Fuzz/run.

/// What a connection would hear, without the places in the buffer.
private func steps(_ bytes: [UInt8], cut: Int) -> [String] {
    var machine = WebSocketInputStateMachine(role: .server, maximumMessage: 4_096)
    var heard: [String] = []
    var kept: [UInt8] = []
    for piece in [bytes.prefix(cut), bytes.dropFirst(cut)] {
        kept += piece
        var offset = 0
        do throws(WebSocketRefusal) {
            var span = kept.mutableSpan
            var input = MutableRawSpan(_elements: &span)
            reading: while true {
                switch try machine.next(&input, from: offset) {
                case .message(let opcode, let range):
                    precondition(range.lowerBound >= offset && range.upperBound <= input.byteCount)
                    heard.append("message \(opcode) \(input.bytes.extracting(range).withUnsafeBytes { Array($0) })")
                    offset = range.upperBound
                case .assembled(let opcode):
                    precondition(machine.resume >= offset && machine.resume <= input.byteCount)
                    heard.append("message \(opcode) \(machine.takeAssembled())")
                    offset = machine.resume
                case .control(let opcode, let range):
                    precondition(range.count <= 125)
                    heard.append("control \(opcode) \(input.bytes.extracting(range).withUnsafeBytes { Array($0) })")
                    offset = range.upperBound
                case .close(let code, _):
                    return heard + ["close \(code.rawValue)"]
                case .more(let consumed):
                    precondition(consumed >= offset && consumed <= input.byteCount)
                    precondition(input.byteCount - consumed < 14 + 125, "the parser keeps more than a control frame")
                    precondition(machine.assembled.count <= 4_096)
                    offset = consumed
                    break reading
                }
            }
        } catch {
            precondition(error.reason.utf8.count <= 123)
            return heard + ["refused \(error.code.rawValue)"]
        }
        kept.removeFirst(offset)
    }
    return heard
}

@c(LLVMFuzzerTestOneInput)
public func fuzzOneInput(_ data: UnsafePointer<UInt8>, _ size: Int) -> Int32 {
    guard size > 0 else { return 0 }
    let bytes = Array(UnsafeBufferPointer(start: data, count: size))
    let frames = Array(bytes.dropFirst())
    let whole = steps(frames, cut: frames.count)
    let cut = steps(frames, cut: Int(bytes[0]) % (frames.count + 1))
    precondition(whole == cut, "the same bytes in two pieces were read differently")
    return 0
}

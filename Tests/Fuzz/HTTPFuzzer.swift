// libFuzzer's driver for the HTTP parsers: any bytes, cut anywhere, must give the same messages as the whole.
// Built by Tests/Fuzz/run.

private let limits = HTTPLimits()

private func messages(_ bytes: [UInt8], cut: Int) -> [String] {
    var heard: [String] = []
    var kept: [UInt8] = []
    var scanner = HTTPHeadScanner()
    var body: HTTPBodyStateMachine?
    var content: [UInt8] = []
    for piece in [bytes.prefix(cut), bytes.dropFirst(cut)] {
        kept += piece
        var offset = 0
        do throws(HTTPRefusal) {
            let input = kept.span
            reading: while true {
                if var machine = body {
                    switch try machine.next(input, from: offset) {
                    case .data(let range):
                        precondition(range.lowerBound >= offset && range.upperBound <= input.count && !range.isEmpty)
                        for index in range { content.append(input[index]) }
                        offset = range.upperBound
                        body = machine
                    case .more(let consumed):
                        precondition(consumed >= offset && consumed <= input.count)
                        offset = consumed
                        body = machine
                        break reading
                    case .end(let consumed):
                        offset = consumed
                        heard.append("body \(content)")
                        content = []
                        body = nil
                    }
                } else {
                    let rest = input.extracting(offset..<input.count)
                    guard rest.count > 0, let end = try scanner.end(of: rest, limits: limits) else { break reading }
                    scanner.reset()
                    let head = try HTTPRequestHead.parsing(rest.extracting(0..<end), limits: limits)
                    heard.append("\(head.method) \(head.target) \(head.host) \(head.framing) \(head.headers.all)")
                    body = HTTPBodyStateMachine(head.framing, limits: limits)
                    offset += end
                }
            }
        } catch {
            return heard + ["refused \(error.status)"]
        }
        kept.removeFirst(offset)
    }
    return heard
}

@c(LLVMFuzzerTestOneInput)
public func fuzzOneInput(_ data: UnsafePointer<UInt8>, _ size: Int) -> Int32 {
    guard size > 0, size < 20_000 else { return 0 }
    let bytes = Array(UnsafeBufferPointer(start: data, count: size))
    let text = Array(bytes.dropFirst())
    let whole = messages(text, cut: text.count)
    let cut = messages(text, cut: Int(bytes[0]) % (text.count + 1))
    precondition(whole == cut, "the same bytes in two pieces were read differently")
    return 0
}

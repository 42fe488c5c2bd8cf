// libFuzzer's driver for the JSON reader and writer: what is read must come back from what is written, the pull reader and
// the tree must accept the same texts, and the lenient syntax everything that the strict one does. Built by Tests/Fuzz/run.

@c(LLVMFuzzerTestOneInput)
public func fuzzJSON(_ data: UnsafePointer<UInt8>, _ size: Int) -> CInt {
    let bytes = Array(UnsafeBufferPointer(start: data, count: size))
    let strict = try? JSONValue(parsing: bytes)
    let skipped: Void? = try? JSONReader.read(bytes) { reader throws(JSONError) in try reader.skip() }
    precondition((strict == nil) == (skipped == nil), "skip and value disagree")
    let lenient = try? JSONValue(parsing: bytes, syntax: .lenient)
    if let strict {
        precondition(same(strict, lenient), "the lenient syntax refuses or changes strict JSON")
        precondition(same(strict, try? JSONValue(parsing: strict.serialized())), "serialized text differs")
    }
    if let lenient {
        precondition(same(lenient, try? JSONValue(parsing: lenient.pretty())), "pretty text differs")
    }
    return 0
}

private func same(_ left: JSONValue, _ right: JSONValue?) -> Bool { left == right }

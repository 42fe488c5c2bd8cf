import JSON
import Testing

private func parse(_ text: String, _ syntax: JSONSyntax = .strict) throws(JSONError) -> JSONValue {
    try JSONValue(parsing: text, syntax: syntax)
}

private func refusal(_ text: String, _ syntax: JSONSyntax = .strict) -> JSONError? {
    do throws(JSONError) {
        _ = try parse(text, syntax)
        return nil
    } catch {
        return error
    }
}

@Suite struct Accepting {
    @Test func everyKindOfValue() throws {
        let value = try parse(#" {"a":[1,-2,3.5,true,false,null,"x"],"b":{},"c":[],"d":""} "#)
        #expect(
            value == ["a": [1, -2, 3.5, true, false, nil, "x"], "b": [:], "c": [], "d": ""])
        #expect(value.object?.keys == ["a", "b", "c", "d"])
        #expect(value["a"]?.array?.count == 7)
    }

    @Test(arguments: [
        ("0", 0), ("-0", 0), ("7", 7), ("9223372036854775807", Int64.max), ("-9223372036854775808", Int64.min),
    ])
    func wholeNumbers(text: String, wanted: Int64) throws {
        #expect(try parse(text) == .integer(wanted))
    }

    @Test(arguments: [
        ("1.5", 1.5), ("-1e3", -1000), ("2E-2", 0.02), ("1e+2", 100), ("0.1", 0.1), ("1e-400", 0),
        ("1.7976931348623157e308", 1.7976931348623157e308), ("5e-324", Double.leastNonzeroMagnitude),
    ])
    func realNumbers(text: String, wanted: Double) throws {
        #expect(try parse(text) == .number(wanted))
    }

    @Test(arguments: [
        (#""\"\\\/\b\f\n\r\t""#, "\"\\/\u{8}\u{C}\n\r\t"), (#""\u0041\u00e9\u20AC""#, "Aé€"),
        (#""\ud83d\ude00x""#, "😀x"), (#""\u0000""#, "\0"), ("\"\u{7F}\u{10FFFF}\"", "\u{7F}\u{10FFFF}"),
        ("\"a text longer than eight bytes, with ü in it\"", "a text longer than eight bytes, with ü in it"),
    ])
    func strings(text: String, wanted: String) throws {
        #expect(try parse(text).string?.utf8.elementsEqual(wanted.utf8) == true)
    }

    @Test func depthUpToTheLimit() throws {
        let text = String(repeating: "[", count: 64) + String(repeating: "]", count: 64)
        _ = try parse(text)
        #expect(refusal("[" + text + "]")?.reason == .tooDeep)
        let objects = String(repeating: #"{"a":"#, count: 65) + "1" + String(repeating: "}", count: 65)
        #expect(refusal(objects)?.reason == .tooDeep)
        // Far more than a stack could hold must be refused, not crash.
        #expect(refusal(String(repeating: "[", count: 1_000_000))?.reason == .tooDeep)
    }
}

@Suite struct Refusing {
    @Test(arguments: [
        "", " ", "nul", "nulll", "truE", "TRUE", "NaN", "Infinity", "-", "+1", "01", "-01", "1.", ".5", "1e", "1e+", "0x10",
        "1 2", "[", "]", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "{", "{}}", "{a:1}", "{'a':1}", #"{"a"}"#, #"{"a":}"#,
        #"{"a":1,}"#, #"{"a":1 "b":2}"#, #"{1:2}"#, #"""#, #""abc"#, "\"a\nb\"", "\"a\u{1}\"", "\"12345678\u{1F}\"",
        #""\x41""#, #""\u12""#, #""\u12g4""#, #""\"#, #""\ud800""#, #""\udc00""#, #""\ud800\u0041""#, #""\ud800x""#,
        "// c\n1", "/* c */ 1", "\u{FEFF}1", "[1]x", "1\0",
    ])
    func notJSON(text: String) {
        let error = refusal(text)
        #expect(error?.reason == .syntax || error?.reason == .unexpected, "\(text) gave \(String(describing: error))")
    }

    @Test(arguments: ["9223372036854775808", "-9223372036854775809", "1e400", "-1e999", "123456789012345678901234567890"])
    func numbersThatDoNotFit(text: String) {
        #expect(refusal(text)?.reason == .numberRange)
    }

    @Test(arguments: [
        [0x80], [0xC3], [0xC0, 0xAF], [0xE0, 0x80, 0xAF], [0xED, 0xA0, 0x80], [0xF5, 0x80, 0x80, 0x80], [0xFF],
        [0xF0, 0x9F, 0x98],
    ] as [[UInt8]])
    func badUTF8(bytes: [UInt8]) {
        for padding in ["", "some plain text before it "] {
            let quote = UInt8(ascii: "\"")
            #expect(throws: JSONError.self) {
                try JSONValue(parsing: [quote] + Array(padding.utf8) + bytes + [quote])
            }
            #expect(throws: JSONError.self) {
                try JSONReader.read([quote] + Array(padding.utf8) + bytes + [quote]) { reader throws(JSONError) in try reader.skip() }
            }
        }
    }

    @Test(arguments: [
        #"{"a":1,"a":2}"#, #"{"a":1,"\u0061":2}"#, #"{"\u0061":1,"a":2}"#, #"{"é":1,"x":0,"é":2}"#, #"{"":1,"":1}"#,
        #"[{"x":{"a":1,"b":2,"a":3}}]"#,
    ])
    func duplicateKeys(text: String) {
        #expect(refusal(text)?.reason == .duplicateKey)
        #expect(throws: JSONError.self) { try JSONReader.read(Array(text.utf8)) { reader throws(JSONError) in try reader.skip() } }
    }

    @Test func duplicateAmongMany() throws {
        let many = (0..<500).map { #""key\#($0)":\#($0)"# }.joined(separator: ",")
        #expect(try parse("{\(many)}")["key321"] == 321)
        #expect(refusal("{\(many),\"key3\":1}")?.reason == .duplicateKey)
        #expect(refusal("{\(many),\"key499\":1}")?.reason == .duplicateKey)
    }

    @Test func tooLong() {
        #expect(throws: JSONError.self) { try JSONValue(parsing: "[1,2,3]", limits: JSONLimits(bytes: 6)) }
        #expect(throws: Never.self) { try JSONValue(parsing: "[1,2,3]", limits: JSONLimits(bytes: 7)) }
    }

    @Test func errorsSayWhere() {
        let error = refusal("{\n  \"ä\": 1,\n  \"b\" 2\n}")
        #expect(error?.line == 3)
        #expect(error?.column == 7)
        #expect(error?.description == "line 3, column 7: expected ':' after a member's name, found '2'")
        let deep = refusal(#"{"a":[{"b/c":[1,tru]}]}"#)
        #expect(deep?.pointer == "/a/0/b~1c/1")
    }
}

@Suite struct Lenient {
    @Test func commentsAndTrailingCommas() throws {
        let text = """
            // the whole file
            { /* inline */ "listen": "127.0.0.1:0", // port
              "list": [1, 2, /* * / */ ], /**/
            } // end
            """
        #expect(try parse(text, .lenient) == ["listen": "127.0.0.1:0", "list": [1, 2]])
        #expect(refusal(text) != nil)
    }

    @Test(arguments: ["{,}", "[,]", "[1,,]", "/* no end", "/ 1", "[1] /*", "{} // end\n x"])
    func stillRefused(text: String) {
        #expect(refusal(text, .lenient) != nil)
    }
}

@Suite struct Pulling {
    @Test func onlyWhatIsAsked() throws {
        let text = #"{"skip":{"deep":[1,{"x":"\u0041"}]},"id":"c1","n":5,"argv":["a","b"],"flag":true,"none":null}"#
        struct Envelope: Equatable {
            var id = ""
            var n = 0
            var argv: [String] = []
            var flag = false
            var none = false
        }
        let envelope = try JSONReader.read(Array(text.utf8)) { reader throws(JSONError) in
            var result = Envelope()
            try reader.object { key, reader throws(JSONError) in
                if key.is("id") {
                    result.id = try reader.string()
                } else if key.is("n") {
                    result.n = try reader.integer(in: 0...10)
                } else if key.is("argv") {
                    result.argv = try reader.strings()
                } else if key.is("flag") {
                    result.flag = try reader.bool()
                } else if key.is("none") {
                    result.none = reader.null()
                }
            }
            return result
        }
        #expect(envelope == Envelope(id: "c1", n: 5, argv: ["a", "b"], flag: true, none: true))
    }

    @Test func wrongTypesAndRanges() {
        func refused(_ text: String, _ body: (inout JSONReader) throws(JSONError) -> Void) -> JSONError? {
            do throws(JSONError) {
                try JSONReader.read(Array(text.utf8), body)
                return nil
            } catch {
                return error
            }
        }
        #expect(refused("5") { reader throws(JSONError) in _ = try reader.string() }?.reason == .unexpected)
        #expect(refused("5.5") { reader throws(JSONError) in _ = try reader.integer() }?.reason == .numberRange)
        #expect(refused("3e2") { reader throws(JSONError) in _ = try reader.integer() } == nil)
        #expect(
            refused("70000") { reader throws(JSONError) in _ = try reader.integer(in: 1...65535) }?.detail
                == "70000 is out of range: allowed are 1 to 65535")
        #expect(refused("{}") { reader throws(JSONError) in try reader.array { _ throws(JSONError) in } } != nil)
        #expect(refused("1") { _ throws(JSONError) in } != nil)  // nothing was read
        #expect(refused(#"{"a":1,"b":[1,]}"#) { reader throws(JSONError) in try reader.skip() } != nil)
    }

    @Test func bytesOfAStringWithAndWithoutEscapes() throws {
        let texts = try JSONReader.read(Array(#"["plain","\u0041\n","",7]"#.utf8)) { reader throws(JSONError) in
            var texts: [[UInt8]] = []
            try reader.array { reader throws(JSONError) in
                guard case .string = reader.next else { return }
                texts.append(try reader.string { characters in characters.withUnsafeBufferPointer { Array($0) } })
            }
            return texts
        }
        #expect(texts == [Array("plain".utf8), Array("A\n".utf8), []])
        #expect(throws: JSONError.self) {
            try JSONReader.read(Array("5".utf8)) { reader throws(JSONError) in try reader.string { _ in } }
        }
    }

    @Test func rawKeepsTheText() throws {
        let raw = try JSONReader.read(Array(#"{"a": [1, 2 ] , "b":1}"#.utf8)) { reader throws(JSONError) in
            var raw: [UInt8] = []
            try reader.object { key, reader throws(JSONError) in
                if key.is("a") { raw = try reader.raw() }
            }
            return raw
        }
        #expect(String(decoding: raw, as: UTF8.self) == "[1, 2 ]")
    }
}

@Suite struct Writing {
    @Test func commasAndEscapes() throws {
        var writer = JSONWriter()
        writer.object {
            $0.field("s", "a\"b\\c\n\u{1}é😀/")
            $0.field("i", Int64.min)
            $0.field("u", UInt64.max)
            $0.field("d", 0.1)
            $0.field("whole", 3.0)
            $0.field("nan", Double.nan)
            $0.field("list", ["x", "y"])
            $0.field("absent", ifPresent: nil as String?)
            $0.field("null", nil as Int?)
            $0.object("o") { _ in }
            $0.array("a") {
                $0.value(1)
                $0.array { _ in }
                $0.object { $0.field("k", true) }
                $0.raw(Array("[0]".utf8))
            }
        }
        let text = String(decoding: writer.finish(), as: UTF8.self)
        #expect(
            text == #"{"s":"a\"b\\c\n\u0001é😀/","i":-9223372036854775808,"u":18446744073709551615,"d":0.1,"#
                + #""whole":3.0,"nan":null,"list":["x","y"],"null":null,"o":{},"a":[1,[],{"k":true},[0]]}"#)
    }

    @Test func namesOutOfDataAreEscapedAndLiteralsStandAsTheyAre() throws {
        var writer = JSONWriter()
        writer.object { writer in
            writer.field("plain", 1)
            writer.member("with \"quotes\"\n", 2)
            writer.name("a\\b")
            writer.array { $0.value("x") }
            writer.object("last") { $0.member("ä", true) }
        }
        let bytes = writer.finish()
        #expect(String(decoding: bytes, as: UTF8.self) == #"{"plain":1,"with \"quotes\"\n":2,"a\\b":["x"],"last":{"ä":true}}"#)
        let read = try JSONValue(parsing: bytes)
        #expect(read["with \"quotes\"\n"]?.integer == 2 && read["last"]?["ä"]?.bool == true)
    }

    @Test func stringsThatEndLikeContainers() throws {
        let value: JSONValue = ["[", "{", ":", "", "a:", [], ["["], ["k{": "v["]]
        #expect(try JSONValue(parsing: value.serialized()) == value)
    }

    @Test func textThatOutgrowsItsRoomIsWhole() throws {
        for room in [0, 1, 63, 64, 65] {
            var writer = JSONWriter(reserving: room)
            writer.array { writer in
                for length in 0..<200 { writer.value(String(repeating: length % 3 == 0 ? "\n" : "x", count: length)) }
                for number in [0, 9, 10, 99, 100, UInt64(Int64.max)] { writer.unsigned(number) }
            }
            let count = writer.byteCount
            let bytes = writer.finish()
            let elements = try #require(try JSONValue(parsing: bytes).array)
            #expect(bytes.count == count && elements.count == 206)
            for length in 0..<200 {
                #expect(elements[length].string == String(repeating: length % 3 == 0 ? "\n" : "x", count: length))
            }
            #expect(String(decoding: bytes, as: UTF8.self).hasSuffix(",0,9,10,99,100,9223372036854775807]"))
        }
    }

    @Test func thousandthsAreExactAndLookLikeNumbers() {
        for (value, text) in [
            (0, "0.0"), (1, "0.001"), (10, "0.01"), (999, "0.999"), (1_000, "1.0"), (1_500, "1.5"), (12_340, "12.34"),
            (UInt64.max, "18446744073709551.615"),
        ] as [(UInt64, String)] {
            var writer = JSONWriter()
            writer.array { writer in
                writer.thousandths(value)
                writer.value(true)
            }
            #expect(String(decoding: writer.finish(), as: UTF8.self) == "[\(text),true]")
        }
    }

    @Test func aTextThatIsStartedAnewHasNoComma() {
        var writer = JSONWriter()
        writer.value(1)
        writer.restart()
        writer.object { $0.field("a", 2) }
        #expect(String(decoding: writer.finish(), as: UTF8.self) == #"{"a":2}"#)
    }

    @Test func linesStartAfresh() {
        var writer = JSONWriter()
        for id in 1...2 {
            writer.object { $0.field("id", id) }
            writer.newline()
        }
        #expect(String(decoding: writer.finish(), as: UTF8.self) == "{\"id\":1}\n{\"id\":2}\n")
    }

    @Test func randomRoundTrips() throws {
        var random = SplitMix(state: 42)
        for _ in 0..<2_000 {
            let value = random.value(depth: 5)
            #expect(try JSONValue(parsing: value.serialized()) == value)
            #expect(try JSONValue(parsing: value.pretty()) == value)
        }
    }

    /// Any damage must end in an error or a value, never in a crash.
    @Test func randomDamage() {
        var random = SplitMix(state: 7)
        for _ in 0..<5_000 {
            var bytes = random.value(depth: 4).serialized()
            for _ in 0..<Int.random(in: 1...3, using: &random) where !bytes.isEmpty {
                let at = Int.random(in: 0..<bytes.count, using: &random)
                switch Int.random(in: 0...2, using: &random) {
                case 0: bytes[at] = UInt8.random(in: 0...255, using: &random)
                case 1: bytes.removeSubrange(at...)
                default: bytes.insert(bytes[at], at: at)
                }
            }
            for syntax in [JSONSyntax.strict, .lenient] {
                if let value = try? JSONValue(parsing: bytes, syntax: syntax) {
                    #expect((try? JSONValue(parsing: value.serialized())) == value)
                }
            }
        }
    }
}

@Suite struct Objects {
    @Test(arguments: [3, 40]) func editing(size: Int) {
        var object = JSONObject((0..<size).map { ("k\($0)", .integer(Int64($0))) })
        object["k1"] = nil
        object["k2"] = "two"
        object["new"] = .null
        #expect(object.count == size)
        #expect(object["k1"] == nil)
        #expect(object["k2"] == "two")
        #expect(object["new"] == .null)
        #expect(object.keys.last == "new")
        #expect(object == JSONObject(object.reversed().map { ($0.key, $0.value) }))
    }

    @Test func accessors() {
        #expect(JSONValue.number(3.0).integer == 3)
        #expect(JSONValue.number(3.5).integer == nil)
        #expect(JSONValue.integer(3).number == 3.0)
        #expect(JSONValue.string("x").integer == nil)
        #expect(JSONValue.null.isNull)
    }
}

private struct SplitMix: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    mutating func text() -> String {
        let alphabet: [Character] = ["a", "b", "\"", "\\", "\n", "\u{0}", "\u{1F}", "é", "😀", "/", "{", "]", ":", ",", " "]
        return String((0..<Int.random(in: 0...12, using: &self)).map { _ in alphabet.randomElement(using: &self) ?? "x" })
    }

    mutating func value(depth: Int) -> JSONValue {
        switch Int.random(in: 0...(depth > 0 ? 6 : 4), using: &self) {
        case 0: return .null
        case 1: return .bool(Bool.random(using: &self))
        case 2: return .integer(Int64(bitPattern: next()) >> Int64.random(in: 0...63, using: &self))
        case 3:
            let value = Double(bitPattern: next())
            return .number(value.isFinite ? value : 0.5)
        case 4: return .string(text())
        case 5: return .array((0..<Int.random(in: 0...5, using: &self)).map { _ in value(depth: depth - 1) })
        default:
            return .object(
                JSONObject((0..<Int.random(in: 0...20, using: &self)).map { _ in (text(), value(depth: depth - 1)) }))
        }
    }
}

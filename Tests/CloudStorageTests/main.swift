// The cloud plugin's readers and patterns by themselves, compiled with the plugin's own files (Tests/Show/files-3-parsers): what a
// store answers reaches them unchecked, and a trap in one of them would end the core.

var failures = 0
var checks = 0

@MainActor func expect(_ condition: Bool, _ what: String) {
    checks += 1
    if !condition {
        failures += 1
        print("FAIL  \(what)")
    }
}

func read(_ text: String) -> XMLElement? { try? XMLReader.read(Array(text.utf8)) }

// XML
let list = """
    <?xml version="1.0" encoding="UTF-8"?><!-- a --><D:multistatus xmlns:D="DAV:" other='>"'><D:response><D:href>/a%20b&amp;&#x20AC;&lt;</D:href>\
    <empty/><text><![CDATA[<raw> &amp;]]> and more</text></D:response><D:response/></D:multistatus>
    """
let root = read(list)
expect(root?.name == "multistatus" && root?.all("response").count == 2, "prefixes are left out")
expect(root?.first("response")?.text("href") == "/a%20b&\u{20AC}<", "references are read")
expect(root?.anywhere("text")?.text == "<raw> &amp; and more", "CDATA is text")
for wrong in [
    "", "x", "<a>", "<a></b>", "<a/><b/>", "<!DOCTYPE a><a/>", "<a><!ENTITY x></a>", "<a>&unknown;</a>", "<a>&#xD800;</a>", "<a>&#1114112;</a>",
    "<a", "<a b='>", "< a/>", "<a>&amp</a>", "</a>", "<a></a", "<>x</>", "<a><![CDATA[x</a>", "<a><!-- x</a>", "<?xml", "<a/>x",
] {
    expect(read(wrong) == nil, "refused: \(wrong)")
}
expect(read(String(repeating: "<a>", count: 32) + String(repeating: "</a>", count: 32)) != nil, "32 deep")
expect(read(String(repeating: "<a>", count: 33) + String(repeating: "</a>", count: 33)) == nil, "33 deep is too deep")
expect((try? XMLReader.read([UInt8](repeating: 0x20, count: 100), limit: 99)) == nil, "longer than allowed")
expect(read("<a>" + String(repeating: "<b/>", count: 400_000) + "</a>") == nil, "more elements than allowed")
expect(XMLReader.escaped("a<b>&\"c\u{1}") == "a&lt;b&gt;&amp;&quot;c&#1;", "escaped")

// Changed bytes never trap.
var generator = SystemRandomNumberGenerator()
let pieces: [[UInt8]] = ["<", ">", "/>", "</", "<!--", "-->", "<![CDATA[", "]]>", "&", ";", "&#", "\"", "'", "<?", ":", "\0"].map { Array($0.utf8) }
for _ in 0..<50_000 {
    var bytes = Array(list.utf8)
    for _ in 0..<Int.random(in: 1...6, using: &generator) {
        let at = Int.random(in: 0..<bytes.count, using: &generator)
        switch Int.random(in: 0..<4, using: &generator) {
        case 0: bytes[at] = UInt8.random(in: 0...255, using: &generator)
        case 1: bytes.insert(contentsOf: pieces.randomElement(using: &generator) ?? [], at: at)
        case 2: bytes.removeSubrange(at..<min(at + 9, bytes.count))
        default: bytes = Array(bytes[..<max(at, 1)])
        }
        if bytes.isEmpty { bytes = [0x3C] }
    }
    _ = try? XMLReader.read(bytes)
    checks += 1
}

// Patterns
for (pattern, key, matches) in [
    ("*.log", "a.log", true), ("*.log", "b/a.log", false), ("**.log", "b/a.log", true), ("b/**", "b/c/d", true), ("b/*", "b/c/d", false),
    ("?", "a", true), ("?", "/", false), ("?", "", false), ("a*b*c", "aXbYc", true), ("a*b*c", "aXbY", false), ("", "", true), ("**", "", true),
    ("a/**/z", "a/b/c/z", true), ("a/**/z", "a/z", false), ("***", "a/b", true), ("a?c", "a\u{FC}c", true), ("[a]", "[a]", true),
] {
    expect(Glob(pattern).matches(Array(key.utf8)) == matches, "\(pattern) on \(key)")
}
let begin = ContinuousClock.now
expect(!Glob(String(repeating: "*a", count: 200)).matches(Array(String(repeating: "a", count: 199).utf8) + [0x62]), "a pattern for the patient")
expect(ContinuousClock.now - begin < .seconds(2), "no pattern takes for ever")
expect(Filter(include: ["a/**"], exclude: ["**.tmp"]).takes("a/b") && !Filter(include: ["a/**"], exclude: ["**.tmp"]).takes("a/b.tmp"), "a filter")
expect(!Filter(include: ["a/**"], exclude: []).takes("b") && Filter(include: [], exclude: []).takes("b"), "a filter without")

// Times
expect(Timestamp(milliseconds: 1_795_659_300_000).basic == "20261126T021500Z", "a time in its basic form")
expect(Timestamp(milliseconds: 951_782_400_000).basic == "20000229T000000Z", "a leap day")
expect(Timestamp.milliseconds(extended: "2026-11-26T02:15:00.000Z") == 1_795_659_300_000, "a time in its extended form")
expect(Timestamp.milliseconds(http: "Thu, 26 Nov 2026 02:15:00 GMT") == 1_795_659_300_000, "a time of HTTP")
for wrong in ["", "2026-11-26", "2026-13-26T02:15:00Z", "2026-11-26T25:15:00Z", "99999999999999999999-1-1T0:0:0Z", "x-x-xTx:x:xZ"] {
    expect(Timestamp.milliseconds(extended: wrong) == nil, "no time: \(wrong)")
}
for wrong in ["", "Thu", "Thu, 26 Foo 2026 02:15:00 GMT", "Thu, 99 Nov 2026 02:15:00 GMT"] {
    expect(Timestamp.milliseconds(http: wrong) == nil, "no time: \(wrong)")
}

print("\(checks) checks, \(failures) failures")
if failures > 0 { fatalError("failed") }

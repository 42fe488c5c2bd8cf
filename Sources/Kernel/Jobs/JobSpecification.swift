import JSON

extension JobKind {
    private static let members = [
        "name", "summary", "guarantee", "concurrency", "timeout_s", "retry", "cancel_grace_s", "rights", "arguments",
    ]

    /// A kind as its owner describes it in JSON: `name`, `summary`, `guarantee`, and if it wants other than the defaults
    /// `concurrency`, `timeout_s`, `retry` (`attempts`, `first_s`, `longest_s`), `cancel_grace_s`, `rights` and `arguments`
    /// (a JSON Schema, which jobs are checked against).
    /// - Parameter owner: its id, or the last word of it, and a dot begin the kind's name.
    /// - Throws: 400 with the member that is wrong.
    public init(specification json: JSONValue, owner: String, instance: UInt64, work: Work) throws(Problem) {
        guard let object = json.object else { throw .invalid("the specification of a job kind is an object, not \(json.kindName)") }
        for member in object where !Self.members.contains(member.key) {
            throw .invalid(
                "unknown member \"\(member.key.prefix(64))\"; known are \(Self.members.joined(separator: ", "))",
                pointer: "/\(member.key.prefix(64))")
        }
        let name = try Self.text(object["name"], "/name", 1...64)
        let word = owner.split(separator: ".").last.map(String.init) ?? owner
        guard Self.isName(name), name.hasPrefix(owner + ".") || name.hasPrefix(word + ".") else {
            throw .invalid("\"\(name)\" is no name of a job kind of \(owner): write \"\(word).\" and a-z, 0-9, -, . or _", pointer: "/name")
        }
        guard let guarantee = object["guarantee"]?.string.flatMap({ JobGuarantee(rawValue: $0) }) else {
            let all = JobGuarantee.allCases.map(\.rawValue).joined(separator: " or ")
            throw .invalid("\"guarantee\" must be \(all)", pointer: "/guarantee")
        }
        self.init(name, try Self.text(object["summary"], "/summary", 1...200), guarantee, work: work)
        self.owner = owner
        self.instance = instance
        if let value = object["concurrency"] {
            concurrency = Int(clamping: value.integer ?? 0)
            try CommandRequest.range(concurrency, 1...256, "the number", "attempts at a time", "/concurrency")
        }
        let request = try JobRequest(work: json)
        retry = request.retry ?? retry
        timeoutMilliseconds = request.timeoutMilliseconds ?? timeoutMilliseconds
        try request.checkTimes()
        if let grace = try JobRequest.milliseconds(object["cancel_grace_s"], "/cancel_grace_s") {
            try CommandRequest.range(grace, 100...600_000, "the grace", "ms", "/cancel_grace_s")
            cancelGraceMilliseconds = grace
        }
        for value in object["rights"]?.array ?? [] {
            let right = try Self.text(value, "/rights", 1...64)
            guard (try? RightPattern(right)) != nil, !right.contains("*") else {
                throw .invalid("\"\(right)\" is no right; write \"area.verb\"", pointer: "/rights")
            }
            rights.append(Right(rawValue: right))
        }
        if let schema = object["arguments"] {
            do throws(JSONSchema.Fault) {
                arguments = .schema(try JSONSchema(schema))
            } catch {
                throw .invalid("/arguments\(error.pointer) \(error.text)", pointer: "/arguments" + error.pointer)
            }
        }
    }

    private static func text(_ value: JSONValue?, _ pointer: String, _ length: ClosedRange<Int>) throws(Problem) -> String {
        guard let text = value?.string, length.contains(text.utf8.count) else {
            throw .invalid("\(pointer) must be a string of \(length.lowerBound) to \(length.upperBound) bytes", pointer: pointer)
        }
        return text
    }
}

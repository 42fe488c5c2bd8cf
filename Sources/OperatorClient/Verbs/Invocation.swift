import JSON
import Program

/// A verb with the words and flags that it was called with, and the world around it.
struct Invocation {
    let verb: Verb
    let operands: [String: [String]]
    let rest: [String]?
    let flags: Flags
    let session: Session

    func operand(_ name: String) -> String? { operands[name]?.first }

    var core: Core { get throws(OperatorError) { try session.core() } }
    var console: any Console { session.console }

    // MARK: Requests out of rows

    /// The request of a `.call` row.
    func request(method: String, path: String) throws(OperatorError) -> APIRequest {
        var request = APIRequest(method, "")
        var used: Set<String> = []
        request.path = try path.split(separator: "/").map { segment throws(OperatorError) in
            guard segment.hasPrefix("{"), segment.hasSuffix("}") else { return "/" + segment }
            let name = String(segment.dropFirst().dropLast())
            used.insert(name)
            guard let value = operand(name), !value.isEmpty else { throw .usage("\(name) is missing") }
            // "." and ".." are path segments with a meaning, even when encoded.
            guard value != ".", value != ".." else { throw .usage("'\(value)' is no \(name)") }
            return "/" + APIRequest.encoded(value)
        }.joined()
        let hasBody = method != "GET" && method != "DELETE"
        var body = try flags.value("data").map { text throws(OperatorError) in try data(text) }
        for operand in verb.operands where !used.contains(operand.name) {
            let values = operands[operand.name] ?? []
            guard !values.isEmpty else { continue }
            let member = operand.name.lowercased().split(separator: "-").joined(separator: "_")
            if hasBody {
                let value: JSONValue =
                    operand.isRepeated ? .array(values.map { .string($0) }) : .string(values[0])
                body = try setting(body ?? [:], member, value)
            } else {
                for value in values { request.query.append((name: member, value: value)) }
            }
        }
        for flag in verb.flags where !flag.member.isEmpty && flags.has(flag.flag.name) {
            let value = try self.value(of: flag)
            if flag.isQuery {
                for element in value.array ?? [value] {
                    request.query.append((name: flag.member, value: element.string ?? "\(element)"))
                }
            } else {
                body = try setting(body ?? [:], flag.member, value)
            }
        }
        if hasBody, verb.takesBody || body != nil { request.body = (body ?? [:]).serialized() }
        return request
    }

    private func setting(_ body: JSONValue, _ member: String, _ value: JSONValue) throws(OperatorError) -> JSONValue {
        guard var object = body.object else { throw .usage("--data must be a JSON object here") }
        let parts = member.split(separator: ".", maxSplits: 1).map(String.init)
        object[parts[0]] = parts.count > 1 ? try setting(object[parts[0]] ?? [:], parts[1], value) : value
        return .object(object)
    }

    // MARK: Flags as values

    func value(of verbFlag: VerbFlag) throws(OperatorError) -> JSONValue {
        let name = verbFlag.flag.name
        let text = flags.value(name) ?? ""
        switch verbFlag.kind {
        case .text: return .string(text)
        case .toggle: return .bool(true)
        case .boolean:
            guard text == "true" || text == "false" else { throw .usage("--\(name) \(text): expected true or false") }
            return .bool(text == "true")
        case .integer:
            guard let number = Int64(text) else { throw .usage("--\(name) \(text): expected a whole number") }
            return .integer(number)
        case .decimal:
            guard let number = Double(text), number.isFinite else { throw .usage("--\(name) \(text): expected a number") }
            return .number(number)
        case .seconds:
            guard let seconds = Self.seconds(text) else {
                throw .usage("--\(name) \(text): expected a time such as 90, 90s, 15m, 1h30m or 2d")
            }
            return .integer(seconds)
        case .list: return .array(flags.values(name).map { .string($0) })
        case .map:
            var object = JSONObject()
            for pair in flags.values(name) {
                let (key, value) = try Self.pair(pair, "--" + name)
                object[key] = .string(value)
            }
            return .object(object)
        case .json: return try data(text)
        case .file: return .string(String(decoding: try session.content(text), as: UTF8.self))
        }
    }

    /// `JSON`, `@FILE` or `-`.
    func data(_ text: String) throws(OperatorError) -> JSONValue {
        let bytes = text == "-" ? try session.content("-")
            : text.hasPrefix("@") ? try session.content(String(text.dropFirst())) : Array(text.utf8)
        do throws(JSONError) {
            return try JSONValue(parsing: bytes, syntax: .lenient)
        } catch {
            throw .usage("the data is not JSON: \(error)")
        }
    }

    static func pair(_ text: String, _ name: String) throws(OperatorError) -> (String, String) {
        let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        guard parts.count == 2, !parts[0].isEmpty else { throw .usage("\(name) \(text): expected NAME=VALUE") }
        return (parts[0], parts[1])
    }

    static func seconds(_ text: String) -> Int64? {
        if let plain = Int64(text) { return plain >= 0 ? plain : nil }
        var total: Int64 = 0
        var digits = ""
        for character in text {
            if character.isASCII, character.isNumber {
                digits.append(character)
                continue
            }
            let units: [Character: Int64] = ["s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800]
            guard let unit = units[character], let number = Int64(digits) else { return nil }
            let (product, overflows) = number.multipliedReportingOverflow(by: unit)
            let (sum, sumOverflows) = total.addingReportingOverflow(product)
            guard !overflows, !sumOverflows else { return nil }
            total = sum
            digits = ""
        }
        return digits.isEmpty && !text.isEmpty ? total : nil
    }
}

extension Verb {
    /// Sends at least `{}`: the row has flags or operands for a body.
    var takesBody: Bool {
        guard case .call(let method, let path, _) = action, method != "GET", method != "DELETE" else { return false }
        let segments = path.split(separator: "/")
        return flags.contains { !$0.isQuery && !$0.member.isEmpty }
            || operands.contains { !segments.contains("{\($0.name)}") }
    }
}

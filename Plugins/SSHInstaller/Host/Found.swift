/// What of an agent is on a host.
struct Found {
    let program: String?
    let hasUnit: Bool
    let hasIdentity: Bool
    let hasDirectory: Bool
    let hasPrevious: Bool
    let client: String?
    let marker: String
    let freeKiB: UInt64

    init(_ values: [String: String]) {
        program = values["program"]
        hasUnit = values["unit"] == "yes"
        hasIdentity = values["identity"] == "yes"
        hasDirectory = values["directory"] == "yes"
        hasPrevious = values["previous"] == "yes"
        client = values["client"].flatMap { $0.count == 26 ? $0 : nil }
        marker = values["marker"] ?? ""
        freeKiB = UInt64(values["free"] ?? "") ?? 0
    }

    var hasAgent: Bool { program != nil || hasUnit || hasDirectory }
    var isUnfinished: Bool { !marker.isEmpty || hasPrevious }
    var isAnything: Bool { hasAgent || isUnfinished }

    var description: String {
        [program == nil ? nil : Places.program, hasUnit ? Places.unit : nil, hasDirectory ? Places.directory : nil]
            .compactMap { $0 }.joined(separator: ", ")
    }
}

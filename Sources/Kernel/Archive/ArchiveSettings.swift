import AgentProtocol

extension Setting {
    public static let auditArchiveRemote = Setting(
        "audit_archive_remote", .text(maximum: 64, fault: ArchiveNames.remoteFault), initial: "",
        "remote of the object store that gets the audit trail in segments; empty: none")
    public static let auditArchivePrefix = Setting(
        "audit_archive_prefix", .text(maximum: 256, fault: ArchiveNames.prefixFault), initial: "audit/",
        "what stands before the names of those segments")
    public static let auditArchiveSeconds = Setting(
        "audit_archive_s", .integer(1...2_592_000), initial: 3_600,
        "seconds after which what is new in the audit trail is a segment, however little it is")
    public static let auditArchiveRecords = Setting(
        "audit_archive_records", .integer(1...1_000_000), initial: 4_096,
        "new audit records that are a segment before that time")

    static let auditArchive = [auditArchiveRemote, auditArchivePrefix, auditArchiveSeconds, auditArchiveRecords]

    public static let outputArchiveRemote = Setting(
        "output_archive_remote", .text(maximum: 64, fault: ArchiveNames.remoteFault), initial: "",
        "remote of the object store that gets the output of commands; empty: none")
    public static let outputArchivePrefix = Setting(
        "output_archive_prefix", .text(maximum: 256, fault: ArchiveNames.prefixFault), initial: "output/",
        "what stands before the names of those objects")

    static let outputArchive = [outputArchiveRemote, outputArchivePrefix]
    static let archive = auditArchive + outputArchive
}

enum ArchiveNames {
    static let remoteFault: @Sendable (String) -> String? = { text in
        text.utf8.allSatisfy { (97...122).contains($0) || (48...57).contains($0) || $0 == 45 || $0 == 95 }
            ? nil : "is \"\(text)\" and must be a remote's name: of a-z, 0-9, - and _"
    }

    /// Keys are the same under every kind of store: no empty, `.` or `..` step, no control character.
    static let prefixFault: @Sendable (String) -> String? = { text in
        let steps = text.split(separator: "/", omittingEmptySubsequences: false)
        let isPlain = text.unicodeScalars.allSatisfy { $0.value >= 32 && $0.value != 127 && $0 != "\\" }
        let hasStep = steps.dropLast().contains { $0.isEmpty || $0 == "." || $0 == ".." }
        return isPlain && !hasStep
            ? nil : "must be a key's beginning: no control characters, no backslash, and no empty step, \".\" or \"..\" between slashes"
    }

    /// Names sort as their records do: 19 digits hold every sequence number.
    static func segment(_ prefix: String, _ first: UInt64, _ last: UInt64) -> String {
        "\(prefix)audit-\(padded(first))-\(padded(last)).jsonl"
    }

    /// Ids of commands sort as the commands were accepted.
    static func output(_ prefix: String, _ command: CommandID, _ client: ClientID, _ stream: OutputStream) -> String {
        "\(prefix)\(command)/\(client).\(stream == .standardOutput ? "stdout" : "stderr")"
    }

    private static func padded(_ number: UInt64) -> String {
        let digits = String(number)
        return String(repeating: "0", count: max(0, 19 - digits.utf8.count)) + digits
    }
}

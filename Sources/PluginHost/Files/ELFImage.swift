/// What the host reads out of a shared object before any of its code runs: identity note, needed libraries, symbols.
///
/// Reads ELF64 little-endian (System V ABI, chapters 4 and 5) with every offset checked: the file may be anything.
public struct ELFImage: Sendable {
    public static let noteSection = "cm_plugin"

    /// Content of the section `cm_plugin`; `nil` if there is none.
    public let note: [UInt8]?
    /// DT_NEEDED, in order.
    public let needed: [String]
    /// Defined global and weak symbols that others can link to.
    public let exported: [String]
    /// What it expects from others.
    public let undefined: [String]
    /// The oldest glibc that has all versions of symbols that it asks for (`GLIBC_2.34` is "2.34"); `nil`: it asks for none.
    public let glibc: String?

    /// - Throws: `plugin-not-elf`, `plugin-truncated`.
    public init(_ bytes: [UInt8]) throws(PluginRefusal) {
        let file = FileBytes(bytes)
        guard bytes.count >= 64, bytes[0..<4] == [0x7F, 0x45, 0x4C, 0x46] else { throw .notELF("it is no ELF file") }
        guard bytes[4] == 2, bytes[5] == 1 else { throw .notELF("it is not a 64-bit little-endian ELF file") }
        guard try file.u16(16) == 3 else { throw .notELF("it is an ELF file, but no shared object") }
        let machine = try file.u16(18)
        guard machine == Self.machine else { throw .notELF("it is for another processor (ELF machine \(machine))") }

        let sections = try Section.table(file)
        note = try sections.first { $0.name == Self.noteSection }.map { (section) throws(PluginRefusal) in
            try file.bytes(section.offset, section.size)
        }
        var needed: [String] = []
        var exported: [String] = []
        var undefined: [String] = []
        if let dynamic = sections.first(where: { $0.type == 6 }), let strings = sections[checked: dynamic.link] {
            for index in 0..<(dynamic.size / 16) {
                let tag = try file.u64(dynamic.offset + index * 16)
                if tag == 0 { break }
                if tag == 1 { needed.append(try strings.text(file, try file.u64(dynamic.offset + index * 16 + 8))) }
            }
        }
        if let symbols = sections.first(where: { $0.type == 11 }), let strings = sections[checked: symbols.link] {
            for index in 1..<max(1, symbols.size / 24) {
                let entry = symbols.offset + index * 24
                let binding = try file.u8(entry + 4) >> 4
                guard binding == 1 || binding == 2 else { continue }
                let name = try strings.text(file, UInt64(try file.u32(entry)))
                let visibility = try file.u8(entry + 5) & 3
                if try file.u16(entry + 6) == 0 {
                    undefined.append(name)
                } else if visibility == 0 || visibility == 3 {
                    exported.append(name)
                }
            }
        }
        glibc = try sections.first { $0.type == 0x6FFF_FFFE }.flatMap { (section) throws(PluginRefusal) in
            try Self.newestGlibc(section, sections, file)
        }
        self.needed = needed
        self.exported = exported
        self.undefined = undefined
    }

    /// Of the version needs (`.gnu.version_r`): a list of files, each with a list of versions.
    private static func newestGlibc(
        _ section: Section, _ sections: [Section], _ file: FileBytes
    ) throws(PluginRefusal) -> String? {
        guard let strings = sections[checked: section.link] else { return nil }
        var newest: (Int, Int)?
        var need = section.offset
        for _ in 0..<1_024 {
            var version = need + Int(try file.u32(need + 8))
            for _ in 0..<(try file.u16(need + 2)) {
                let name = try strings.text(file, UInt64(try file.u32(version + 8)))
                let numbers = name.hasPrefix("GLIBC_") ? name.dropFirst(6).split(separator: ".").map { Int($0) } : []
                if numbers.count >= 2, let major = numbers[0], let minor = numbers[1], newest.map({ $0 < (major, minor) }) ?? true {
                    newest = (major, minor)
                }
                version += Int(try file.u32(version + 12))
            }
            let next = Int(try file.u32(need + 12))
            if next == 0 { break }
            need += next
        }
        return newest.map { "\($0.0).\($0.1)" }
    }

    #if arch(x86_64)
    private static let machine: UInt16 = 62
    static let machineName = "x86_64"
    #elseif arch(arm64)
    private static let machine: UInt16 = 183
    static let machineName = "aarch64"
    #endif
}

private struct Section {
    let name: String
    let type: UInt32
    let offset: Int
    let size: Int
    let link: Int

    static func table(_ file: FileBytes) throws(PluginRefusal) -> [Section] {
        let start = try file.offset(40)
        let entrySize = Int(try file.u16(58))
        let count = Int(try file.u16(60))
        let nameIndex = Int(try file.u16(62))
        guard entrySize == 64, count > 0, count < 65_280, nameIndex < count else {
            throw .notELF("it has no section headers, so its identity note cannot be read (was it stripped with --strip-section-headers?)")
        }
        func raw(_ index: Int) throws(PluginRefusal) -> (name: UInt64, Section) {
            let at = start + index * 64
            let type = try file.u32(at + 4)
            let size = type == 8 ? 0 : try file.offset(at + 32)  // NOBITS has no bytes in the file
            return (
                UInt64(try file.u32(at)),
                Section(
                    name: "", type: type, offset: try file.offset(at + 24), size: size, link: Int(try file.u32(at + 40)))
            )
        }
        let names = try raw(nameIndex).1
        var sections: [Section] = []
        for index in 0..<count {
            let (name, section) = try raw(index)
            sections.append(
                Section(
                    name: try names.text(file, name), type: section.type, offset: section.offset, size: section.size,
                    link: section.link))
        }
        return sections
    }

    /// A terminated text at `offset` of this string table; at most 4,096 bytes.
    func text(_ file: FileBytes, _ offset: UInt64) throws(PluginRefusal) -> String {
        guard offset < UInt64(size) else { throw .truncated }
        var end = self.offset + Int(offset)
        let start = end
        let limit = min(self.offset + size, start + 4_096)
        while end < limit, try file.u8(end) != 0 { end += 1 }
        return String(decoding: try file.bytes(start, end - start), as: UTF8.self)
    }
}

/// Bounds-checked reads; past the end is `plugin-truncated`.
private struct FileBytes {
    private let content: [UInt8]
    init(_ content: [UInt8]) { self.content = content }

    func bytes(_ offset: Int, _ count: Int) throws(PluginRefusal) -> [UInt8] {
        guard offset >= 0, count >= 0, offset <= content.count, count <= content.count - offset else { throw .truncated }
        return Array(content[offset..<offset + count])
    }

    private func number(_ offset: Int, _ count: Int) throws(PluginRefusal) -> UInt64 {
        guard offset >= 0, offset <= content.count - count else { throw .truncated }
        var value: UInt64 = 0
        for index in 0..<count { value |= UInt64(content[offset + index]) << (8 * UInt64(index)) }
        return value
    }

    func u8(_ offset: Int) throws(PluginRefusal) -> UInt8 { UInt8(try number(offset, 1)) }
    func u16(_ offset: Int) throws(PluginRefusal) -> UInt16 { UInt16(try number(offset, 2)) }
    func u32(_ offset: Int) throws(PluginRefusal) -> UInt32 { UInt32(try number(offset, 4)) }
    func u64(_ offset: Int) throws(PluginRefusal) -> UInt64 { try number(offset, 8) }

    /// A position or size within the file.
    func offset(_ at: Int) throws(PluginRefusal) -> Int {
        let value = try u64(at)
        guard value <= UInt64(content.count) else { throw .truncated }
        return Int(value)
    }
}

extension PluginRefusal {
    fileprivate static func notELF(_ reason: String) -> PluginRefusal {
        PluginRefusal("plugin-not-elf", reason, remedy: "build it as a shared object for this machine (cc -shared -fPIC)")
    }
    fileprivate static var truncated: PluginRefusal {
        PluginRefusal(
            "plugin-truncated", "the file ends too early: it was cut off or damaged",
            remedy: "copy it again, beside its name first and renamed when whole")
    }
}

extension Array {
    fileprivate subscript(checked index: Int) -> Element? { indices.contains(index) ? self[index] : nil }
}

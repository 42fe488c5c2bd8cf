import CPluginABI
import Glibc
import PluginHost

/// The child's side: loads the plugin and plays one part with it. Reports by lines on standard output: `at WHAT` before
/// each step, `fault WHAT`, `warning WHAT`, `calls N`, and `done`. What it cannot say itself (a crash, a hang) the parent sees.
struct CheckChild {
    private let note: PluginNote
    private let path: String
    private let part: CheckPart
    /// Services of other plugins, which live in this process too.
    private let foreign: [PlayedHost.Published]

    /// - Parameter others: plugins whose services this one uses; loaded and started first.
    static func run(path: String, part: CheckPart, others: [String]) -> Int32 {
        do throws(PluginRefusal) {
            var foreign: [PlayedHost.Published] = []
            for other in others { foreign += try publishedServices(of: other, foreign) }
            let child = CheckChild(note: try note(of: path), path: path, part: part, foreign: foreign)
            child.play()
            say("done")
            return 0
        } catch {
            say("fault \(error)")
            return 1
        }
    }

    private static func note(of path: String) throws(PluginRefusal) -> PluginNote {
        try PluginNote(try ELFImage(try readFile(path)).note ?? [])
    }

    private static func publishedServices(
        of path: String, _ foreign: [PlayedHost.Published]
    ) throws(PluginRefusal) -> [PlayedHost.Published] {
        let note = try note(of: path)
        let host = PlayedHost(note, failing: 0)
        host.with { $0.foreign = foreign }
        played = host
        PlayedTables.shared = PlayedTables(.whole)
        at("load and start of \(path)")
        guard let library = dlopen(path, RTLD_NOW | RTLD_LOCAL | Int32(RTLD_NODELETE)), let symbol = dlsym(library, "cm_plugin_entry"),
            let pointer = unsafeBitCast(symbol, to: Entry.self)(UInt32(CM_ABI_MAJOR), UInt32(CM_ABI_MINOR)),
            let guest = Guest(pointer, note), let load = guest.table.load, let start = guest.table.start,
            load(guest.table.context, PlayedTables.host(.whole), nil) == CM_OK, start(guest.table.context, nil) == CM_OK
        else {
            throw PluginRefusal("plugin-with", "\(path), whose services are used, does not start", remedy: "check it first")
        }
        return host.with { $0.published }
    }

    private func play() {
        at("constructors")
        guard let library = dlopen(path, RTLD_NOW | RTLD_LOCAL | Int32(RTLD_NODELETE)) else {
            return say("fault the loader refuses it: \(dlerror().map { String(cString: $0) } ?? "no reason given")")
        }
        guard let symbol = dlsym(library, "cm_plugin_entry") else { return say("fault it has no function cm_plugin_entry") }
        let entry = unsafeBitCast(symbol, to: Entry.self)
        at("cm_plugin_entry")
        let begin = nanoseconds()
        guard let pointer = entry(UInt32(CM_ABI_MAJOR), UInt32(CM_ABI_MINOR)) else {
            return say("fault cm_plugin_entry refuses version \(CM_ABI_MAJOR) of the ABI")
        }
        let took = (nanoseconds() - begin) / 1_000_000
        if took >= 100 { say("warning cm_plugin_entry took \(took) ms; it must be quick and do nothing but answer its table") }
        guard let guest = Guest(pointer, note) else { return }
        switch part {
        case .entry: entryAlone(entry, pointer)
        case .life: life(guest, .whole, failing: 0, withError: true, traffic: true)
        case .again:
            life(guest, .whole, failing: 0, withError: true, traffic: false)
            life(guest, .whole, failing: 0, withError: true, traffic: true)
        case .larger: life(guest, .larger, failing: 0, withError: true, traffic: true)
        case .smaller(let count): life(guest, .functions(count), failing: 0, withError: true, traffic: true)
        case .fault(let number): life(guest, .whole, failing: number, withError: true, traffic: false)
        case .faultWithoutError(let number): life(guest, .whole, failing: number, withError: false, traffic: false)
        }
    }

    private typealias Entry = @convention(c) (UInt32, UInt32) -> UnsafePointer<cm_plugin>?

    private func entryAlone(_ entry: Entry, _ first: UnsafePointer<cm_plugin>) {
        for major in [0, UInt32(CM_ABI_MAJOR) + 1, .max] {
            at("cm_plugin_entry(\(major), 0)")
            if entry(major, 0) != nil { say("fault cm_plugin_entry answers a table for version \(major) of the ABI; NULL is right") }
        }
        at("cm_plugin_entry, a second time")
        if entry(UInt32(CM_ABI_MAJOR), 99) != first { say("fault cm_plugin_entry answers another table the second time") }
    }

    // MARK: One life

    private func life(_ guest: Guest, _ shape: PlayedTables.Shape, failing: Int, withError: Bool, traffic: Bool) {
        let host = PlayedHost(note, failing: failing)
        host.with { $0.foreign = foreign }
        played = host
        PlayedTables.shared = PlayedTables(shape)
        let isWhole = shape != .functions(0) && failing == 0 && { if case .functions = shape { false } else { true } }()
        func step(_ name: String, _ during: PlayedHost.Phase, _ after: PlayedHost.Phase, _ call: (CError) -> cm_status) -> cm_status {
            at(name)
            host.with { $0.phase = during }
            var error = cm_error()
            let status = withError ? call(&error) : call(nil)
            host.with { $0.phase = after }
            let text = withUnsafeBytes(of: error.text) {
                String(decoding: $0.prefix(Int(min(error.text_size, 432))), as: UTF8.self)
            }
            if error.text_size > 432 || error.code_size > 64 { say("fault \(name) wrote an error that says it is larger than its room") }
            if status > 0 { say("fault \(name) answered \(status); a status is 0 or negative") }
            if status < 0, isWhole {
                let isMissing = name == "start" && status == CM_E_NOT_FOUND && !note.requires.isEmpty
                say(
                    isMissing
                        ? "warning start was checked only so far: it requires \(note.requires.joined(separator: ", ")); give the plugin that provides it with --with FILE"
                        : "fault \(name) answered \(status): \(text)")
            }
            if status < 0, withError, text.isEmpty, failing == 0 { say("warning \(name) answered \(status) without a text for the operator") }
            return status
        }

        guard let load = guest.table.load, let start = guest.table.start, let stop = guest.table.stop else { return }
        let loaded = step("load", .loading, .loaded) { load(guest.table.context, PlayedTables.host(shape), $0) }
        var hasStarted = false
        if loaded == CM_OK {
            _ = host.run(milliseconds: 100) { $0.workers == 0 }
            hasStarted = step("start", .starting, .running) { start(guest.table.context, $0) } == CM_OK
            say("calls \(host.with { $0.calls })")
            if hasStarted {
                _ = host.run(milliseconds: 100) { $0.workers == 0 }
                if traffic { host.playTraffic(milliseconds: isWhole ? 5000 : 200) }
                if let quiesce = guest.table.quiesce, let resume = guest.table.resume {
                    _ = step("quiesce", .running, .running) { quiesce(guest.table.context, $0) }
                    _ = step("resume", .running, .running) { resume(guest.table.context, $0) }
                    if traffic { host.playTraffic(milliseconds: isWhole ? 5000 : 200) }
                }
                if let quiesce = guest.table.quiesce {
                    _ = step("quiesce", .running, .running) { quiesce(guest.table.context, $0) }
                }
                if traffic { host.recallLeases(milliseconds: isWhole ? 5000 : 200) }
            }
            at("stop")
            host.with { $0.phase = .stopping }
            stop(guest.table.context)
            if !host.run(milliseconds: 5000, until: { $0.workers == 0 }) {
                say("fault work that was given to cm.executor/1 blocking still ran 5 s after stop")
            }
        } else {
            say("calls \(host.with { $0.calls })")
        }
        host.with { $0.phase = .stopped }
        if loaded == CM_OK {
            for name in host.with({ $0.registrations.values.filter { $0.kind == .lease }.map(\.name) }) {
                host.misuse("\(name) was not given back by stop")
            }
        }
        takeBack(host)
        if loaded == CM_OK { callPublished(host) }
        // Whoever still calls the core now is a thread that stop did not end.
        usleep(isWhole ? 100_000 : 2_000)
        if isWhole { for text in host.with({ $0.misuse }) { say("fault \(text)") } }
        if let failed = host.with({ $0.failed }) { say("failed \(failed)") }
    }

    /// All that the plugin registered, as the core does after `stop` and after a failed `load`.
    private func takeBack(_ host: PlayedHost) {
        let (registrations, queue) = host.with { state in
            defer {
                state.registrations = [:]
                state.queue = []
            }
            return (state.registrations.sorted { $0.key < $1.key }, state.queue)
        }
        for work in queue { work.destroy?(work.context) }
        for (_, registration) in registrations {
            at("destroy of \(registration.name)")
            registration.destroy?(registration.context)
        }
    }

    /// After `stop` each published function answers CM_E_GONE, whatever it is given.
    private func callPublished(_ host: PlayedHost) {
        let code = CodeRanges()
        for published in host.with({ $0.published }) {
            let size = min(Int(published.table.load(as: cm_head.self).size), 4096)
            for (index, offset) in stride(from: MemoryLayout<cm_head>.size, to: size - 7, by: 8).enumerated() {
                let address = published.table.load(fromByteOffset: offset, as: UInt.self)
                guard code.contains(address) else { continue }
                typealias Function = @convention(c) (Opaque, UInt64, UInt64, UInt64, UInt64, UInt64) -> cm_status
                let function = unsafeBitCast(address, to: Function.self)
                at("function \(index) of \(published.service) after stop")
                let status = function(published.context, 0, 0, 0, 0, 0)
                if status != CM_E_GONE {
                    say("fault function \(index) of \(published.service) answers \(status) after stop; CM_E_GONE is right: begin it with CM_GUARD")
                }
            }
        }
    }

    private func nanoseconds() -> UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }
}

/// The plugin's table, copied as far as it goes.
private struct Guest {
    let table: cm_plugin

    init?(_ pointer: UnsafePointer<cm_plugin>, _ note: PluginNote) {
        at("the table of cm_plugin_entry")
        let raw = UnsafeRawPointer(pointer)
        let size = Int(raw.load(as: cm_head.self).size)
        guard size >= MemoryLayout<cm_plugin>.size else {
            say("fault the table says that it has \(size) bytes; revision 1 has \(MemoryLayout<cm_plugin>.size)")
            return nil
        }
        guard raw.load(fromByteOffset: 16, as: UInt.self) != 0, raw.load(fromByteOffset: 24, as: UInt.self) != 0 else {
            say("fault the table has no id or no version")
            return nil
        }
        table = pointer.pointee
        let id = String(cString: table.id)
        let version = String(cString: table.version)
        if id != note.id { say("fault the table says \"\(id)\", the note \"\(note.id)\"") }
        if version != note.version.description { say("fault the table says version \(version), the note \(note.version)") }
        guard table.load != nil, table.start != nil, table.stop != nil else {
            say("fault the table lacks load, start or stop")
            return nil
        }
    }
}

/// The executable mappings of this process: what can be a function.
private struct CodeRanges {
    private var ranges: [Range<UInt>] = []

    init() {
        guard let file = fopen("/proc/self/maps", "r") else { return }
        defer { fclose(file) }
        var line: UnsafeMutablePointer<CChar>?
        var room = 0
        defer { free(line) }
        while getline(&line, &room, file) > 0, let text = line.map({ String(cString: $0) }) {
            let words = text.split(separator: " ")
            let ends = words.first?.split(separator: "-") ?? []
            guard words.count > 1, words[1].contains("x"), ends.count == 2, let start = UInt(ends[0], radix: 16),
                let end = UInt(ends[1], radix: 16), start < end
            else { continue }
            ranges.append(start..<end)
        }
    }

    func contains(_ address: UInt) -> Bool { ranges.contains { $0.contains(address) } }
}

/// A whole file, at most 256 MiB.
func readFile(_ path: String) throws(PluginRefusal) -> [UInt8] {
    guard let file = fopen(path, "r") else {
        throw PluginRefusal("plugin-unreadable", "\(path) cannot be opened: \(String(cString: strerror(errno)))", remedy: "give the path of a NAME.so")
    }
    defer { fclose(file) }
    var content: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    while case let count = fread(&buffer, 1, buffer.count, file), count > 0, content.count <= 256 << 20 {
        content.append(contentsOf: buffer[..<count])
    }
    return content
}

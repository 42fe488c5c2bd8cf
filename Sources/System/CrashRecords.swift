import CLinux
import Glibc

/// What a process noted in its last moment, when a signal ended it.
public struct CrashRecord: Sendable, Equatable {
    public var signal: Int32
    public var process: Int32
    public var thread: Int32
    public var threadName: String
    public var unixSeconds: UInt64
    /// Zero for signals that somebody sent.
    public var faultAddress: UInt64
    public var programCounter: UInt64
    /// The registered image in which the program counter lay, and how far from its start.
    public var image: String?
    public var imageOffset: UInt64
    /// For whom the thread worked, by its own word.
    public var current: String?

    /// Whom to blame: the owner of the code that faulted, else the one for whom the thread worked; nil: the core itself.
    public var blamed: String? { image ?? current }

    public var signalName: String {
        switch signal {
        case SIGSEGV: "SIGSEGV"
        case SIGBUS: "SIGBUS"
        case SIGILL: "SIGILL"
        case SIGFPE: "SIGFPE"
        case SIGABRT: "SIGABRT"
        default: "signal \(signal)"
        }
    }
}

/// Crash records of this process and of those before it. The word that a thread carries is set by who calls foreign code,
/// with `cm_crash_enter` and `cm_crash_leave` (CLinux).
public enum CrashRecords {
    private static let prefix = "crash-"
    private static let maximum = 256

    /// From now on a fault of this process leaves a record in `directory`. Call it once, after `take`.
    public static func install(_ directory: String) throws(SystemError) {
        let status = cm_crash_install(directory)
        guard status == 0 else { throw SystemError("sigaction", directory, code: -status) }
    }

    /// Says whose code lies at these addresses, and which word threads carry that work for it. False: the table is full.
    public static func addImage(_ addresses: Range<UInt64>, word: UInt64, name: String) -> Bool {
        cm_crash_add_image(addresses.lowerBound, addresses.upperBound, word, name) == 0
    }

    /// Reads and removes what earlier processes left, oldest first. Records that were cut count as `unreadable`.
    public static func take(_ directory: String) -> (records: [CrashRecord], unreadable: Int) {
        var records: [CrashRecord] = []
        var unreadable = 0
        for name in (try? Files.list(directory)) ?? [] where name.hasPrefix(prefix) {
            let path = directory + "/" + name
            let size = MemoryLayout<cm_crash_record>.size
            if records.count < maximum, let bytes = try? Files.read(path, limit: size), let record = parse(bytes) {
                records.append(record)
            } else {
                unreadable += 1
            }
            try? Files.remove(path)
        }
        return (records.sorted { $0.unixSeconds < $1.unixSeconds }, unreadable)
    }

    static func parse(_ bytes: [UInt8]) -> CrashRecord? {
        let size = MemoryLayout<cm_crash_record>.size
        guard bytes.count == size, bytes.starts(with: Array("CMCRASH1".utf8)), bytes.suffix(8) == Array("CMCREND1".utf8)[...]
        else { return nil }
        // Plain numbers and characters: every pattern of bits is a value.
        let record = bytes.withUnsafeBytes { $0.loadUnaligned(as: cm_crash_record.self) }
        guard record.size == UInt32(size) else { return nil }
        return CrashRecord(
            signal: record.signal, process: record.process, thread: record.thread, threadName: text(record.thread_name),
            unixSeconds: record.unix_seconds, faultAddress: record.fault_address, programCounter: record.program_counter,
            image: record.image_found == 1 ? text(record.image_name) : nil, imageOffset: record.image_offset,
            current: record.current == 0 || text(record.current_name).isEmpty ? nil : text(record.current_name))
    }

    /// The characters of a C array up to its NUL.
    private static func text<Characters>(_ characters: Characters) -> String {
        withUnsafeBytes(of: characters) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }
}

import CLinux
import Glibc
import Testing

@testable import System

@Suite struct CrashRecordTests {
    private func bytes(_ change: (inout cm_crash_record) -> Void = { _ in }) -> [UInt8] {
        var record = cm_crash_record()
        withUnsafeMutableBytes(of: &record.magic) { $0.copyBytes(from: "CMCRASH1".utf8) }
        withUnsafeMutableBytes(of: &record.end) { $0.copyBytes(from: "CMCREND1".utf8) }
        record.size = UInt32(MemoryLayout<cm_crash_record>.size)
        record.signal = SIGSEGV
        change(&record)
        return withUnsafeBytes(of: record) { Array($0) }
    }

    private func named(_ text: String, _ field: UnsafeMutableRawBufferPointer) { field.copyBytes(from: text.utf8) }

    @Test func theCodeThatFaultedIsBlamedBeforeTheOneItWorkedFor() throws {
        let both = try #require(CrashRecords.parse(bytes { record in
            record.image_found = 1
            record.image_offset = 0x1234
            record.current = 7
            withUnsafeMutableBytes(of: &record.image_name) { named("inner", $0) }
            withUnsafeMutableBytes(of: &record.current_name) { named("outer", $0) }
        }))
        #expect(both.blamed == "inner" && both.current == "outer" && both.imageOffset == 0x1234 && both.signalName == "SIGSEGV")
        let elsewhere = try #require(CrashRecords.parse(bytes { record in
            record.current = 7
            withUnsafeMutableBytes(of: &record.current_name) { named("outer", $0) }
        }))
        #expect(elsewhere.blamed == "outer" && elsewhere.image == nil)
        #expect(CrashRecords.parse(bytes())?.blamed == nil)
    }

    @Test func recordsAreTakenOnceAndCutOnesAreCounted() throws {
        let directory = try TemporaryDirectory()
        let whole = bytes { $0.unix_seconds = 2 }
        let older = bytes { record in
            record.unix_seconds = 1
            record.process = 41
        }
        try AtomicFile.write(whole, to: directory.path + "/crash-42", mode: 0o600)
        try AtomicFile.write(older, to: directory.path + "/crash-41", mode: 0o600)
        try AtomicFile.write(Array(whole.dropLast(1)), to: directory.path + "/crash-43", mode: 0o600)
        try AtomicFile.write([], to: directory.path + "/crash-44", mode: 0o600)
        try AtomicFile.write([], to: directory.path + "/ready.json", mode: 0o600)
        let taken = CrashRecords.take(directory.path)
        #expect(taken.records.map(\.unixSeconds) == [1, 2] && taken.records.first?.process == 41 && taken.unreadable == 2)
        #expect(CrashRecords.take(directory.path).records.isEmpty)
        #expect(Files.exists(directory.path + "/ready.json"))
    }

    @Test func theWordIsTheThreadsOwn() throws {
        let former = cm_crash_enter(7)
        #expect(cm_crash_enter(8) == 7)
        cm_crash_leave(7)
        #expect(cm_crash_enter(0) == 7)
        cm_crash_leave(former)
    }
}

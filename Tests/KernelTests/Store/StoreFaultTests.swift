import Synchronization
import Testing

@testable import Kernel

@Suite struct StoreFaultTests {
    /// SQLite's numbers.
    private static let failedWrite: Int32 = 778, failedSync: Int32 = 1034, corrupt: Int32 = 11

    @Test func theFirstFinalErrorIsToldOnceWithWhatFailedAndWhatToDo() {
        let told = Told()
        let fault = StoreFault { problem in told.problems.withLock { $0.append(problem) } }
        fault.note(.full, during: .commit)
        fault.note(.failed(code: Self.failedWrite, message: "a failed write"), during: .commit)
        #expect(fault.error == nil && told.problems.withLock { $0.isEmpty })
        fault.note(.failed(code: Self.failedSync, message: "disk I/O error"), during: .checkpoint)
        fault.note(.failed(code: Self.corrupt, message: "malformed"), during: .commit)
        let problems = told.problems.withLock { $0 }
        #expect(problems.map(\.code) == ["store-failed"])
        #expect(problems.first?.detail.contains("in a checkpoint (1034: disk I/O error)") == true)
        #expect(problems.first?.detail.contains("see the disk, then restart") == true)
        #expect(fault.error == problems.first.map(StoreError.refused))
    }

    private final class Told: Sendable {
        let problems = Mutex<[Problem]>([])
    }
}

import AgentProtocol
import Glibc
import System

/// What the agent knows of one execution. Touched on the agent's loop only.
final class Execution {
    enum Phase {
        /// The order is being journaled.
        case accepting
        /// Journaled, in the queue.
        case waiting
        /// A holder is being started, or looked for.
        case launching
        case held(HolderLink)
        /// The link has ended; the files are being asked how.
        case settling
        case ended(ExitRecord)
    }

    let command: CommandID
    var phase = Phase.accepting
    /// False for a refusal that was never journaled.
    var durable = false
    var startedAt: UInt64 = 0
    var lengths: [UInt64] = [0, 0]
    /// Values of the order's secret variables, until the program has begun or nothing will begin. Nowhere else.
    var secrets: [String: String] = [:]
    var cancelWanted = false
    var forgetWanted = false
    /// Holders started for it by this process.
    var launches = 0
    /// The one open file per stream for `read`, while there is something to read.
    private var output: Descriptor?
    private var errors: Descriptor?

    init(_ command: CommandID) { self.command = command }

    var exit: ExitRecord? {
        if case .ended(let record) = phase { return record }
        return nil
    }

    var link: HolderLink? {
        if case .held(let link) = phase { return link }
        return nil
    }

    var isRunning: Bool {
        switch phase {
        case .launching, .held, .settling: true
        case .accepting, .waiting, .ended: false
        }
    }

    func length(_ stream: OutputStream) -> UInt64 { lengths[Int(stream.rawValue) - 1] }

    /// Bytes from `offset` on; opens the spool at the first call and closes it when everything has been read.
    func read(_ stream: OutputStream, at offset: UInt64, path: () -> String, into buffer: inout OutputRawSpan) -> Int {
        guard offset < length(stream) else { return 0 }
        do throws(SystemError) {
            switch stream {
            case .standardOutput:
                if output == nil { output = try Descriptor.open(path(), O_RDONLY) }
                return try output?.read(at: offset, into: &buffer) ?? 0
            case .standardError:
                if errors == nil { errors = try Descriptor.open(path(), O_RDONLY) }
                return try errors?.read(at: offset, into: &buffer) ?? 0
            }
        } catch { return 0 }
    }

    /// True when a spool is open for reading.
    var hasOpenFiles: Bool {
        if output != nil { return true }
        return errors != nil
    }

    func closeFiles() {
        output = nil
        errors = nil
    }
}

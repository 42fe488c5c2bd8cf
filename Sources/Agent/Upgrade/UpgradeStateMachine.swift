import AgentProtocol
import Program

/// One upgrade of this agent, as it stands in its journal: a value, changed by what happened, with what has to be done
/// then. The journal is synced before the step that it names is taken, so a process or a machine that dies between any
/// two of them leaves the old program or the new one in place, and a journal that says what to make of it.
struct UpgradeStateMachine: Sendable, Equatable {
    enum Phase: String, Sendable, CaseIterable {
        /// Accepted; the file is on its way.
        case receiving
        /// The file is whole and synced beside the program.
        case staged
        /// A watcher runs it on trial; the program in place is the old one.
        case trial
        /// The trial went well; the program in place is the old or the new one.
        case proven
        /// The new program is in place.
        case committed
        /// The new program was in place and online: done.
        case online
        case rolledBack = "rolled-back"
        case failed
    }

    enum Event: Sendable, Equatable {
        case fileStaged
        case trialBegan
        case trialProved
        /// The new file has the program's name.
        case swapped
        /// The core has accepted the agent that runs the new program from its place.
        case cameOnline
        /// Before any trial.
        case failed(code: String, message: String)
        /// The trial did not go well, or was cut off.
        case rolledBack(code: String, message: String)
    }

    /// What an agent that starts has to do about the upgrade that it finds.
    enum Recovery: Sendable, Equatable {
        case nothing
        /// The staged file may go.
        case discardStaged
        /// The old file takes the program's name again, and is started.
        case restorePrevious
    }

    /// Starts of a new program that never came online, until the old one is put back.
    static let starts = 5

    let order: UpgradeOrder
    let manifest: ReleaseManifest
    /// The program that is replaced: an absolute path, fixed when the order came.
    let program: String
    private(set) var phase = Phase.receiving
    private(set) var code = ""
    private(set) var message = ""
    /// Since the swap.
    private(set) var startCount = 0

    init(_ order: UpgradeOrder, _ manifest: ReleaseManifest, program: String) {
        self.order = order
        self.manifest = manifest
        self.program = program
    }

    var isFinal: Bool { phase == .online || phase == .rolledBack || phase == .failed }

    /// - Returns: false when this cannot happen now; nothing has changed then.
    mutating func apply(_ event: Event) -> Bool {
        switch (phase, event) {
        case (.receiving, .fileStaged): phase = .staged
        case (.staged, .trialBegan): phase = .trial
        case (.trial, .trialProved): phase = .proven
        case (.proven, .swapped): phase = .committed
        case (.committed, .cameOnline): phase = .online
        case (.receiving, .failed(let code, let message)), (.staged, .failed(let code, let message)):
            end(.failed, code, message)
        case (.trial, .rolledBack(let code, let message)), (.proven, .rolledBack(let code, let message)),
            (.committed, .rolledBack(let code, let message)):
            end(.rolledBack, code, message)
        default: return false
        }
        return true
    }

    private mutating func end(_ phase: Phase, _ code: String, _ message: String) {
        self.phase = phase
        self.code = code
        self.message = message
    }

    /// An agent starts from the program's place and finds this journal.
    /// - Parameter isInPlace: the file with the program's name is the one of the release.
    mutating func recover(isInPlace: Bool) -> Recovery {
        switch phase {
        case .receiving, .staged, .online, .failed, .rolledBack: return .nothing
        case .trial:
            end(.rolledBack, "upgrade-interrupted", "the agent ended while the new program was on trial")
            return .discardStaged
        case .proven where isInPlace:
            phase = .committed
            startCount = 1
            return .nothing
        case .proven:
            end(.rolledBack, "upgrade-interrupted", "the agent ended before the new program was in place")
            return .discardStaged
        case .committed where isInPlace:
            startCount += 1
            guard startCount > Self.starts else { return .nothing }
            end(
                .rolledBack, "upgrade-not-online",
                "the new program was started \(Self.starts) times in its place and never came online")
            return .restorePrevious
        case .committed:
            end(.rolledBack, "upgrade-replaced", "somebody has put another program in the place of the new one")
            return .discardStaged
        }
    }

    var report: UpgradeReport {
        let progress: UpgradeProgress =
            switch phase {
            case .receiving: .receiving
            case .staged: .staged
            case .trial, .proven, .committed: .restarted
            case .online: .online
            case .rolledBack: .rolledBack
            case .failed: .failed
            }
        return UpgradeReport(upgrade: order.upgrade, progress: progress, code: code, message: message)
    }
}

extension UpgradeStateMachine {
    struct Stored {
        var phase: Phase
        var code: String
        var message: String
        var startCount: Int
    }

    var stored: Stored { Stored(phase: phase, code: code, message: message, startCount: startCount) }

    mutating func restore(_ stored: Stored) {
        phase = stored.phase
        code = stored.code
        message = stored.message
        startCount = stored.startCount
    }
}

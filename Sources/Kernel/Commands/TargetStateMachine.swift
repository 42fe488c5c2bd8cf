import AgentProtocol

/// The life of one target (one client of one command), as a value: inputs in, one action out, no I/O.
///
///     waiting ──dispatch──▶ sent ──started, output, report──▶ running
///        ▲                   │ │                                │
///        └──agent never ─────┘ └──────────── end ◀──────────────┘
///           knew it
///     any of them ──end──▶ ending ──recorded──▶ ended
///
/// What must hold: an order leaves the core only on the way from `waiting` to `sent`, and the only way back to
/// `waiting` is an agent's own report, over a link that outlived every older one, that it does not know the command.
/// An end is decided once: after `ending` every other end is ignored, and its record is tried until it is durable.
public struct TargetStateMachine: Sendable, Equatable {
    /// Where a target stands while it has no end.
    public enum Stage: UInt8, Sendable {
        /// Not with the agent: held by a window, a wave, the client's queue, or the client is offline.
        case waiting
        /// Handed to a link. Whether the agent has it is not known.
        case sent
        /// The agent has said so.
        case running
    }

    public enum Phase: Sendable, Equatable {
        case open(Stage)
        /// The end is decided and on its way to the disk.
        case ending(FinalState, from: Stage)
        case ended(FinalState)
    }

    public enum Input: Sendable, Equatable {
        /// Its turn has come and the client's link is up.
        case dispatch
        /// The agent says that the program began to run.
        case started
        case output
        /// A report after a (re)connect has it, without an end.
        case reported(Started)
        /// A report after a (re)connect does not have it.
        case unknownToAgent
        case exit(ExitRecord)
        case cancel
        /// The time for a start is over (queue deadline).
        case expire
        /// The client has been away for longer than the lost-after time.
        case lost
        /// The client was revoked or forgotten, or came back with an empty data directory.
        case clientGone(code: String)
        /// The error budget is used up.
        case abort
        case skip
        case refuse(code: String, message: String)
        /// The agent did not enforce the time-out although its link was up.
        case overdue
        /// The end is durable.
        case recorded
    }

    public enum Action: Sendable, Equatable {
        case none
        /// Give the order to the link.
        case send
        /// Put it back in its place before the targets that were not sent yet.
        case requeue
        /// Tell the agent to end it.
        case sendCancel
        /// Make this end durable, then apply `.recorded`.
        case record(TargetEnd)
        /// The input does not belong here and changed nothing.
        case illegal
    }

    public private(set) var phase: Phase
    public private(set) var cancelRequested = false
    /// The program is known to have begun.
    public private(set) var sawStart = false
    /// The core has asked the agent to end it because it was overdue.
    public private(set) var overdueAsked = false

    /// - Parameter stage: `.waiting` for a new target, and after a restart of the core for one that is known not to have
    ///   been sent; `.sent` after a restart for all others.
    public init(_ stage: Stage = .waiting, cancelRequested: Bool = false) {
        phase = .open(stage)
        self.cancelRequested = cancelRequested
    }

    /// One that has ended before, read back from the disk.
    public init(ended state: FinalState) { phase = .ended(state) }

    public var isOpen: Bool { if case .open = phase { true } else { false } }
    public var stage: Stage? { if case .open(let stage) = phase { stage } else { nil } }

    /// With the agent, or possibly so: counts against the client's bound.
    public var isActive: Bool {
        switch phase {
        case .open(let stage), .ending(_, let stage): stage != .waiting
        case .ended: false
        }
    }

    /// What the API calls it. An end shows only when it is durable.
    public var name: String {
        switch phase {
        case .open(.waiting), .ending(_, .waiting): "waiting"
        case .open(.sent), .ending(_, .sent): "sent"
        case .open(.running), .ending(_, .running): "running"
        case .ended(let state): state.name
        }
    }

    public mutating func apply(_ input: Input) -> Action {
        switch phase {
        case .open(let stage): return applyOpen(input, stage)
        case .ending(let state, _):
            switch input {
            case .recorded:
                phase = .ended(state)
                return .none
            case .cancel:
                cancelRequested = true
                return .none
            case .started, .output, .reported, .unknownToAgent, .expire, .lost, .clientGone, .abort, .skip, .refuse,
                .overdue:
                return .none
            case .dispatch, .exit: return .illegal
            }
        case .ended:
            switch input {
            case .cancel, .lost, .clientGone, .expire, .abort, .overdue: return .none
            default: return .illegal
            }
        }
    }

    private mutating func applyOpen(_ input: Input, _ stage: Stage) -> Action {
        switch (input, stage) {
        case (.dispatch, .waiting):
            guard !cancelRequested else { return end(TargetEnd(.cancelled, started: .no), stage) }
            phase = .open(.sent)
            return .send
        case (.dispatch, _): return .illegal

        case (.started, .waiting), (.output, .waiting), (.reported, .waiting), (.exit, .waiting): return .illegal
        case (.started, _), (.output, _):
            sawStart = true
            phase = .open(.running)
            return .none
        case (.reported(let started), _):
            if started == .yes { sawStart = true }
            phase = .open(.running)
            return cancelRequested || overdueAsked ? .sendCancel : .none

        case (.unknownToAgent, .waiting): return .none
        case (.unknownToAgent, .sent):
            guard !cancelRequested else { return end(TargetEnd(.cancelled, started: .no), stage) }
            phase = .open(.waiting)
            overdueAsked = false
            return .requeue
        case (.unknownToAgent, .running):
            // It had the command and lost it: its data is gone.
            return end(
                TargetEnd(
                    .interrupted, started: sawStart ? .yes : .maybe, code: "agent-data-lost",
                    message: "the agent no longer knows a command that it had"), stage)

        case (.exit(let record), _): return end(TargetEnd(record, sawStart: sawStart), stage)

        case (.cancel, .waiting):
            cancelRequested = true
            return end(TargetEnd(.cancelled, started: .no), stage)
        case (.cancel, _):
            cancelRequested = true
            return .sendCancel

        case (.expire, .waiting):
            return end(
                TargetEnd(
                    .expired, started: .no, code: "start-deadline",
                    message: "the client could not take it before the time for a start was over"), stage)
        case (.expire, _): return .none

        case (.lost, .waiting):
            return end(
                TargetEnd(
                    .expired, started: .no, code: "client-lost", message: "the client did not come back in time"),
                stage)
        case (.lost, _):
            return end(
                TargetEnd(
                    .interrupted, started: sawStart ? .yes : .maybe, code: "client-lost",
                    message: "the client did not come back in time to tell how it ended"), stage)

        case (.clientGone(let code), .waiting):
            return end(
                TargetEnd(.refused, started: .no, code: code, message: "the client was taken out of service"), stage)
        case (.clientGone(let code), _):
            return end(
                TargetEnd(
                    .interrupted, started: sawStart ? .yes : .maybe, code: code,
                    message: "the client was taken out of service before it told how it ended"), stage)

        case (.abort, .waiting):
            return end(
                TargetEnd(
                    .aborted, started: .no, code: "error-budget", message: "the error budget was used up before"),
                stage)
        case (.abort, _): return .none

        case (.skip, .waiting):
            return end(
                TargetEnd(.skipped, started: .no, code: "client-offline", message: "the client was offline"), stage)
        case (.refuse(let code, let message), .waiting):
            return end(TargetEnd(.refused, started: .no, code: code, message: message), stage)
        case (.skip, _), (.refuse, _): return .illegal

        case (.overdue, .waiting): return .illegal
        case (.overdue, _):
            guard overdueAsked else {
                overdueAsked = true
                return .sendCancel
            }
            return end(
                TargetEnd(
                    .timedOut, started: sawStart ? .yes : .maybe, code: "agent-overdue",
                    message: "the agent did not end it in time"), stage)

        case (.recorded, _): return .illegal
        }
    }

    private mutating func end(_ end: TargetEnd, _ stage: Stage) -> Action {
        phase = .ending(end.state, from: stage)
        return .record(end)
    }
}

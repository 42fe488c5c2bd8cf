import AgentProtocol
import JSON
import Reactor
import System

/// What time does: waiting callers are let go, deadlines pass, refused records are tried again, old things are removed.
extension Commands {
    /// Starts the clock on `loop`; it runs until `stop`.
    public func start(on loop: EventLoop) {
        loop.spawn { [self] in await runClock(loop) }
    }

    private func runClock(_ loop: EventLoop) async {
        var clock = CommandClock(now: now())
        while true {
            let (isIdle, isStopped) = state.withLock { state in (state.book.live.isEmpty, state.isStopped) }
            guard !isStopped else { return }
            await loop.sleep(milliseconds: isIdle ? 500 : 100)
            await tick(&clock)
        }
    }

    /// One look at the time. Tests call it themselves.
    func tick(_ clock: inout CommandClock) async {
        let now = now()
        var effects = BookEffects()
        let retry = state.withLock { state -> [DecidedEnd] in
            state.book.releaseWaiters(now: now, &effects)
            guard clock.isDue(.sweep, now) else { return [] }
            state.book.sweep(now: now, budget: 50_000, &effects)
            defer { state.unrecorded = [] }
            return state.unrecorded
        }
        effects.ends.insert(contentsOf: retry, at: 0)
        await perform(consume effects)
        if clock.isDue(.carry, now) { await carry(now) }
        if clock.isDue(.prune, now) { await prune(now) }
    }

    /// Writes down which older targets are unfinished, so that a start does not have to look through the whole history.
    private func carry(_ now: UInt64) async {
        let (targets, lowWater) = state.withLock { state -> ([Int64], Int64) in
            var rows: [Int64] = []
            var low = min(numbers.nextTarget, state.accepting.min() ?? .max)
            for command in state.book.live where now > command.id.milliseconds + CommandClock.carryAge {
                for index in command.targets.indices where !command.targets[index].isMarked {
                    if case .ended = command.targets[index].machine.phase { continue }
                    command.targets[index].isMarked = true
                    rows.append(command.firstTarget + Int64(index))
                }
            }
            for command in state.book.live where now <= command.id.milliseconds + CommandClock.carryAge {
                low = min(low, command.firstTarget)
            }
            return (rows, low)
        }
        do throws(Problem) { try await journal.carry(targets, lowWater: lowWater) } catch {
            observers.recordFailed(error)
        }
    }

    private func prune(_ now: UInt64) async {
        let retention = retention.withLock { $0 }
        let keep = min(retention.commandMilliseconds ?? now, now)
        let keysBefore = now > limits.idempotencyMilliseconds ? now - limits.idempotencyMilliseconds : 0
        do throws(Problem) {
            // Without knowing what the archive needs, nothing is removed.
            var waits = try await pruneOutput(now, retention)
            for _ in 0..<20 {
                let (removed, waiting) = try await journal.prune(
                    before: now - keep, keysBefore: keysBefore, count: 500)
                if waiting > 0 { waits = true }
                if removed < 500 { break }
            }
            archiveWaits.withLock { [waits] in $0 = waits }
        } catch {
            observers.recordFailed(error)
        }
    }

    /// No new command from now on; callers who wait are let go. What runs goes on at the agents and is taken up again by
    /// the next start.
    public func stop() {
        var effects = BookEffects()
        state.withLock { state in
            state.isStopped = true
            state.book.releaseWaiters(now: .max, &effects)
        }
        effects.resumes.drain { continuation in continuation.resume() }
        outputs.stop()
    }

    public var isStopped: Bool { state.withLock { $0.isStopped } }

    /// Unfinished targets now, for metrics.
    public var openTargets: Int { state.withLock { $0.book.openTargets } }
}

/// How long what has ended is kept; `nil`: for ever.
public struct CommandRetention: Sendable {
    public var commandMilliseconds: UInt64? = 90 * 86_400_000
    public var outputMilliseconds: UInt64? = 30 * 86_400_000
    /// Of all files of output together; the oldest go first.
    public var outputBytes: UInt64 = 32 << 30
}

extension Commands {
    /// Takes the settings that concern commands, now and whenever they change.
    public func follow(_ settings: Settings) {
        let days: @Sendable (Setting) -> UInt64? = { setting in
            let days = settings.integer(setting)
            return days == 0 ? nil : UInt64(days) * 86_400_000
        }
        let apply: @Sendable (JSONValue) -> Void = { [self] _ in
            retention.withLock {
                $0 = CommandRetention(
                    commandMilliseconds: days(.commandRetentionDays), outputMilliseconds: days(.outputRetentionDays),
                    outputBytes: UInt64(settings.integer(.outputStoreMiB)) << 20)
            }
        }
        apply(.null)
        for setting in [Setting.commandRetentionDays, .outputRetentionDays, .outputStoreMiB] { settings.observe(setting, apply) }
        let require: @Sendable (JSONValue) -> Void = { [filters] _ in filters.require(settings.strings(.requiredOutputFilters)) }
        require(.null)
        settings.observe(.requiredOutputFilters, require)
    }
}

/// When which periodic work is due.
struct CommandClock {
    enum Work: Int { case sweep, carry, prune }

    /// Milliseconds after which an unfinished target is carried into the marks.
    static let carryAge: UInt64 = 30_000

    private static let periods: [UInt64] = [1_000, 10_000, 60_000]
    private var due: [UInt64]

    init(now: UInt64) { due = Self.periods.map { now + $0 } }

    mutating func isDue(_ work: Work, _ now: UInt64) -> Bool {
        guard now >= due[work.rawValue] else { return false }
        due[work.rawValue] = now + Self.periods[work.rawValue]
        return true
    }
}

import AgentProtocol

/// What the archive of output needs to know of commands, and what their retention leaves for it.
extension Commands {
    /// Every target below this number is in the database, or never will be.
    var acceptedEnd: Int64 {
        state.withLock { state in min(numbers.nextTarget, state.accepting.min() ?? .max) }
    }

    /// The last look at what is too old left something for the archive.
    var retentionWaits: Bool { archiveWaits.withLock { $0 } }

    /// Removes segments of output that are too old or too many. With the archive on, those that are only too old wait for it; of
    /// those that are too many it is counted and told what they may have held for it.
    /// - Returns: whether something waits.
    func pruneOutput(_ now: UInt64, _ retention: CommandRetention) async throws(Problem) -> Bool {
        // Running targets first: one that ends meanwhile is then found in the database.
        let segment = state.withLock { state in
            state.book.live.reduce(UInt64.max) { lowest, command in
                command.targets.reduce(lowest) { min($0, $1.output?.firstSegment ?? .max) }
            }
        }
        let (isOn, since) = try await journal.store.read { (reader) throws(StoreError) in
            (try OutputArchiveRow.destination(reader) != nil, try OutputArchiveRow.heldSince(reader))
        }
        let hold = isOn ? OutputHold(since: since ?? .max, segment: segment) : nil
        let pruned = await outputs.prune(
            now: now, keep: retention.outputMilliseconds, most: retention.outputBytes, hold: hold)
        guard pruned.dropped > 0 else { return pruned.waiting > 0 }
        observers.outputDropped(pruned.dropped, pruned.droppedBytes)
        try await journal.store.write { (transaction) throws(StoreError) in
            try OutputArchiveRow.dropped(transaction, pruned.droppedBytes)
        }
        return pruned.waiting > 0
    }
}

extension LiveOutput {
    /// The oldest segment that has bytes of it.
    var firstSegment: UInt64? {
        state.withLock { state in
            OutputStream.allCases.compactMap { state.extents[$0].extents.first?.segment }.min()
        }
    }
}

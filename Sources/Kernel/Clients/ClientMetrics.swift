import Program

extension Clients {
    /// Clients by state, for `/metrics`.
    public func register(in metrics: Metrics) {
        for state in ClientState.allCases {
            metrics.reading(
                "client_manager_clients", "Clients in the registry by state.", labels: [("state", state.rawValue)]
            ) { [self] in Double(count(of: state)) }
        }
        metrics.reading("client_manager_heartbeats_total", "Heartbeats taken from agents.", isTotal: true) { [self] in
            Double(heartbeats.load(ordering: .relaxed))
        }
    }
}

extension Enrollment {
    /// Waiting machines, for `/metrics`.
    public func register(in metrics: Metrics) {
        clients.register(in: metrics)
        registerTurnedAway(in: metrics)
        metrics.reading("client_manager_enrollments_pending", "Machines that wait for approval.") { [self] in
            Double(waiting.withLock { $0.pending.entries.count })
        }
    }
}

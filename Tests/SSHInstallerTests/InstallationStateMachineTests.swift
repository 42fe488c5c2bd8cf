import Testing

@Suite struct InstallationStateMachineTests {
    private static let events: [InstallationState.Event] = [.accepted, .begun, .foundNoCredentials, .succeeded, .failed, .cancelled]

    private func walk(_ events: InstallationState.Event...) -> InstallationState? {
        events.reduce(.waiting) { state, event in state?.after(event) }
    }

    @Test func anInstallationRunsToItsEnd() {
        #expect(walk(.begun, .succeeded) == .succeeded)
        #expect(walk(.begun, .failed) == .failed)
        #expect(walk(.begun, .cancelled) == .cancelled)
        #expect(walk(.cancelled) == .cancelled)
        #expect(walk(.failed) == .failed)
        // Nothing succeeds that has not begun, and nothing begins twice.
        #expect(walk(.succeeded) == nil)
        #expect(walk(.begun, .begun) == nil)
    }

    @Test func afterARestartItWaitsForItsCredentials() {
        #expect(walk(.foundNoCredentials) == .needsCredentials)
        #expect(walk(.begun, .foundNoCredentials) == .needsCredentials)
        #expect(walk(.begun, .foundNoCredentials, .begun) == nil)
        #expect(walk(.begun, .foundNoCredentials, .accepted, .begun, .succeeded) == .succeeded)
        #expect(walk(.begun, .foundNoCredentials, .cancelled) == .cancelled)
        #expect(walk(.begun, .foundNoCredentials, .failed) == .failed)
    }

    @Test func whatFailedCanBeTriedAgainAndWhatSucceededNot() {
        #expect(walk(.begun, .failed, .accepted, .begun, .succeeded) == .succeeded)
        #expect(walk(.begun, .cancelled, .accepted) == .waiting)
        // Two attempts at the same time: the second finds it running.
        #expect(walk(.begun, .accepted) == nil)
        for event in Self.events { #expect(InstallationState.succeeded.after(event) == nil) }
    }

    @Test func anEndTakesNothingButAnotherAttempt() {
        for state in InstallationState.allCases where state.isOver {
            for event in Self.events where event != .accepted { #expect(state.after(event) == nil) }
        }
        #expect(InstallationState.allCases.filter(\.isOver) == [.succeeded, .failed, .cancelled])
        // As it stands in records and answers.
        #expect(InstallationState.needsCredentials.rawValue == "needs-credentials")
    }
}

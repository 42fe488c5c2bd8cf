/// What an installation is at, and what may follow. A value: who changes it writes it down.
enum InstallationState: String, Sendable, CaseIterable {
    /// Its job has not begun.
    case waiting
    case running
    case succeeded, failed, cancelled
    /// A restart took the credentials with it, which are nowhere but in memory: it goes on when they are given again.
    case needsCredentials = "needs-credentials"

    enum Event: Sendable, Equatable {
        /// Credentials were given and a job was made.
        case accepted
        case begun
        /// An attempt began and found no credentials.
        case foundNoCredentials
        case succeeded, failed, cancelled
    }

    var isOver: Bool { self == .succeeded || self == .failed || self == .cancelled }

    /// `nil`: the event does not fit here, and changes nothing.
    func after(_ event: Event) -> InstallationState? {
        switch (self, event) {
        case (.needsCredentials, .accepted), (.failed, .accepted), (.cancelled, .accepted), (.waiting, .accepted): .waiting
        case (.waiting, .begun): .running
        case (.waiting, .foundNoCredentials), (.running, .foundNoCredentials): .needsCredentials
        case (.running, .succeeded): .succeeded
        case (.waiting, .failed), (.running, .failed), (.needsCredentials, .failed): .failed
        case (.waiting, .cancelled), (.running, .cancelled), (.needsCredentials, .cancelled): .cancelled
        default: nil
        }
    }
}

/// What is done to a host.
enum Action: String, Sendable, CaseIterable {
    case install, upgrade, repair, uninstall
}

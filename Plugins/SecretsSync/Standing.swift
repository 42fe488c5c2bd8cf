/// How one version stands in one place, over all files that are to hold it.
struct Standing: Sendable, Equatable {
    /// Shown by hash, and what had to be done after the change was done.
    var applied = 0
    /// Refused three times or more, or the hook failed.
    var failed = 0
    /// The client is there and has not answered yet.
    var waiting = 0
    /// The client is not there.
    var offline = 0

    var total: Int { applied + failed + waiting + offline }
}

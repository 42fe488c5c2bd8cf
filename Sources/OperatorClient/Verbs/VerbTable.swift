/// Every verb, in the order of the help text. Each area keeps its rows in a file of its own.
extension Verb {
    static let table: [Verb] =
        login + exec + commands + files + clientFiles + jobs + schedules + plugins + shell + secrets + cloud + install + registry + upgrades + security + trail
        + own
}
